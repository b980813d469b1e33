"""How values of a hyperparameter lie along an axis of a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from lab.analysis.plotting import brief, written

MOST_CATEGORIES = 6  # different numbers that count as categories if they occur again, as in a grid
FULL = 8  # Trials that take all the room of a category
MOST_LABELS = 12  # categories named along an axis
DECADES = 1.5  # of positive numbers, more of which take a logarithmic axis
BELOW = -0.13  # where an axis of parallel coordinates, from 0 to 1, has the Trials without a number


@dataclass
class Scale:
    """How values of a hyperparameter lie along an axis.

    Attributes:
        places: by Trial [n]: the number, or the index of the category; NaN for a Trial without a number.
        labels: of the categories in order; empty for numbers.
        log: whether the axis is logarithmic.
    """

    places: np.ndarray
    labels: list[str]
    log: bool

    @classmethod
    def of(cls, values: Sequence[Any]) -> Scale:
        """Choose a scale for values, one for each Trial: of categories if they are no numbers, or those of a grid."""
        numbers = np.array([value if _is_number(value) else np.nan for value in values], float)
        found = numbers[np.isfinite(numbers)]
        words = any(value is not None and not _is_number(value) for value in values)
        grid = len(set(found)) <= min(MOST_CATEGORIES, len(found) - 1)
        if len(found) and not words and not grid:
            return cls.of_numbers(numbers)
        order = {written(value): value if _is_number(value) else np.inf for value in values}
        labels = sorted(order, key=lambda label: (order[label], label))
        return cls(np.array([labels.index(written(value)) for value in values], float), labels, False)

    @classmethod
    def of_numbers(cls, numbers: np.ndarray) -> Scale:
        """Return a scale for numbers [n], NaN where a Trial has none."""
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        return cls(numbers, [], bool(low > 0 and high > 10**DECADES * low))

    def unit(self, places: np.ndarray) -> np.ndarray:
        """Return places mapped to 0 to 1; BELOW where there is none."""
        if self.labels:
            return (places + 0.5) / len(self.labels)
        ends = np.array([np.nanmin(self.places), np.nanmax(self.places)])
        low, high = np.log10(ends) if self.log else ends
        lengths = (np.log10(places) if self.log else places) - low
        unit = lengths / (high - low) if high > low else lengths + 0.5
        return np.where(np.isnan(unit), BELOW, unit)

    def ticks(self) -> dict[float, str]:
        """Return where from 0 to 1 to write what: the categories, or the ends of the range and round numbers within."""
        if self.labels:
            shown = np.arange(0, len(self.labels), -(-len(self.labels) // MOST_LABELS))
            return {at: brief(self.labels[place], 16) for at, place in zip(self.unit(shown), shown, strict=True)}
        low, high = np.nanmin(self.places), np.nanmax(self.places)
        inner = (LogLocator() if self.log else MaxNLocator(5)).tick_values(low, high)
        inner = inner[(inner > low) & (inner < high)]
        ticks = {at: tick for at, tick in zip(self.unit(inner), inner, strict=True) if 0.07 < at < 0.93}
        ticks |= dict(zip(self.unit(np.array([low, high])), (low, high), strict=True))
        named = {float(at): written(float(tick)) for at, tick in ticks.items()}
        return named | ({BELOW: written(None)} if np.isnan(self.places).any() else {})


def offsets(places: np.ndarray, goodness: np.ndarray) -> np.ndarray:
    """Return how far to move each of several Trials of a category from its middle, the worst to -0.5, the best to 0.5.

    Args:
        places: the index of the category by Trial, [n].
        goodness: by Trial, [n].
    """
    moved = np.zeros(len(places))
    for category in np.unique(places):
        within = np.flatnonzero(places == category)
        within = within[np.argsort(goodness[within], kind="stable")]
        moved[within] = (np.arange(len(within)) + 0.5 - len(within) / 2) / max(len(within), FULL)
    return moved


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
