"""Statistics over seeds: aggregates, bootstrap intervals, and how one set of results compares with another.

Every bootstrap draws with a fixed seed, and from values in ascending order, so that the same values give the same bits
in whatever order they come. Intervals are percentile bootstraps (Efron & Tibshirani 1993, "An Introduction to the
Bootstrap", chapter 13); they are known to be too narrow for a handful of seeds. The interquartile mean and the
probability of improvement are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
Statistical Precipice".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
LEAST = 2  # values of which there is an interval
TRIMMED = 0.25  # share of values that the interquartile mean leaves out at either end
CHUNK = 4_000_000  # numbers that a bootstrap holds at once
AGGREGATES = ("mean", "median", "iqm", "lower")


def std(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the standard deviation of a sample (ddof=1) along an axis; NaN of fewer than two values."""
    if np.shape(values)[axis] < 2:
        return np.full(np.mean(values, axis=axis).shape, np.nan)
    return np.std(values, axis=axis, ddof=1)


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the interquartile mean along an axis: that of the values left when a quarter is cut at either end.

    Whole values are cut, as by scipy.stats.trim_mean: of fewer than four, none (Agarwal et al. 2021, section 4.3).
    """
    ordered = np.moveaxis(np.sort(values, axis=axis), axis, -1)
    cut = int(TRIMMED * ordered.shape[-1])
    return np.mean(ordered[..., cut : ordered.shape[-1] - cut], axis=-1)


STATISTICS: dict[str, Callable[..., Any]] = {"mean": np.mean, "std": std, "median": np.median, "iqm": iqm}


@lru_cache(maxsize=64)
def resample(n: int, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return places [count, n] of n values drawn with replacement, ascending in each row; not to be written to."""
    places = np.sort(np.random.default_rng((seed, n)).integers(n, size=(count, n)), axis=1)
    places.flags.writeable = False
    return places


@lru_cache(maxsize=64)
def _distinct(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different rows of `resample` [d, n] and how often each was drawn [d]: few, if n is small."""
    rows, times = np.unique(resample(n), axis=0, return_counts=True)
    return rows, times


def interval(values: np.ndarray, statistic: str) -> tuple[Any, Any]:
    """Return the ends of the bootstrap interval of a statistic over seeds.

    Args:
        values: one for each seed, [n] or [n, T].
        statistic: one of STATISTICS.

    Returns:
        Low and high: two numbers for [n], two arrays [T] for [n, T]; NaN where n < 2 or a value is NaN.
    """
    values = np.asarray(values, float)
    columns = values[:, None] if values.ndim == 1 else values
    n, width = columns.shape
    ends = np.full((2, width), np.nan)
    if n >= LEAST:
        rows, times = _distinct(n)
        ordered = np.ascontiguousarray(np.sort(columns, axis=0).T)
        step = max(1, CHUNK // rows.size)
        for first in range(0, width, step):
            drawn = np.take(ordered[first : first + step], rows, axis=1)  # [t, d, n]
            ends[:, first : first + step] = _ends(STATISTICS[statistic](drawn, axis=-1), times)
        ends[:, np.isnan(columns).any(axis=0)] = np.nan
    if values.ndim == 1:
        return float(ends[0, 0]), float(ends[1, 0])
    return ends[0], ends[1]


def summarize(values: np.ndarray) -> dict[str, Any]:
    """Return n, and of each statistic over values [n] its value and the ends of its interval; null where it has none.

    There is no interval of one value, and no standard deviation.
    """
    return summarize_columns(np.asarray(values, float)[:, None])[0]


def summarize_columns(values: np.ndarray) -> list[dict[str, Any]]:
    """Return `summarize` of each column of values [n, T]: the same bits, in less time."""
    n, width = values.shape
    summaries: list[dict[str, Any]] = [{"n": n} for _ in range(width)]
    for name, statistic in STATISTICS.items():
        found = statistic(np.ascontiguousarray(np.sort(values, axis=0).T), axis=-1) if n else np.full(width, np.nan)
        for summary, *estimate in zip(summaries, found, *interval(values, name), strict=True):
            summary[name] = _estimate(*estimate)
    return summaries


def aggregate(values: np.ndarray, how: str) -> float:
    """Return one number for values [n] of n seeds.

    Args:
        values: one for each seed.
        how: one of AGGREGATES; `lower` is the lower end of the mean's 95 % bootstrap interval.

    Raises:
        ValueError: there are no values, or fewer than the two that `lower` needs.
    """
    if len(values) < (LEAST if how == "lower" else 1):
        raise ValueError(f"{how} of {len(values)} values")
    return interval(values, "mean")[0] if how == "lower" else float(STATISTICS[how](np.sort(values)))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """Return how likely a result X is to exceed a result Y, a tie counting half, with its bootstrap interval.

    The Mann-Whitney U statistic over its largest value (Agarwal et al. 2021, section 4.3).

    Args:
        x: results of one agent, [n].
        y: results of another, [m].

    Returns:
        value, null if either has no result; low and high, null if either has fewer than two.
    """
    x, y = np.sort(np.asarray(x, float)), np.sort(np.asarray(y, float))
    if not len(x) or not len(y):
        return _estimate(np.nan, np.nan, np.nan)
    # Twice the wins are whole numbers, of which sums are exact in whatever order.
    twice_won = np.sign(x[:, None] - y[None, :]) + 1
    whole = 2 * twice_won.size
    value = float(twice_won.sum() / whole)
    if min(len(x), len(y)) < LEAST:
        return _estimate(value, np.nan, np.nan)
    drawn = (_counts(len(x), 0) @ twice_won * _counts(len(y), 1)).sum(axis=1) / whole
    return _estimate(value, *_ends(drawn, np.ones(RESAMPLES)))


def difference(x: np.ndarray, y: np.ndarray, statistic: str = "iqm") -> dict[str, float | None]:
    """Return a statistic of x less that of y, with the bootstrap interval of the difference.

    Args:
        x: results of one agent, [n].
        y: results of another, [m]; resampled independently of x.
        statistic: one of STATISTICS.

    Returns:
        value, null if either has no result; low and high, null if either has fewer than two.
    """
    x, y = np.sort(np.asarray(x, float)), np.sort(np.asarray(y, float))
    if not len(x) or not len(y):
        return _estimate(np.nan, np.nan, np.nan)
    of = STATISTICS[statistic]
    value = float(of(x) - of(y))
    if min(len(x), len(y)) < LEAST:
        return _estimate(value, np.nan, np.nan)
    drawn = of(x[resample(len(x), seed=0)], axis=1) - of(y[resample(len(y), seed=1)], axis=1)
    return _estimate(value, *_ends(drawn, np.ones(RESAMPLES)))


@lru_cache(maxsize=64)
def _counts(n: int, seed: int) -> np.ndarray:
    """Return how often each of n values was drawn in each resample [RESAMPLES, n]."""
    return (resample(n, seed=seed)[:, :, None] == np.arange(n)).sum(axis=1).astype(float)


def _ends(drawn: np.ndarray, times: np.ndarray) -> list[Any]:
    """Return the low and the high end [...] of the central interval of draws [..., d], each made so many times [d].

    They are numpy.quantile's of the draws written out one by one.
    """
    order = np.argsort(drawn, axis=-1)
    ranked, reached = np.take_along_axis(drawn, order, -1), np.cumsum(times[order], axis=-1)
    ends = []
    for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        whole, part = divmod(share * (times.sum() - 1), 1)
        below, above = (
            np.take_along_axis(ranked, (reached <= place).sum(axis=-1, keepdims=True), -1)[..., 0]
            for place in (whole, whole + 1)
        )
        ends.append(below + part * (above - below))
    return ends


def _estimate(value: float, low: float, high: float) -> dict[str, float | None]:
    named = {"value": value, "low": low, "high": high}
    return {name: float(number) if np.isfinite(number) else None for name, number in named.items()}
