"""Statistics over seeds: aggregates, bootstrap intervals and comparisons of two sets of results.

Intervals are percentile bootstraps by scipy.stats with a fixed seed; they are too narrow for a handful of seeds. Values
are sorted first, so their order does not change a bit of the result. The interquartile mean and the probability of
improvement, those over several environments and the performance profile follow Agarwal et al. 2021, "Deep Reinforcement
Learning at the Edge of the Statistical Precipice".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy  # loads scipy.stats at first use

from lab.run.schemas import AGGREGATES

CONFIDENCE = 0.95
TAILS = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2  # quantiles at the ends of an interval
RESAMPLES = 2000
BATCH = 100  # resamples in memory at once
MIN_VALUES = 2  # for an interval
# Seeds on each side required to conclude anything. Both intervals call one of two equal agents better in 34 % of
# comparisons of 2 and 2 seeds, 19 % of 3 and 3, 6 % of 4 and 4, 5 % of 6 and 6 (500 to 2,000 of normal draws each).
MIN_SEEDS = 4

Estimate = dict[str, float | None]  # value, and low and high end of its interval


def std(values: np.ndarray, axis: int = -1) -> Any:
    """Return the sample standard deviation (ddof=1) along an axis; NaN for fewer than two values."""
    enough = np.shape(values)[axis] >= MIN_VALUES
    return np.std(values, axis=axis, ddof=1) if enough else np.mean(values, axis=axis) * np.nan


def iqm(values: np.ndarray, axis: int = -1) -> Any:
    """Return the interquartile mean along an axis: a quarter of the values is cut at each end."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


STATISTICS: dict[str, Callable[..., Any]] = {"mean": np.mean, "std": std, "median": np.median, "iqm": iqm}


def _bootstrap(statistic: Callable[..., Any], *samples: np.ndarray) -> np.ndarray:
    """Return a statistic [..., RESAMPLES] of resamples; each sample [n, ...] is resampled along its first axis."""

    def contiguous(*resamples: np.ndarray, axis: int) -> Any:  # the layout of an array may change the last bit
        return statistic(*map(np.ascontiguousarray, resamples), axis=axis)

    return np.asarray(scipy.stats.bootstrap(
        [np.ascontiguousarray(np.moveaxis(np.sort(sample, axis=0), 0, -1)) for sample in samples],
        contiguous, n_resamples=RESAMPLES, batch=BATCH, vectorized=True, axis=-1, method="percentile",
        rng=np.random.default_rng(0),
    ).bootstrap_distribution)  # fmt: skip


def interval(values: np.ndarray, statistic: str) -> tuple[Any, Any]:
    """Return the ends of the bootstrap interval of a statistic over seeds.

    Args:
        values: one for each seed, [n] or [n, T].
        statistic: one of STATISTICS.

    Returns:
        Low and high: two numbers for [n], two arrays [T] for [n, T]; NaN if n < 2 or where a value is not finite.
    """
    values = np.asarray(values, float)
    if len(values) < MIN_VALUES or not values.size:
        ends = np.full((2, *values.shape[1:]), np.nan)
    else:
        known = np.isfinite(values).all(axis=0)
        distribution = _bootstrap(STATISTICS[statistic], np.where(known, values, 0.0))
        ends = np.where(known, np.quantile(distribution, TAILS, axis=-1), np.nan)
    return (float(ends[0]), float(ends[1])) if values.ndim == 1 else (ends[0], ends[1])


def summarize(values: np.ndarray) -> dict[str, Any]:
    """Return n and, for each statistic of values [n], its value and interval ends; None where undefined."""
    return summarize_columns(np.asarray(values, float)[:, None])[0]


def summarize_columns(values: np.ndarray) -> list[dict[str, Any]]:
    """Return `summarize` of each column of values [n, T]."""
    n, width = values.shape
    summaries: list[dict[str, Any]] = [{"n": n} for _ in range(width)]
    for name, statistic in STATISTICS.items():
        results = statistic(np.ascontiguousarray(np.sort(values, axis=0).T), axis=-1) if n else np.full(width, np.nan)
        for summary, *estimate in zip(summaries, results, *interval(values, name), strict=True):
            summary[name] = _estimate(*estimate)
    return summaries


def aggregate(values: np.ndarray, how: str) -> float:
    """Return one number for values [n] over seeds.

    Args:
        values: one for each seed.
        how: one of AGGREGATES; `lower` is the lower end of the mean's interval.

    Raises:
        ValueError: there are no values, or fewer than the two that `lower` needs.
    """
    assert how in AGGREGATES
    if len(values) < (MIN_VALUES if how == "lower" else 1):
        raise ValueError(f"{how} of {len(values)} values")
    return interval(values, "mean")[0] if how == "lower" else float(STATISTICS[how](np.sort(values)))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Return the probability that a result of x [n] exceeds one of y [m], ties counting half, with its interval.

    This is the Mann-Whitney U statistic divided by n * m. That of y and x is 1 minus it, and so are the ends.
    """
    return _estimate(*((1 + each) / 2 for each in _compare(x, y, _net_wins)))


def difference(x: np.ndarray, y: np.ndarray, statistic: str = "iqm") -> Estimate:
    """Return a statistic of x [n] minus that of y [m], with its interval; that of y and x is its negative."""
    return _estimate(*_compare(x, y, partial(_difference, STATISTICS[statistic])))


def aggregate_across(samples: Sequence[np.ndarray], statistic: Literal["iqm", "mean"] = "iqm") -> Estimate:
    """Return a statistic of all scores of several environments, with its interval.

    Args:
        samples: the scores in each environment, [n] each. Environments count the same, whatever their n.
        statistic: the interquartile mean or the mean.

    Returns:
        The interval is a bootstrap that is stratified by environment: the seeds of each are resampled by themselves.
    """
    return _stratified(partial(_pool, statistic), samples)


def _pool(statistic: Literal["iqm", "mean"], samples: Sequence[np.ndarray]) -> Any:
    """Return a statistic of samples [..., n] together, of which each has the same weight."""
    values = np.concatenate(samples, axis=-1)
    if len({sample.shape[-1] for sample in samples}) == 1:
        return STATISTICS[statistic](values, axis=-1)
    order = np.argsort(values, axis=-1)
    weights = np.concatenate([np.full(sample.shape[-1], 1 / sample.shape[-1]) for sample in samples])[order]
    cut = len(samples) / 4 if statistic == "iqm" else 0.0  # of all weights, at each end
    end = np.cumsum(weights, axis=-1)
    kept = np.maximum(np.minimum(end, len(samples) - cut) - np.maximum(end - weights, cut), 0.0)
    return np.sum(kept * np.take_along_axis(values, order, -1), axis=-1) / np.sum(kept, axis=-1)


def improvement_across(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Estimate:
    """Return the mean over environments of `probability_of_improvement`, with its stratified bootstrap interval.

    Args:
        x: the scores in each environment, [n] each.
        y: those of another setting in the same environments, [m] each.
    """

    def mean(resamples: Sequence[np.ndarray]) -> Any:
        pairs = zip(resamples[: len(x)], resamples[len(x) :], strict=True)
        return np.mean([(1 + _net_wins(one, other)) / 2 for one, other in pairs], axis=0)

    return _stratified(mean, [*x, *y])


def performance_profile(
    samples: Sequence[np.ndarray], thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the fraction of scores above each threshold [T], and the ends of its stratified bootstrap interval [T].

    Args:
        samples: the scores in each environment, [n] each. Environments count the same, whatever their n.
        thresholds: scores [T].
    """
    value = _pool("mean", [sample > thresholds[:, None] for sample in samples])
    if min(map(len, samples)) < MIN_VALUES:
        return value, value * np.nan, value * np.nan
    drawn = _resample(samples)
    fractions = (_pool("mean", [scores > each for scores in drawn]) for each in thresholds)
    low, high = np.transpose([np.quantile(each, TAILS) for each in fractions])
    return value, low, high


def _stratified(statistic: Callable[[Sequence[np.ndarray]], Any], samples: Sequence[np.ndarray]) -> Estimate:
    """Return a statistic of samples [n] and its interval, for which each sample is resampled by itself."""
    samples = [np.sort(np.asarray(sample, float)) for sample in samples]
    fewest = min((len(sample) for sample in samples), default=0)
    value = float(statistic(samples)) if fewest else np.nan
    ends = np.quantile(statistic(_resample(samples)), TAILS) if fewest >= MIN_VALUES else (np.nan, np.nan)
    return _estimate(value, *ends)


def _resample(samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return resamples [RESAMPLES, n] of each sample [n]."""
    rng = np.random.default_rng(0)
    return [sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))] for sample in map(np.sort, samples)]


def _net_wins(x: np.ndarray, y: np.ndarray, axis: int = -1) -> Any:
    # Signs are whole numbers, so their sum is exact in any order.
    return np.sign(x[..., :, None] - y[..., None, :]).sum(axis=(-1, -2)) / (x.shape[-1] * y.shape[-1])


def _difference(statistic: Callable[..., Any], x: np.ndarray, y: np.ndarray, axis: int = -1) -> Any:
    return statistic(x, axis=axis) - statistic(y, axis=axis)


def _compare(x: np.ndarray, y: np.ndarray, statistic: Callable[..., Any]) -> tuple[Any, Any, Any]:
    """Return an antisymmetric statistic of two samples and its interval; exchanging the samples negates all three.

    All are NaN without results, the ends also with fewer than two on a side.
    """
    x, y = np.sort(np.asarray(x, float)), np.sort(np.asarray(y, float))
    if not len(x) or not len(y):
        return np.nan, np.nan, np.nan
    if min(len(x), len(y)) < MIN_VALUES:
        return statistic(x, y), np.nan, np.nan
    # The draws of a resample depend on the order of the samples: both orders together do not.
    distribution = np.concatenate([_bootstrap(statistic, x, y), 0.0 - _bootstrap(statistic, y, x)])
    low, high = np.quantile(distribution, TAILS[0]), 0.0 - np.quantile(0.0 - distribution, TAILS[0])
    return statistic(x, y), low, high


def _estimate(value: float, low: float, high: float) -> Estimate:
    ends = {"value": value, "low": low, "high": high}
    return {name: float(number) if np.isfinite(number) else None for name, number in ends.items()}


def subtract_from(total: float, estimate: Estimate) -> Estimate:
    """Return an estimate of a total minus what an estimate is of: its ends change places."""
    ends = {"value": estimate["value"], "low": estimate["high"], "high": estimate["low"]}
    return {end: None if value is None else total - value for end, value in ends.items()}
