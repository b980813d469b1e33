"""Positions of a hyperparameter's values along an axis of a plot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from lab.analysis.text import format_hyperparameter, shorten

LOG_DECADES = 1.5  # positive values that span more are shown and modeled on a log scale
MAX_GRID = 6  # distinct numbers that are drawn as categories, as those of a grid
MAX_LABELS = 12  # categories named along an axis
FULL = 8  # Trials that take the whole width of a category


def is_number(value: Any) -> bool:
    """Return whether a hyperparameter is a finite number, not a boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def needs_log_scale(low: float, high: float) -> bool:
    """Return whether values in this range are positive and span more than LOG_DECADES."""
    return bool(low > 0 and high > 10**LOG_DECADES * low)


@dataclass
class Scale:
    """A scale of numbers or categories.

    Attributes:
        positions: of each Trial [n]: the number, or the index of the category.
        labels: of the categories in order; empty for numbers.
        is_log: whether numbers are on a logarithmic scale; None if their range decides.
    """

    positions: np.ndarray
    labels: Sequence[str] = ()
    is_log: bool | None = None

    @classmethod
    def of(cls, values: Sequence[Any], space: str | None = None) -> Scale:
        """Return the scale of a hyperparameter: numbers of an interval or many numbers, otherwise categories.

        Args:
            values: of the Trials [n].
            space: the text of its search space, as `tag(log, interval(1e-5, 1e-2))`, if there is one.
        """
        continuous = bool(space and re.search(r"\b(interval|range)\(", space))
        if all(map(is_number, values)) and (continuous or len(set(values)) > MAX_GRID):
            is_log = bool(re.search(r"\blog\b", space)) and min(values) > 0 if space and continuous else None
            return cls(np.array(values, float), is_log=is_log)
        order = {format_hyperparameter(value): value if is_number(value) else np.inf for value in values}
        labels = sorted(order, key=lambda label: (order[label], label))
        return cls(np.array([labels.index(format_hyperparameter(value)) for value in values], float), labels)

    @property
    def log(self) -> bool:
        """Whether the scale is logarithmic."""
        if self.is_log is not None:
            return self.is_log
        return not self.labels and needs_log_scale(self.positions.min(), self.positions.max())

    @property
    def named(self) -> dict[int, str]:
        """Labels of the categories by index, evenly thinned to MAX_LABELS."""
        indices = range(0, len(self.labels), max(1, -(-len(self.labels) // MAX_LABELS)))
        return {index: shorten(self.labels[index], 16) for index in indices}

    def spread(self, goodness: np.ndarray) -> np.ndarray:
        """Return positions [n], the Trials of a category side by side with the best at its tick; numbers stay."""
        positions = self.positions.copy()
        for category in range(len(self.labels)):
            members = np.flatnonzero(self.positions == category)
            members = members[np.argsort(-goodness[members], kind="stable")]
            places = np.arange(len(members))
            offsets = (places + 1) // 2 * np.where(places % 2, -1, 1)  # 0, -1, 1, -2, 2
            positions[members] += 0.7 * offsets / max(len(members), FULL)
        return positions

    def to_unit(self, positions: np.ndarray) -> np.ndarray:
        """Map positions to the interval from 0 to 1."""
        if self.labels:
            return (positions + 0.5) / len(self.labels)
        ends = np.array([self.positions.min(), self.positions.max()])
        low, high = np.log10(ends) if self.log else ends
        distances = (np.log10(positions) if self.log else positions) - low
        return distances / (high - low) if high > low else distances + 0.5

    def ticks(self) -> dict[float, str]:
        """Return labels by place from 0 to 1: the categories, or the ends of the range and round numbers between."""
        if self.labels:
            return {(index + 0.5) / len(self.labels): label for index, label in self.named.items()}
        low, high = self.positions.min(), self.positions.max()
        inner = (LogLocator() if self.log else MaxNLocator(5)).tick_values(low, high)
        inner = inner[(inner > low) & (inner < high)]
        inner = inner[np.abs(self.to_unit(inner) - 0.5) < 0.43]
        ticks = np.array([low, *inner, high])
        return {
            float(at): format_hyperparameter(float(tick)) for at, tick in zip(self.to_unit(ticks), ticks, strict=True)
        }
