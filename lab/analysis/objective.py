"""What an Experiment ranks its Trials by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.analysis.statistics import LEAST, aggregate, interval
from lab.analysis.trial import Trial, of_seeds, standing
from lab.errors import LabError


@dataclass(frozen=True)
class Objective:
    """Figures of session.json, aggregated over the seeds of a Trial.

    Attributes:
        metrics: names of figures.
        directions: `maximize` or `minimize`, for each metric.
        aggregate: over seeds: mean, median, iqm, or lower (the worse end of the mean's 95 % interval: the upper one of
            what is minimized).
    """

    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    aggregate: str

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Objective:
        """Make it from what sweep.json holds."""
        return cls(tuple(plain["metrics"]), tuple(plain["directions"]), plain["aggregate"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"metrics": list(self.metrics), "directions": list(self.directions), "aggregate": self.aggregate}

    @property
    def signs(self) -> tuple[int, ...]:
        """What each metric is multiplied with so that more is better: 1, or -1 if it is minimized."""
        return tuple(1 if direction == "maximize" else -1 for direction in self.directions)

    def values(self, trial: Trial) -> list[float]:
        """Return the value of each metric of a Trial whose Sessions all completed.

        Raises:
            LabError: a Session did not complete, or has no such figure, or there are too few; the sentence says which.
        """
        self._require_all(trial)
        return [self.over_seeds(trial.values(metric), index) for index, metric in enumerate(self.metrics)]

    def over_seeds(self, values: np.ndarray, index: int) -> float:
        """Return the aggregate of a metric, by its place, over seeds [n]; a bound is on the side that is worse."""
        sign = self.signs[index]
        return sign * aggregate(sign * values, self.aggregate)

    def intervals(self, trial: Trial) -> list[tuple[float | None, float | None]]:
        """Return the ends of the interval of each metric's value over seeds (for `lower`, of the mean).

        They are null for one seed, of which there is no interval.
        """
        statistic = "mean" if self.aggregate == "lower" else self.aggregate
        found = [trial.values(metric) for metric in self.metrics]
        return [interval(values, statistic) if len(values) >= LEAST else (None, None) for values in found]

    def _require_all(self, trial: Trial) -> None:
        reasons = standing(trial.sessions)
        for metric in self.metrics:
            seeds = [session.seed for session in trial.completed if session.figure(metric) is None]
            reasons += [f"{of_seeds(seeds)} {'have' if len(seeds) > 1 else 'has'} no {metric}"] if seeds else []
        if not reasons and self.aggregate == "lower" and len(trial.sessions) < LEAST:
            reasons = [f"seed {trial.sessions[0].seed} is the only one, and an interval needs {LEAST}"]
        if reasons:
            raise LabError("; ".join(reasons))
