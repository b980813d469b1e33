"""What a composed config says beside the specs of Sessions: of a sweep, and of code to keep; errors are LabErrors.

conf/config.yaml explains each key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

from annotated_types import Ge
from omegaconf import DictConfig, OmegaConf

from lab.build import build
from lab.common.interpolation import resolve, resolve_but_seed
from lab.common.validation import Count, Fraction, Natural, Positive
from lab.errors import LabError, require, require_one_of
from lab.run.schemas import AGGREGATES, DIRECTIONS, LESS_IS_BETTER, METRICS, add_evaluation


@dataclass
class ObjectiveSpec:
    """What the Trials of an Experiment are ranked by."""

    metric: list[str]
    direction: list[str]
    aggregate: str

    def check(self, env_metrics: Sequence[str] = ()) -> None:
        """Raise LabError for a value that is not allowed; `env_metrics` may be ranked by too."""
        for metric in self.metric:
            require_one_of("objective.metric", metric, [*METRICS, *add_evaluation(env_metrics)])
        require(bool(self.metric), "objective.metric", self.metric, "the name of a metric, or a list of one or more")
        require(len(set(self.metric)) == len(self.metric), "objective.metric", self.metric, "different metrics")
        for direction in self.direction:
            require_one_of("objective.direction", direction, DIRECTIONS)
        one_each = f"one direction for each metric ({', '.join(self.metric)})"
        require(len(self.direction) == len(self.metric), "objective.direction", self.direction, one_each)
        require_one_of("objective.aggregate", self.aggregate, AGGREGATES)


@dataclass
class SearchSpec:
    """Where the points of an Experiment come from if they are no grid."""

    params: dict[str, str]
    n_trials: Count = 20
    custom: str | None = None
    enqueue_defaults: bool = True


@dataclass
class SweepSpec:
    """What decides a sweep, beside the specs of its Sessions."""

    objective: ObjectiveSpec
    search: SearchSpec | None
    points: list[list[str]] | None
    rungs: Annotated[int, Ge(2)]
    stack: str
    parallel: Count | None
    max_failure_rate: Fraction
    retry: bool
    mix_code: bool
    only_trial: Natural | None
    plan: bool
    hung_after: Positive | None
    detach: bool

    def check(self, env_metrics: Sequence[str] = ()) -> None:
        """Raise LabError for a value that is not allowed; `env_metrics` may be ranked by too."""
        self.objective.check(env_metrics)
        if self.search and self.points:
            raise LabError("points=[...] and search=... exclude each other: a search suggests the points by itself.")
        stack = self.stack == "auto" or (self.stack.isdigit() and int(self.stack) >= 1)
        require(stack, "stack", self.stack, "auto, or 1 or more")


@dataclass
class ProvenanceSpec:
    """What is kept of code that is not committed; it decides neither a Session nor a sweep."""

    max_file_size: Positive


def read_max_file_size(config: DictConfig) -> int | None:
    """Return the size limit of a stored uncommitted file, in bytes; None if the config has none, as in `rerun`.

    Raises:
        LabError: an unknown or missing key, or a value that is not allowed.
    """
    if "provenance" not in config:
        return None
    spec = build(ProvenanceSpec, resolve(config, ["provenance"])["provenance"], "provenance.")
    return round(spec.max_file_size * 1e6)


SWEEP_KEYS = tuple(field.name for field in fields(SweepSpec))


def read_sweep(config: DictConfig) -> SweepSpec:
    """Turn what a composed config says of a sweep into a checked SweepSpec.

    Raises:
        LabError: an unknown or missing key, a value of the wrong type, or one that is not allowed.
    """
    values = resolve(config, [str(key) for key in SWEEP_KEYS if key in config])
    objective = values.get("objective")
    if isinstance(objective, dict):  # one metric is what there usually is, so that a list is asked of nobody
        for key in ("metric", "direction"):
            if isinstance(objective.get(key), str):
                objective[key] = [objective[key]]
        if objective.get("direction") == ["auto"] and isinstance(objective.get("metric"), list):
            objective["direction"] = [
                "minimize" if metric in LESS_IS_BETTER else "maximize" for metric in objective["metric"]
            ]
    sweep = build(SweepSpec, {**values, "search": None}, "")
    if values.get("search") is not None:
        sweep.search = build(SearchSpec, resolve_but_seed(config, "search"), "search.")
    metrics = OmegaConf.select(config, "env.metrics", default=None)
    sweep.check(list(metrics) if OmegaConf.is_list(metrics) else [])
    return sweep
