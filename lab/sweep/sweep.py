"""A sweep from its command line to its results: plan, check, run or continue, analyze."""

from __future__ import annotations

import functools
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lab.common.terminal import Terminal
from lab.common.text import flatten, format_value, quote
from lab.errors import LabError, print_to_stderr, visible
from lab.experiment import INTERRUPTED, Experiment
from lab.launch import job
from lab.launch.supervise import exit_at_once, notify_supervisor
from lab.launch.watchdog import Watchdog
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import SweepDir
from lab.run.disk import is_disk_full
from lab.run.files import read_yaml, write_sealed_json, write_sealed_yaml
from lab.run.guard import holds_session, refuse_foreign
from lab.run.provenance import command_line, config_dirs
from lab.run.trust import user_name, warn_of_foreign_code
from lab.spec import Spec
from lab.sweep.checks import check_plan
from lab.sweep.composer import Composer
from lab.sweep.defaults import find_defaults
from lab.sweep.overrides import SweepOverrides
from lab.sweep.plan import SweepPlan, make_plan
from lab.sweep.same_code import mixed_packages, require_same_code
from lab.sweep.search import make_study
from lab.sweep.tree import Tree
from lab.sweep_spec import SweepSpec, read_max_file_size
from lab.training.display import describe_special_settings, print_next_steps

ONCE = {
    "hydra.sweep.dir",
    "hydra.mode",
    "hydra.run.dir",
    "retry",
    "mix_code",
    "plan",
    "detach",
    "only_trial",
}  # overrides that `resume` drops


def run(composer: Composer, settings: SweepSpec, overrides: SweepOverrides) -> None:
    """Run or continue a sweep; exit with 1 if anything failed, 130 if it was interrupted.

    Raises:
        LabError: a mistake in the command line, the config or the directory, before anything was started.
    """
    directory = composer.directory
    if holds_session(directory.path):
        raise LabError(f"{directory.path} holds a Session: choose another hydra.sweep.dir for a sweep.")
    refuse_foreign(directory.path, "hydra.sweep.dir", sweep=True)
    if directory.sweep.exists():
        warn_of_foreign_code(directory.path, "to continue it")
    plan = make_plan(composer, settings, overrides)
    spec = check_plan(composer, plan)
    check_code(plan)
    if settings.search and settings.search.enqueue_defaults:
        try:
            plan.defaults = find_defaults(composer, plan)
        except LabError as reason:
            start = "The search starts without the defaults" if plan.points is None else "The grid lacks the defaults"
            if not plan.num_started:
                print_to_stderr(f"Note: {start}: {reason}")
    if plan.note:
        print(visible(plan.note, sys.stdout))
    if settings.plan:
        from lab.sweep.preview import preview

        preview(plan, spec)
    else:
        execute(plan, spec)


def execute(plan: SweepPlan, spec: Spec) -> None:
    """Run a plan that has been checked, in this process or, if detached, in another one."""
    directory, composer, settings = plan.directory, plan.composer, plan.settings
    study = make_study(composer, plan, spec.name)
    directory.acquire()
    if len(plan.started()) > plan.num_started:
        raise LabError(f"{directory.path} was changed by another sweep just now. Give the command again.")
    job.started = True
    notify_supervisor("sweep", str(directory.path))
    content = describe(plan, spec)
    if settings.only_trial is None:  # else the sweep stays what it is
        write_sealed_yaml(directory.multirun, OmegaConf.to_yaml(composer.config))
        write_sealed_json(directory.sweep, content)
        for trial in plan.started():
            if not trial.directory.point.exists():  # a single job trained it
                trial.write_point()
    launcher = composer.launcher
    if settings.detach and (study or not launcher.outlives_controller):
        detach(plan)
        return
    launcher.warm_up()
    swept = {key.lstrip("+") for key in plan.overrides.swept}
    for line in describe_special_settings(spec.to_dict()):
        if line.partition("=")[0] not in swept:
            print(visible(line, sys.stdout))
    tree = Tree(spec.name, plan.total, len(plan.seeds), spec.frames, plan.objective, plan.environments == 1)
    experiment = Experiment(plan, study, launcher, tree, Watchdog(settings.hung_after))
    try:
        experiment.open()
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise LabError(f"The disk of {directory.path} is full. Free some space, and resume.") from error
    if spec.log.tensorboard and not plan.standalone and settings.only_trial is None:
        from lab.sweep.hparams import write_hparams

        write_hparams(directory.path, content["hyperparameters"], flatten(spec.to_dict()))
    try:
        experiment.run()
    except KeyboardInterrupt:  # a second one, before all jobs had ended
        launcher.kill()
        again = f"python -m lab resume {shlex.quote(str(directory.path))}"
        print_to_stderr(f"\nStopped at once. To continue: {again}")
        exit_at_once(130)  # else threads that wait for jobs, or train, would keep this process alive
    if settings.detach:
        print_detached(directory)
        return
    status = finish(experiment)
    if status:
        sys.exit(status)


def check_code(plan: SweepPlan) -> None:
    """Warn of unknown code and of code that changed; a LabError if a Trial would have Sessions of different code."""

    @functools.cache
    def in_jobs() -> set[Path]:
        return {session.path for job, _ in plan.composer.launcher.adopt() for session in job.sessions.values()}

    max_size = read_max_file_size(plan.composer.config)
    code = CodeSnapshot.take(plan.directory.path, config_dirs(command_line()), max_size)
    started = plan.started()
    warnings = require_same_code(started, len(started) < plan.total, plan.settings.mix_code, code, in_jobs)
    for warning in (*code.warnings(), *warnings):
        print_to_stderr(f"Warning: {warning}")


def describe(plan: SweepPlan, spec: Spec) -> dict[str, Any]:
    """Return the content of sweep.json.

    Raises:
        LabError: the directory holds another kind of sweep, another search space, or seeds that are left out now.
    """
    directory, overrides = plan.directory, plan.overrides
    content = {
        "kind": "trial" if plan.standalone else "experiment",
        "name": spec.name,
        "env": spec.env.id,
        "frames": spec.frames,
        "objective": plan.objective.to_dict(),
        "hyperparameters": [key.lstrip("+") for key in overrides.swept],
        "search": plan.composer.config.hydra.runtime.choices.get("search"),
        "space": overrides.texts,
        "defaults": plan.default_point and plan.default_point.hyperparameters,
        "seeds": sorted(plan.seeds),
        "trials": plan.total,
        "now": plan.composer.times,
        "command": shlex.join(command_line()),
        "user": user_name(),
        "host": platform.node(),
    }
    earlier = directory.find_sweep(("kind", "space", "seeds"), "It is written again.")
    if earlier:
        for key, what in (("kind", "kind of sweep"), ("space", "search space")):
            if earlier[key] != content[key]:
                raise LabError(
                    f"{directory.path} was started with another {what}: {format_value(earlier[key])} there,"
                    f" {format_value(content[key])} here. Choose another hydra.sweep.dir."
                )
        if not set(earlier["seeds"]) <= set(plan.seeds):
            every = ",".join(map(str, sorted({*earlier["seeds"], *plan.seeds})))
            raise LabError(
                f"{directory.path} was started with the seeds {', '.join(map(str, earlier['seeds']))}:"
                f" none can be left out, so write seed={every}."
            )
    return content


def detach(plan: SweepPlan) -> None:
    """Let another process, without a terminal, continue a sweep that is ready to run."""
    directory = plan.directory
    directory.lock.release()
    directory.jobs.mkdir(exist_ok=True)
    options = [f"{key}=true" for key in ("retry", "mix_code") if getattr(plan.settings, key)]
    if plan.settings.only_trial is not None:
        options += [f"only_trial={plan.settings.only_trial}", f"seed={','.join(map(str, plan.seeds))}"]
    with (directory.jobs / "controller.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "resume", str(directory.path.absolute()), *options],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    directory.lock.announce(process.pid)
    print_detached(directory, process.pid)


def print_detached(directory: SweepDir, pid: int | None = None) -> None:
    """Print how to follow a sweep that runs without this process; `pid` is its controller, if it has one."""
    print(visible(f"The sweep goes on in {directory.path}."))
    path = shlex.quote(str(directory.path))
    commands = {f"python -m lab status {path} --watch": "its progress"}
    if pid is None:
        commands[f"python -m lab resume {path}"] = "wait for it here, and finish what remains"
    else:
        commands[f"tail -f {shlex.quote(str(directory.jobs / 'controller.log'))}"] = "its output"
        commands[f"kill -INT {pid}"] = "end it, with everything written"
    commands[f"python -m lab report {path}"] = "metrics of what has been written so far"
    print_next_steps(Terminal(soft_wrap=True), commands)


def finish(experiment: Experiment) -> int:
    """Analyze the sweep, print its results, draw its Trials, and return the exit status."""
    from lab.analysis import analyze, analyze_session
    from lab.sweep.drawing import draw_trials
    from lab.sweep.summary import print_summary

    plan = experiment.plan
    path = plan.directory.path
    started, remaining = plan.started(), plan.count_remaining()
    why = "was interrupted" if experiment.stopped in (None, INTERRUPTED) else f"was stopped: {experiment.stopped}"
    try:
        for session in (session for trial in started for session in trial.sessions().values()):
            if session.metrics.exists() and not session.results.exists():  # its job was killed between the two
                analyze_session(session)
        analyze(path)
        if around := plan.directory.validates:
            analyze(around.path)
        print_summary(path, f"The sweep {why}." if remaining else None)
        if not plan.standalone:
            draw_trials(plan.directory)
    except KeyboardInterrupt:
        again = f"python -m lab {'resume' if remaining else 'report'} {shlex.quote(str(path))}"
        print_to_stderr(f"\nStopped while analyzing. To continue: {again}")
        return 130
    for trial in started:
        if names := mixed_packages(trial.sessions().values()):
            warning = f"Warning: {trial.directory.path} has Sessions of different code of {', '.join(names)}."
            print_to_stderr(warning)
    if experiment.stopped == INTERRUPTED:
        return 130
    return int(bool(remaining or any("failed" in trial.states().values() for trial in started)))


def resume_command(directory: SweepDir, overrides: list[str], started: Path | None = None) -> list[str]:
    """Return the arguments that start a sweep again in its directory, with some overrides changed.

    Args:
        directory: of the sweep, or of a Trial that a single job trained.
        overrides: what is changed.
        started: the file with the config of Hydra that it was started with; multirun.yaml by default.

    Raises:
        LabError: the file cannot be read.
    """
    options, earlier = read_command(started or directory.multirun)

    def key(override: str) -> str:
        return override.partition("=")[0].lstrip("+")

    changed = {key(override) for override in overrides} | ONCE
    kept = [override for override in earlier if key(override) not in changed]
    sweep_dir = f"hydra.sweep.dir={quote(str(directory.path))}"
    return ["--multirun", *options, *kept, *overrides, sweep_dir]


def read_command(started: Path) -> tuple[list[str], list[str]]:
    """Return Hydra's options and the overrides of a command line, from the file with the config that it composed.

    Raises:
        LabError: the file cannot be read.
    """
    try:
        hydra = read_yaml(started)["hydra"]
        overrides = [*hydra["overrides"]["hydra"], *hydra["overrides"]["task"]]
        sources = [source for source in hydra["runtime"]["config_sources"] if source["provider"] == "command-line"]
        folders = [argument for source in sources for argument in ("--config-dir", source["path"])]
        return [f"--config-name={hydra['job']['config_name']}", *folders], overrides
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"{started} cannot be read: {error}.") from error
