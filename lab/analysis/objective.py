"""What an Experiment ranks its Trials by, and its value at the rungs at which a pruner compares running Trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.analysis.session import Tables, read_tables, session_results
from lab.analysis.statistics import MIN_VALUES, aggregate, interval
from lab.analysis.trial import Trial, describe_unfinished
from lab.common.text import format_seeds
from lab.errors import LabError
from lab.run.directory import RunDir


@dataclass(frozen=True)
class Objective:
    """Metrics of session.json, aggregated over the seeds of a Trial.

    Attributes:
        metrics: names of metrics.
        directions: `maximize` or `minimize`, for each metric.
        aggregate: over seeds: mean, median, iqm, or lower (the worse end of the mean's 95 % interval: the upper one of
            a metric that is minimized).
    """

    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    aggregate: str

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Objective:
        """Create an objective from the content of sweep.json."""
        return cls(tuple(values["metrics"]), tuple(values["directions"]), values["aggregate"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"metrics": list(self.metrics), "directions": list(self.directions), "aggregate": self.aggregate}

    @property
    def signs(self) -> tuple[int, ...]:
        """Factor of each metric that makes more better: 1, or -1 if it is minimized."""
        return tuple(1 if direction == "maximize" else -1 for direction in self.directions)

    @property
    def statistic(self) -> str:
        """The statistic over seeds to draw; the mean for `lower`, which is the end of its interval."""
        return "mean" if self.aggregate == "lower" else self.aggregate

    def values(self, trial: Trial) -> list[float]:
        """Return the value of each metric of a Trial whose Sessions all completed.

        Raises:
            LabError: a Session did not complete or lacks a metric, or there are too few Sessions.
        """
        reasons = describe_unfinished(trial.sessions)
        for metric in self.metrics:
            seeds = [session.seed for session in trial.completed if session.metric(metric) is None]
            reasons += [f"{format_seeds(seeds)} {'have' if len(seeds) > 1 else 'has'} no {metric}"] if seeds else []
        if not reasons and self.aggregate == "lower" and len(trial.sessions) < MIN_VALUES:
            reasons = [f"seed {trial.sessions[0].seed} is the only one, and an interval needs {MIN_VALUES}"]
        if reasons:
            raise LabError("; ".join(reasons))
        return [self.over_seeds(trial.values(metric), index) for index, metric in enumerate(self.metrics)]

    def over_seeds(self, values: np.ndarray, index: int = 0) -> float:
        """Return the aggregate of the metric with this index over seeds [n]; `lower` is on the worse side."""
        sign = self.signs[index]
        return sign * aggregate(sign * values, self.aggregate)

    def intervals(self, trial: Trial) -> list[tuple[float | None, float | None]]:
        """Return the interval ends of each metric over seeds (for `lower`, of the mean); None for one seed."""
        columns = [trial.values(metric) for metric in self.metrics]
        return [interval(column, self.statistic) if len(column) >= MIN_VALUES else (None, None) for column in columns]

    def value_at(self, tables: Sequence[Tables], fraction: float) -> float | None:
        """Return the first metric over Sessions after a fraction of their frames; None if a Session lacks it there."""
        values = []
        for table in tables:
            frame = fraction * table.spec["frames"]
            if not len(table.metrics) or table.metrics["frame"].max() < frame:
                return None
            values.append(session_results(table.until(frame)).get(self.metrics[0]))
        enough = len(values) >= (MIN_VALUES if self.aggregate == "lower" else 1)
        return self.over_seeds(np.array(values, float)) if enough and None not in values else None


def values_at_rungs(trial: Trial, objective: Objective, rungs: int) -> dict[int, float]:
    """Return the objective of a Trial at each rung that all of its Sessions have reached."""
    tables = [session.tables for session in trial.sessions if session.tables is not None]
    return _values_at(tables, objective, range(1, rungs), rungs) if len(tables) == len(trial.sessions) else {}


def read_values_at(
    directories: Sequence[RunDir], objective: Objective, first: int, last: int, rungs: int
) -> dict[int, float]:
    """Return the objective of running Sessions at the rungs from first to last; empty while a file is incomplete."""
    try:
        tables = [read_tables(directory) for directory in directories]
    except LabError:
        return {}
    return _values_at(tables, objective, range(first, last + 1), rungs)


def _values_at(tables: Sequence[Tables], objective: Objective, wanted: range, rungs: int) -> dict[int, float]:
    values = {rung: objective.value_at(tables, rung / rungs) for rung in wanted}  # rung i ends after i / rungs frames
    return {rung: value for rung, value in values.items() if value is not None}
