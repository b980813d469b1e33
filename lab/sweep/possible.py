"""Whether an objective can be had of Sessions, known from their spec before any of them begins."""

from __future__ import annotations

from lab.analysis.objective import Objective
from lab.common.text import format_value
from lab.errors import LabError
from lab.spec import Spec

EVALUATED = ("eval_return", "eval_best")
MEASURED = {
    "random_return": (
        "strength", "max_strength", "final_strength", "sample_efficiency", "training_efficiency", "stability",
    ),
    "solved": ("frames_to_solve",),
}  # figures that need something of env.reference  # fmt: skip
MEANING = {"random_return": "the mean return of random actions", "solved": "the return that counts as solved"}
LEAST_ROWS = {"stability": 2}  # rows of metrics.csv that a figure needs, if more than one


def require_possible(objective: Objective, spec: Spec, rungs: int | None = None) -> None:
    """Raise LabError if Sessions of a spec can never have a figure of the objective.

    Args:
        objective: what Trials are to be ranked by.
        spec: of a Session.
        rungs: at how many equal shares of its frames a pruner looks at it; null if there is no pruner.
    """
    for metric in objective.metrics:
        reason = _no_evaluation(metric, spec) or _no_reference(metric, spec) or _too_few_rows(metric, spec)
        if reason:
            other = "Or rank by another figure, as objective.metric=return."
            raise LabError(f"objective.metric={metric} is not possible {reason} {other}")
    if rungs:
        _require_values_at_rungs(objective.metrics[0], spec, rungs)


def _no_evaluation(metric: str, spec: Spec) -> str:
    if metric not in EVALUATED or spec.eval.every:
        return ""
    return "with eval.every=0, by which nothing is evaluated. Set eval.every to a number of frames."


def _no_reference(metric: str, spec: Spec) -> str:
    """Say why what a figure is measured by is not known, if it is not."""
    key = next((key for key, metrics in MEASURED.items() if metric in metrics), None)
    if key is None:
        return ""
    env, reference = spec.env, spec.env.reference
    need = f"as it needs {MEANING[key]}"
    if env.kwargs:
        return (
            f"with env.kwargs={format_value(env.kwargs)}, {need}, and env.reference is of an environment without"
            " arguments. Leave env.kwargs out."
        )
    if reference.id != env.id:
        known = f"that of {reference.id} alone is known" if reference.id else "that is not known"
        return (
            f"with env.id={env.id}, {need}, and {known}."
            f" Measure it, and set env.reference.id={env.id} and env.reference.{key}."
        )
    if getattr(reference, key) is None:
        return f"with env.reference.{key}=null, {need}. Measure it, and set env.reference.{key}."
    return ""


def _too_few_rows(metric: str, spec: Spec) -> str:
    if len(_rows(spec)) >= LEAST_ROWS.get(metric, 1):
        return ""
    return f"with log.every={spec.log.every} and frames={spec.frames}, as it needs two log intervals. Lower log.every."


def _require_values_at_rungs(metric: str, spec: Spec, rungs: int) -> None:
    """Raise LabError if a pruner could not see the figure while a Session runs."""
    last = spec.frames * (rungs - 1) / rungs
    reason = ""
    if metric == "frames_to_solve":
        reason = "no Session has it before it has solved its environment. Rank by sample_efficiency, as an example."
    elif metric in EVALUATED and _first(spec, spec.eval.every) > last:
        reason = (
            f"with eval.every={spec.eval.every} there is no evaluation before the last look, at frame {last:,.0f}."
            " Lower eval.every."
        )
    elif [row for row in _rows(spec) if row < _end(spec)] == [] or _rows(spec)[LEAST_ROWS.get(metric, 1) - 1] > last:
        reason = (
            f"with log.every={spec.log.every} too little is logged before the last look, at frame {last:,.0f}."
            " Lower log.every."
        )
    if reason:
        raise LabError(f"A pruner cannot look at objective.metric={metric}: {reason}")


def _rows(spec: Spec) -> list[int]:
    """Return the frames of the first two rows of metrics.csv, or of the only one."""
    every = [interval for interval in (spec.log.every, spec.eval.every) if interval]
    first = {_first(spec, times * interval) for interval in every for times in (1, 2)}
    return sorted(first | {_end(spec)})[:2]


def _first(spec: Spec, frame: int) -> int:
    """Return the end of the first horizon that reaches a frame, or the end of the Session if that comes before."""
    horizon = spec.algo.horizon * spec.env.num_envs
    return min(-(-frame // horizon) * horizon, _end(spec))


def _end(spec: Spec) -> int:
    """Return the frame at which a Session ends: with the first whole horizon that reaches `frames`."""
    horizon = spec.algo.horizon * spec.env.num_envs
    return -(-spec.frames // horizon) * horizon
