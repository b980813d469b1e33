"""A sweep from its words to its end: plan, check, run or go on, analyze, and say what came of it."""

from __future__ import annotations

import functools
import platform
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.analysis.objective import Objective
from lab.analysis.session import read_spec
from lab.common.terminal import Terminal
from lab.common.text import flatten, format_value, quote
from lab.errors import LabError, visible, warn_once
from lab.experiment import INTERRUPTED, Experiment
from lab.launch import job
from lab.launch.naming import select_for_all
from lab.launch.supervise import exit_at_once, notify_supervisor
from lab.launch.watchdog import Watchdog
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import SweepDir
from lab.run.disk import is_disk_full
from lab.run.files import Document, read_yaml, write_sealed_json
from lab.run.guard import holds_session, refuse_foreign
from lab.run.provenance import command_line, config_dirs
from lab.run.schemas import ENDED
from lab.run.trust import user_name, warn_of_foreign_code
from lab.spec import Spec, SweepSpec, differences
from lab.sweep.composer import Composer
from lab.sweep.drawing import Drawing
from lab.sweep.plan import SweepPlan
from lab.sweep.points import SweepOverrides, choices, corners, searched
from lab.sweep.recorded import distinct, numbered, recorded
from lab.sweep.same_code import mixed, require_same_code
from lab.sweep.search import grid_of, study_of, suggested
from lab.sweep.tree import Tree
from lab.train.display import print_next
from lab.trial import Point, Trial


def run(context: Composer, settings: SweepSpec, words: SweepOverrides) -> None:
    """Run a sweep, or go on with it; exit with 1 if anything failed, 130 if it was interrupted.

    Raises:
        LabError: a mistake in the words, the config or the directory; nothing was begun then.
    """
    directory = SweepDir(Path(str(context.config.hydra.sweep.dir)))
    objective = objective_of(settings, words)
    pruning = not str(context.pruner["_target_"]).endswith("NopPruner")
    if pruning and len(objective.metrics) > 1:
        raise LabError(f"A pruner needs one objective; objective.metric names {len(objective.metrics)}.")
    if holds_session(directory.path):
        raise LabError(f"{directory.path} holds a Session: choose another hydra.sweep.dir for a sweep.")
    refuse_foreign(directory.path, "hydra.sweep.dir", sweep=True)
    if directory.sweep.exists():
        warn_of_foreign_code(directory.path, "to go on with it")
    plan = make_plan(context, directory, settings, words, pruning)
    spec = check(context, plan, settings, words, objective)
    code = CodeSnapshot.take(directory.path, config_dirs(command_line()))
    tell_of_code(context, plan, settings, code)
    if plan.note:
        print(visible(plan.note))
    if settings.plan:
        from lab.sweep.preview import preview

        preview(plan, spec)
        return
    study = study_of(context, plan, words, objective, settings)
    directory.acquire()
    plan = make_plan(context, directory, settings, words, pruning)  # nobody else changes the directory from here on
    job.started = True
    notify_supervisor("sweep", str(directory.path))
    content = description(context, plan, words, objective, spec)
    experiment = Experiment(
        plan,
        study,
        objective,
        context.launcher,
        Tree(spec.name, plan.total, len(plan.seeds), spec.frames, objective),
        Watchdog(plan.hung_after),
    )
    context.write_multirun(directory)
    write_sealed_json(directory.sweep, content)
    if settings.detach and (study or not context.launcher.outlives):
        detach(directory, [f"{key}=true" for key in ("retry", "mix_code") if getattr(settings, key)])
        return
    context.launcher.warm_up()
    try:
        experiment.open()
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise LabError(f"The disk of {directory.path} is full. Free some space, and resume.") from error
    if spec.log.tensorboard and not plan.standalone:
        from lab.sweep.hparams import write_hparams

        write_hparams(directory.path, content["hyperparameters"], flatten(spec.to_dict()))
    try:
        with Drawing() as drawing:
            if not plan.standalone:  # a Trial that stands alone is drawn at the end
                experiment.draw = drawing.draw
            experiment.run()
    except KeyboardInterrupt:  # again, before all had ended
        context.launcher.kill()
        again = f"python -m lab resume {shlex.quote(str(directory.path))}"
        print(visible(f"\nStopped at once. To go on: {again}"), file=sys.stderr)
        exit_at_once(130)  # at once, as threads would keep this process that wait for jobs, or train in it
    if settings.detach:
        tell_detached(directory)
        return
    status = conclude(experiment)
    if status:
        sys.exit(status)


def tell_of_code(context: Composer, plan: SweepPlan, settings: SweepSpec, code: CodeSnapshot) -> None:
    """Say on the terminal what is not known of the code, and where it is not what earlier Sessions were trained by.

    Raises:
        LabError: a Trial would have Sessions of different code.
    """

    @functools.cache
    def in_jobs() -> set[Path]:
        return {session.path for job, _ in context.launcher.adopt() for session in job.sessions.values()}

    begun = plan.started()
    told = require_same_code(begun, len(begun) < plan.total, settings.mix_code, code, in_jobs)
    for sentence in (*code.problems(), *told):
        print(visible(f"Warning: {sentence}"), file=sys.stderr)


def detach(directory: SweepDir, options: list[str]) -> None:
    """Let another process, without a terminal, go on with a sweep that is ready to run."""
    directory.lock.release()
    directory.jobs.mkdir(exist_ok=True)
    log = directory.jobs / "controller.log"
    with log.open("ab") as output:
        words = [sys.executable, "-m", "lab", "resume", str(directory.path.absolute()), *options]
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(words, start_new_session=True, **streams)  # type: ignore[call-overload]
    tell_detached(directory, process.pid)


def tell_detached(directory: SweepDir, pid: int | None = None) -> None:
    """Say how to follow a sweep that goes on without this process, and that another one controls if it has a number."""
    path = shlex.quote(str(directory.path))
    print(visible(f"The sweep goes on in {directory.path}."))
    more = {f"python -m lab resume {path}": "wait for it here, and finish what is left"}
    if pid is not None:
        log = shlex.quote(str(directory.jobs / "controller.log"))
        more = {f"tail -f {log}": "what it says", f"kill -INT {pid}": "end it, with everything written"}
    print_next(
        Terminal(soft_wrap=True),
        {
            f"python -m lab status {path} --watch": "how far it is",
            **more,
            f"python -m lab report {path}": "figures of what there is by now",
        },
    )


def objective_of(settings: SweepSpec, words: SweepOverrides) -> Objective:
    """Return what Trials are ranked by.

    Raises:
        LabError: it needs more seeds than there are.
    """
    chosen = settings.objective
    if chosen.aggregate == "lower" and len(words.seeds) < 2:
        raise LabError(
            "objective.aggregate=lower is not allowed: one seed has no interval, so there must be two or more,"
            " as in seed=0,1,2,3."
        )
    return Objective(tuple(chosen.metric), tuple(chosen.direction), chosen.aggregate)


def make_plan(
    context: Composer, directory: SweepDir, settings: SweepSpec, words: SweepOverrides, pruning: bool
) -> SweepPlan:
    """Lay out what is to run: points, their numbers, and how Sessions are packed."""
    alone = not words.axes and settings.search is None
    points: list[Point] | None = None
    if settings.search is None:
        points = words.grid()
    elif str(context.sampler["_target_"]).endswith("GridSampler"):
        if settings.search.custom:
            raise LabError(
                "hydra/sweeper/sampler=grid cannot be used with search.custom: what it suggests has no grid."
            )
        values = {key: choices(found, key) for key, found in words.space.items()}
        points = grid_of(values)[: settings.search.n_trials]
    plan = SweepPlan(
        directory=directory,
        standalone=alone,
        fixed=words.fixed,
        seeds=words.seeds,
        points=points,
        total=settings.search.n_trials if settings.search and points is None else len(points or []),
        searched=lambda values: recorded(context, words.fixed, searched(values, words.space), words.seeds),
        stack=1,
        parallel=1,
        rungs=settings.rungs,
        prune=pruning,
        max_failure_rate=settings.max_failure_rate,
        retry=settings.retry,
        hung_after=settings.hung_after,
        detach=settings.detach,
    )
    begun = plan.started()
    if [trial.number for trial in begun] != list(range(len(begun))):
        missing = min(set(range(len(begun) + 1)) - {trial.number for trial in begun})
        raise LabError(
            f"{directory.trial(missing).path} is missing, though later Trials are there: a sweep goes on only with all"
            " that it began. Put it back, or begin in another directory."
        )
    if points is not None:
        plan.points, plan.note = numbered(context, words.fixed, points, begun, words.seeds)
        plan.total = len(plan.points)
    elif len(begun) > plan.total:
        plan.total = len(begun)
    slots = context.launcher.slots
    plan.parallel = min(settings.parallel or slots, slots) if slots == 1 else settings.parallel or slots
    if settings.detach:  # nobody is there to begin more later
        plan.parallel = plan.total
    left = sum(len(trial.remaining()) for trial in begun) + (plan.total - len(begun)) * len(plan.seeds)
    plan.stack = int(settings.stack) if settings.stack != "auto" else pack(left, len(plan.seeds), slots, pruning)
    return plan


def pack(left: int, seeds: int, slots: int, pruning: bool) -> int:
    """Return how many Sessions to stack: as many as leave no part of the machine idle.

    Args:
        left: Sessions to run.
        seeds: Sessions of a Trial.
        slots: jobs that run at the same time.
        pruning: whether Trials are pruned; their Sessions go side by side then, or there is little left to prune.
    """
    return seeds if pruning else max(1, min(seeds, -(-left // slots)))


def check(context: Composer, plan: SweepPlan, settings: SweepSpec, words: SweepOverrides, objective: Objective) -> Spec:
    """Check, before anything is begun, that every point can be trained and ranked, and that earlier Sessions are so.

    Of a search, points at which every end and every choice of its space occurs are checked, and one that it suggests.

    Returns:
        The spec of one of the points.

    Raises:
        LabError: a point makes no spec, it cannot have the objective, or Sessions in the directory were trained with
            another spec.
    """
    from lab.sweep.possible import require_possible
    from lab.train.lockstep import check_spaces

    begun = {trial.number: trial for trial in plan.started()}
    points = plan.points if plan.points is not None else [*corners(words.space), suggested(context, settings, words)]
    environments: dict[str, Any] = {}
    spec: Spec | None = None
    for number, point in enumerate(points):
        specs = context.specs([*plan.fixed, *point.overrides], plan.seeds)
        check_spaces(distinct(specs), environments)
        for spec in distinct(specs):
            require_possible(objective, spec, plan.rungs if plan.prune else None)
        if plan.points is not None:
            refuse_other(begun.get(number) or plan.trial(number, point), specs)
    if plan.points is None:
        for trial in begun.values():
            refuse_other(trial, context.specs(trial.overrides, plan.seeds))
    assert spec is not None
    if len({one.name for one in specs}) > 1:  # none of them is that of all
        spec = replace(spec, name=select_for_all(context.config, "name", plan.seeds) or spec.name)
    return spec


def refuse_other(trial: Trial, specs: list[Spec]) -> None:
    """Raise LabError if a Session of a Trial was trained with another spec than that of its seed."""
    for session, spec in zip(trial.sessions().values(), specs, strict=True):
        if session.spec.exists():
            try:
                changed = differences(read_spec(session), spec.to_dict())
            except LabError:
                if session.read_status()["state"] not in ENDED:
                    raise
                continue  # analysis counts it as failed, and nothing is written there
            if changed:
                raise LabError(
                    f"{session.path} holds a Session of another spec: {'; '.join(changed)}."
                    " Choose another hydra.sweep.dir."
                )


def description(
    context: Composer, plan: SweepPlan, words: SweepOverrides, objective: Objective, spec: Spec
) -> dict[str, Any]:
    """Return what sweep.json holds.

    Raises:
        LabError: the directory holds another kind of sweep, a search of another space, or seeds that are left out now.
    """
    directory = plan.directory
    content = {
        "kind": "trial" if plan.standalone else "experiment",
        "name": spec.name,
        "env": spec.env.id,
        "frames": spec.frames,
        "objective": objective.to_dict(),
        "hyperparameters": [key.lstrip("+") for key in (*words.axes, *words.space)],
        "search": context.config.hydra.runtime.choices.get("search"),
        "space": words.texts,
        "seeds": sorted(plan.seeds),
        "trials": plan.total,
        "now": context.times,
        "command": shlex.join(command_line()),
        "user": user_name(),
        "host": platform.node(),
    }
    earlier = read_earlier(directory)
    if earlier:
        for key, what in (("kind", "kind of sweep"), ("space", "search space")):
            if earlier[key] != content[key]:
                raise LabError(
                    f"{directory.path} was begun with another {what}: {format_value(earlier[key])} there,"
                    f" {format_value(content[key])} here. Choose another hydra.sweep.dir."
                )
        left_out = sorted({*earlier["seeds"]} - {*plan.seeds})
        if left_out:
            every = ",".join(map(str, sorted({*earlier["seeds"], *plan.seeds})))
            raise LabError(
                f"{directory.path} was begun with the seeds {', '.join(map(str, earlier['seeds']))}:"
                f" none can be left out, so write seed={every}."
            )
    return content


def read_earlier(directory: SweepDir) -> Document | None:
    """Return what sweep.json holds; null where there is none yet, or one that is damaged and made again."""
    if not directory.sweep.exists():
        return None
    try:
        earlier = directory.read_sweep()
        for key in ("kind", "space", "seeds"):
            earlier[key]
        return earlier
    except LabError as error:
        warn_once(f"{error} It is made again.")
        return None


def command_of(directory: SweepDir, words: list[str]) -> list[str]:
    """Return the words that begin a sweep again in its directory, with some of them changed.

    Raises:
        LabError: what the sweep left there cannot be read.
    """
    try:
        hydra = read_yaml(directory.multirun)["hydra"]
        began = [*hydra["overrides"]["hydra"], *hydra["overrides"]["task"]]
        sources = [each["path"] for each in hydra["runtime"]["config_sources"] if each["provider"] == "command-line"]
        name = hydra["job"]["config_name"]
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"{directory.multirun} cannot be read: {error}.") from error
    # What was asked for once is not asked for again.
    once = {"hydra.sweep.dir", "hydra.mode", "retry", "mix_code", "plan", "detach"}
    changed = {key_of(word) for word in words} | once
    kept = [word for word in began if key_of(word) not in changed]
    folders = [word for path in sources for word in ("--config-dir", path)]
    return [
        "--multirun",
        f"--config-name={name}",
        *folders,
        *kept,
        *words,
        f"hydra.sweep.dir={quote(str(directory.path))}",
    ]


def key_of(word: str) -> str:
    """Return the key of an override; +key, ++key and key are one."""
    return word.partition("=")[0].lstrip("+")


def conclude(experiment: Experiment) -> int:
    """Analyze the whole, show it, and return the exit status."""
    from lab.analysis import analyze, analyze_session
    from lab.sweep.summary import show

    plan = experiment.plan
    path = plan.directory.path
    begun = plan.started()
    unfinished = sum(len(trial.remaining()) for trial in begun) + (plan.total - len(begun)) * len(plan.seeds)
    why = "was interrupted" if experiment.stopped in (None, INTERRUPTED) else f"was stopped: {experiment.stopped}"
    try:
        for session in (session for trial in begun for session in trial.sessions().values()):
            if session.metrics.exists() and not session.results.exists():  # its job was killed between the two
                analyze_session(session)
        analyze(path)
        show(path, f"The sweep {why}." if unfinished else None)
    except KeyboardInterrupt:
        command = "resume" if unfinished else "report"
        again = f"python -m lab {command} {shlex.quote(str(path))}"
        print(visible(f"\nStopped while analyzing. To go on: {again}"), file=sys.stderr)
        return 130
    for trial in begun:
        names = mixed(trial.sessions().values())
        if names:
            warning = f"Warning: {trial.directory.path} has Sessions of different code of {', '.join(names)}."
            print(visible(warning), file=sys.stderr)
    if experiment.stopped == INTERRUPTED:
        return 130
    return int(bool(unfinished or any("failed" in trial.states().values() for trial in begun)))
