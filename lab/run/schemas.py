"""Schemas of the files in run directories, which lab.run.files checks, and what the metrics in them mean."""

from __future__ import annotations

from collections.abc import Iterable

from lab.run.files import OrNull, Shape

STATES = ("running", "completed", "failed", "pruned", "interrupted")
RERUN = "rerun.json"  # in a directory that `rerun` made: of which one, and how the results compare
RERUN_BEGUN = ".jobs/rerun"  # the same from the start on, without a comparison: a Session wants an empty directory
ENDED = ("completed", "failed", "pruned")  # a Session leaves these states only on request
METRICS = {
    "return": "mean return of the last 100 episodes of training",
    "best": "highest mean return of 100 episodes",
    "eval_return": "mean return of the last evaluation, by the deterministic policy",
    "eval_best": "highest mean return of an evaluation",
    "length": "mean length of the last 100 episodes",
    "strength": "mean over training of the return minus that of random actions",
    "max_strength": "highest return minus that of random actions",
    "final_strength": "last return minus that of random actions",
    "sample_efficiency": "strength weighted by 1 / frames: high if it comes early",
    "training_efficiency": "strength weighted by 1 / optimizer steps: high if it comes early",
    "stability": "1 minus the fraction of strength that is lost again during training",
    "frames_to_solve": "first frame at which the return counts as solved, over the Sessions that reach it",
    "frames": "frames of training, fewer where it was stopped on success",
    "optimizer_steps": "steps of the optimizer",
    "episodes": "episodes that ended",
}  # of session.json
MEANINGS = {
    **METRICS,
    "consistency": "1 minus twice the deviation between seeds, relative to strength",
    "IQM": "interquartile mean over seeds: the mean of the middle half, which outliers do not move",
    "95 % interval": "percentile bootstrap over seeds; too narrow for a handful of seeds",
    "probability of improvement": "that a seed of one Trial does better than a seed of another; 0.5 is no difference",
    "importance": "how much a hyperparameter tells the best tenth of the Trials from all (PED-ANOVA); the sum is 100 %",
}


def meaning(name: str) -> str:
    """Return what a metric means; one that is not of MEANINGS is of env.metrics."""
    evaluated = name.removeprefix("eval_")
    where = "in the last evaluation" if evaluated != name else "over the last 100 episodes of training"
    return MEANINGS.get(name) or f"mean of {evaluated} {where}"


def add_evaluation(names: Iterable[str]) -> list[str]:
    """Return the names of env.metrics with those of their means in an evaluation."""
    names = list(names)
    return [*names, *(f"eval_{name}" for name in names)]


LESS_IS_BETTER = ("frames_to_solve", "frames")  # of these metrics; for all others, more is better
DIRECTIONS = ("maximize", "minimize")
AGGREGATES = ("mean", "median", "iqm", "lower")  # over seeds; `lower` is the lower end of the mean's 95 % interval

ESTIMATE = {"value": float | None, "low": float | None, "high": float | None}
SIZE = {"size": int, "crc32": int}  # of a file, or of its first bytes

STATUS: Shape = {
    "state": STATES, "frame": int, "frames": int, "return": float | None, "frames_per_second": float | None,
    "error": str | None, "lost": bool, "updated": str, "host": str, "pid": int, "tables": {"*": SIZE},
    "warnings": [str], "stopped": str | None,
}  # fmt: skip
STOP: Shape = {"state": ("pruned", "interrupted"), "reason": str}
POINT: Shape = {"number": int, "overrides": [str], "hyperparameters": dict, "seeds": [int]}
OBJECTIVE: Shape = {"metrics": [str], "directions": [DIRECTIONS], "aggregate": AGGREGATES}
SWEEP: Shape = {
    "kind": ("trial", "experiment"), "name": str, "env": str, "frames": int, "objective": OBJECTIVE,
    "hyperparameters": [str], "search": str | None, "space": dict, "defaults": dict | None, "seeds": [int],
    "trials": int, "command": str,
}  # fmt: skip
TRIAL: Shape = {
    "sessions": {"*": int}, "seeds": [int], "consistency": float | None, "not_completed": [dict],
    "metrics": {"*": {"n": int, "mean": ESTIMATE, "std": ESTIMATE, "median": ESTIMATE, "iqm": ESTIMATE}},
}  # fmt: skip
SESSION: Shape = {"*": float | None}
EXPORTED: Shape = {"of": str, "weights": str | None}
TAGS: Shape = {"tags": [str]}
JOB: Shape = {"task": str, "folder": str, "overrides": [str], "sessions": [str]}
GIT: Shape = {
    "sha": str | None, "branch": str | None, "uncommitted": bool | None, "left_out": dict | list, "within": str | None,
    "note": str | None, "modules": [str],
}  # fmt: skip
CODE: Shape = {"git": GIT, "repositories": [GIT], "code": {"*": str | None}, "stack": [int], "device": str}
PROVENANCE: Shape = {
    **CODE, "start": str, "end": str | None, "command": str, "directory": str, "python": str,
    "packages": {"*": str | None}, "platform": str, "cpu": {"model": str | None, "cores": int | None},
    "gpu": str | None, "host": str, "threads": int, "restore": str, "resumed": [{"frame": int, **CODE}],
}  # fmt: skip
SPEC: Shape = {
    "name": str, "seed": int, "frames": int, "mode": str, "device": str, "threads": int,
    "env": {
        "name": str, "id": str, "kwargs": dict, "num_envs": int,
        "reference": {"id": str | None, "random_return": float | None, "solved": float | None},
    },
    "algo": {"name": str}, "net": dict, "eval": dict, "log": dict, "checkpoint": dict, "extended_from": [int],
    "stop_at": float | None, "init_from": OrNull({"file": str, "weights": str}),
    "tuning": {"source": str, "seeds": [int]},
}  # fmt: skip
CHECKPOINT: Shape = {"frame": int, "optimizer_steps": int, "parameters": dict, "unfinished_interval": int | None,
                     "collector": dict, "averages": list, "replay": dict | None,
                     "record": {"tables": {"*": SIZE}}}  # fmt: skip
