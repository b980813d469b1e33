"""Checks before a sweep starts: every point can be trained and ranked, and earlier Sessions have the same spec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from lab.analysis.objective import Objective
from lab.analysis.session import read_spec
from lab.common.text import canonical, flatten, format_value
from lab.errors import LabError
from lab.run.files import parse_yaml, read_yaml
from lab.run.schemas import ENDED
from lab.spec import Spec, require_same_spec
from lab.sweep.composer import Composer
from lab.sweep.plan import SweepPlan, distinct_specs, estimate_replay, limit_stack
from lab.sweep.search import suggest_point
from lab.trial import Trial

if TYPE_CHECKING:
    from lab.env.vector import Spaces

EVALUATION = "eval_"  # how the names of metrics of an evaluation begin
REFERENCE = {
    "random_return": (
        "strength", "max_strength", "final_strength", "sample_efficiency", "training_efficiency", "stability",
    ),
    "solved": ("frames_to_solve",),
}  # metrics by the key of env.reference that they need  # fmt: skip
MEANING = {"random_return": "the mean return of random actions", "solved": "the return that counts as solved"}
OTHER_DIRECTORY = "Choose another hydra.sweep.dir."
MIN_ROWS = {"stability": 2}  # rows of metrics.csv that a metric needs, if more than one


def check_plan(composer: Composer, plan: SweepPlan) -> Spec:
    """Check all points of a grid, or the corners of a search space and one point that the search suggests.

    Returns:
        The spec of one of the points.

    Raises:
        LabError: a point makes no spec or cannot have the objective, a Session in the directory has another spec, or
            the search there another sampler or pruner.
    """
    from lab.training.agent import check_initialization
    from lab.training.lockstep import check_spaces

    refuse_other_search(composer, plan)
    started = {trial.number: trial for trial in plan.started()}
    trials = [*started.values()]
    if plan.points is not None:
        trials = [started.get(number) or plan.trial(number, point) for number, point in enumerate(plan.points)]
        points = plan.points
    elif plan.settings.only_trial is not None:
        points = [trial.point for trial in trials]
    else:
        points = [*plan.overrides.corners(), suggest_point(composer, plan)]
    largest, spaces = 0, plan.spaces
    environments: dict[str, str] = {}
    for point in points:
        overrides = [*plan.overrides.fixed, *point.overrides]
        distinct = distinct_specs(composer, overrides, plan.seeds)
        spaces_of = check_spaces(distinct, spaces)
        check_initialization(distinct, spaces_of)
        largest = max(largest, *map(estimate_replay, distinct, spaces_of))
        environments[canonical([(spec.env.id, spec.env.arguments) for spec in distinct])] = distinct[0].env.id
        for spec in distinct:
            require_possible(plan.objective, spec, plan.settings.rungs if plan.prune else None)
    limit_stack(plan, largest)
    require_one_ranking(plan, list(environments.values()))
    for trial in trials:
        check_spaces(distinct_specs(composer, trial.overrides, trial.seeds), spaces)
        refuse_other_spec(trial, composer.specs(trial.overrides, trial.seeds), spaces)
    return replace(spec, name=str(composer.config.name))


def refuse_other_search(composer: Composer, plan: SweepPlan) -> None:
    """Raise LabError if the points or the pruning of the sweep in the directory were decided by other settings.

    A directory that does not say by which is continued.
    """
    directory, search = composer.directory, plan.settings.search is not None
    try:
        earlier = read_yaml(directory.multirun)
        if plan.settings.only_trial is not None or search != (earlier.get("search") is not None):
            return  # nothing is decided, or the search spaces differ
        before = dict(_search_settings(earlier, search))
    except (LabError, OSError, KeyError, TypeError, AttributeError):
        return
    now = dict(_search_settings(parse_yaml(OmegaConf.to_yaml(composer.config), directory.multirun), search))
    for key in dict.fromkeys([*before, *now]):
        there, here = before.get(key), now.get(key)
        if there != here and (there is not None or "." in key):  # else it is a record that lacks the key
            raise LabError(
                f"{directory.path} holds a {'search' if search else 'sweep'} with {key}={format_value(there)}, and"
                f" {key}={format_value(here)} was asked for. {OTHER_DIRECTORY}"
            )


def _search_settings(config: dict[str, Any], search: bool) -> Iterator[tuple[str, Any]]:
    """Yield what decides the points of a search, and what is pruned, from the config of a sweep."""
    sweeper, choices = config["hydra"]["sweeper"], config["hydra"]["runtime"]["choices"]
    parts = ("sampler", "pruner") if search else ("pruner",)
    yield from ((part, choices.get(f"hydra/sweeper/{part}")) for part in parts)
    for part in parts:
        yield from flatten(sweeper[part], f"hydra.sweeper.{part}.").items()
    if search:
        yield "search.custom", config["search"].get("custom")
    if not str(sweeper["pruner"]["_target_"]).endswith("NopPruner"):
        yield "rungs", config.get("rungs")


def require_one_ranking(plan: SweepPlan, environments: list[str]) -> None:
    """Raise LabError if a search or a pruner would compare returns of different environments."""
    plan.environments = len(environments)
    if len(environments) < 2 or not (plan.points is None or plan.prune):
        return
    names = list(dict.fromkeys(environments))
    different = f"different environments ({', '.join(names)})" if len(names) > 1 else f"different kinds of {names[0]}"
    if plan.points is None:
        problem, advice = f"A search cannot choose between {different}", "Search in one, or sweep them in a grid"
    else:
        problem, advice = f"A pruner cannot compare Trials in {different}", "Leave hydra/sweeper/pruner out"
    raise LabError(
        f"{problem}, as their returns mean different things. {advice}: Trials are ranked within each, and settings over"
        " all by normalized scores."
    )


def refuse_other_spec(trial: Trial, specs: list[Spec], spaces: dict[str, Spaces]) -> None:
    """Raise LabError if a Session of a Trial has another spec than that of its seed; `spaces` as for check_spaces."""
    from lab.training.lockstep import check_spaces

    for session, spec in zip(trial.sessions().values(), specs, strict=True):
        if session.spec.exists():
            try:
                recorded = read_spec(session)
            except LabError:
                if session.read_status()["state"] not in ENDED:
                    raise
                continue  # analysis counts it as failed, and nothing is written there
            check_spaces([spec], spaces)  # decides what is `auto`
            require_same_spec(recorded, spec, session.path, OTHER_DIRECTORY)


def require_possible(objective: Objective, spec: Spec, rungs: int | None = None) -> None:
    """Raise LabError if no Session of a spec can have a metric of the objective, or have it at the pruner's rungs."""
    for metric in objective.metrics:
        reason = _why_impossible(metric, spec)
        if reason:
            other = "Or rank by another metric, as objective.metric=return."
            raise LabError(f"objective.metric={metric} is not possible {reason} {other}")
    reason = _why_unprunable(objective.metrics[0], spec, rungs) if rungs else ""
    if reason:
        raise LabError(f"A pruner cannot judge objective.metric={objective.metrics[0]}: {reason}")


def _why_impossible(metric: str, spec: Spec) -> str:
    if metric.startswith(EVALUATION) and not spec.eval.every:
        return "with eval.every=0, by which nothing is evaluated. Set eval.every to a number of frames."
    env, reference = spec.env, spec.env.reference
    for key in (key for key, metrics in REFERENCE.items() if metric in metrics):
        need = f"as it needs {MEANING[key]}"
        if env.arguments:
            key = "kwargs" if env.kwargs else "max_episode_steps"
            return (
                f"with env.{key}={format_value(getattr(env, key))}, {need}, and env.reference is of an environment"
                f" without arguments. Leave env.{key} out."
            )
        if reference.id != env.id:
            known = f"only that of {reference.id} is known" if reference.id else "that is not known"
            return (
                f"with env.id={env.id}, {need}, and {known}."
                f" Measure it, and set env.reference.id={env.id} and env.reference.{key}."
            )
        if getattr(reference, key) is None:
            return f"with env.reference.{key}=null, {need}. Measure it, and set env.reference.{key}."
    if len(first_rows(spec)) < MIN_ROWS.get(metric, 1):
        return (
            f"with log.every={spec.log.every} and frames={spec.frames}, as it needs two log intervals. Lower log.every."
        )
    return ""


def _why_unprunable(metric: str, spec: Spec, rungs: int) -> str:
    last = spec.frames * (rungs - 1) / rungs
    rows = first_rows(spec)
    if metric == "frames_to_solve":
        return "no Session has it before it has solved its environment. Rank by sample_efficiency, as an example."
    if metric.startswith(EVALUATION) and interval_end(spec, spec.eval.every) > last:
        problem, key = "there is no evaluation before", "eval"
    elif rows[0] == last_frame(spec) or rows[MIN_ROWS.get(metric, 1) - 1] > last:
        problem, key = "too little is logged before", "log"
    else:
        return ""
    every = getattr(spec, key).every
    return f"with {key}.every={every} {problem} the last rung, at frame {last:,.0f}. Lower {key}.every."


def first_rows(spec: Spec) -> list[int]:
    """Return the frames of the first two rows of metrics.csv, or of the only one."""
    ends = {
        interval_end(spec, times * every) for every in (spec.log.every, spec.eval.every) for times in (1, 2) if every
    }
    return sorted(ends | {last_frame(spec)})[:2]


def last_frame(spec: Spec) -> int:
    """Return the frame at which a Session ends."""
    return interval_end(spec, spec.frames)


def interval_end(spec: Spec, frame: int) -> int:
    """Return the end of the first horizon that reaches a frame, or that reaches `frames` if that is earlier."""
    horizon = spec.algo.horizon * spec.env.num_envs
    return -(-min(frame, spec.frames) // horizon) * horizon
