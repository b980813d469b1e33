"""Statistics by hand, against what defines them, and against rliable."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu, trim_mean

from lab.analysis.statistics import (
    AGGREGATES,
    RESAMPLES,
    STATISTICS,
    aggregate,
    difference,
    interval,
    iqm,
    probability_of_improvement,
    summarize,
    summarize_columns,
)

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
results = arrays(float, st.integers(1, 12), elements=numbers)
few = arrays(float, st.integers(1, 8), elements=st.integers(-3, 3).map(float))  # with many ties
several = arrays(float, st.integers(2, 12), elements=numbers)


@pytest.fixture(scope="module")
def rliable() -> Iterator[ModuleType]:
    """The peer. Of arch it needs the bootstrap alone; the rest of arch cannot be imported beside pandas 3."""
    with pytest.MonkeyPatch.context() as patch:
        actual = importlib.util.find_spec("arch")
        assert actual
        patch.setitem(sys.modules, "arch", importlib.util.module_from_spec(actual))
        for module in ("library", "metrics"):
            importlib.import_module(f"rliable.{module}")
        yield importlib.import_module("rliable")


def test_statistics_by_hand() -> None:
    # Of eight values two are cut at either end: what is left is 3, 4, 5, 8.
    values = np.array([100.0, 4, 3, 1, 5, 2, 8, 9])
    expected = {"mean": 132 / 8, "median": 4.5, "iqm": 5.0, "std": np.std(values, ddof=1)}
    summary = summarize(values)
    assert {name: summary[name]["value"] for name in STATISTICS} == pytest.approx(expected)
    assert summary["n"] == 8


def test_degenerate_cases_by_hand() -> None:
    for values in ([0.0], [0.0, 1], [0.0, 1, 50]):
        assert iqm(np.array(values)) == np.mean(values), "none of fewer than four is cut"
    nothing = {"value": None, "low": None, "high": None}
    assert summarize(np.array([])) == {"n": 0, "mean": nothing, "std": nothing, "median": nothing, "iqm": nothing}
    assert summarize(np.array([5.0]))["mean"] == {"value": 5.0, "low": None, "high": None}
    assert summarize(np.array([5.0]))["std"] == nothing
    # A quarter of the resamples is (0, 0), a quarter (1, 1): either is more than a tail of 2.5 %.
    assert interval(np.array([0.0, 1.0]), "mean") == (0.0, 1.0)
    assert interval(np.full(5, 3.0), "iqm") == (3.0, 3.0)
    low, high = interval(np.array([[1.0, np.nan], [2.0, 3.0]]), "mean")
    assert (low[0], high[0]) == (1.0, 2.0) and np.isnan([low[1], high[1]]).all()


@settings(max_examples=50)
@given(arrays(float, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=numbers))
def test_the_interquartile_mean_is_the_trimmed_mean_of_scipy(values: np.ndarray) -> None:
    np.testing.assert_allclose(iqm(values, axis=0), trim_mean(values, 0.25, axis=0), rtol=1e-12, atol=1e-9)


@settings(max_examples=50)
@given(several, st.randoms(use_true_random=False))
def test_the_order_of_values_changes_no_bit(values: np.ndarray, random: object) -> None:
    other = values.copy()
    random.shuffle(other)  # type: ignore[attr-defined]
    assert summarize(values) == summarize(other)
    for how in AGGREGATES:
        assert aggregate(values, how) == aggregate(other, how)
    assert difference(values, values[::-1]) == difference(other, other)


@settings(max_examples=50)
@given(arrays(float, st.tuples(st.integers(0, 12), st.integers(1, 5)), elements=numbers))
def test_columns_have_the_summaries_that_they_have_alone(values: np.ndarray) -> None:
    assert summarize_columns(values) == [summarize(column) for column in values.T]


def test_intervals_of_a_long_curve_of_many_seeds_fit_in_memory() -> None:
    import tracemalloc

    values = np.random.default_rng(0).normal(size=(32, 1000))
    tracemalloc.start()
    interval(values, "mean")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All resamples at once would be 32 * 1000 * 2000 numbers, 512 MB.
    assert peak < 150e6


@settings(max_examples=50)
@given(several)
def test_intervals_stay_within_the_values(values: np.ndarray) -> None:
    for name in ("mean", "median", "iqm"):
        low, high = interval(values, name)
        slack = 1e-9 * np.abs(values).max()
        assert values.min() - slack <= low <= high <= values.max() + slack


def test_aggregates_by_hand() -> None:
    values = np.array([1.0, 2, 3, 6])
    assert [aggregate(values, how) for how in ("mean", "median", "iqm")] == [3.0, 2.5, 2.5]
    assert aggregate(values, "lower") == interval(values, "mean")[0] < 3.0
    with pytest.raises(ValueError, match="lower of 1"):
        aggregate(values[:1], "lower")
    with pytest.raises(ValueError, match="mean of 0"):
        aggregate(values[:0], "mean")


def test_the_probability_of_improvement_by_hand() -> None:
    # 3 beats 1 and 2 and ties with 3; 1 ties with 1: of six pairs two are won and two tied.
    actual = probability_of_improvement(np.array([3.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    assert actual["value"] == 3 / 6
    apart = probability_of_improvement(np.array([5.0, 6.0]), np.array([1.0, 2.0]))
    assert apart == {"value": 1.0, "low": 1.0, "high": 1.0}


@settings(max_examples=50)
@given(few, few)
def test_the_probability_of_improvement_counts_pairs(x: np.ndarray, y: np.ndarray) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in x for b in y]
    actual, turned = probability_of_improvement(x, y), probability_of_improvement(y, x)
    assert actual["value"] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert actual["value"] + turned["value"] == pytest.approx(1)
    assert actual["value"] == pytest.approx(mannwhitneyu(x, y).statistic / (len(x) * len(y)))
    if min(len(x), len(y)) >= 2:
        assert 0 <= actual["low"] <= actual["high"] <= 1


@settings(max_examples=50)
@given(few, few)
def test_the_probability_of_improvement_knows_order_alone(x: np.ndarray, y: np.ndarray) -> None:
    assert probability_of_improvement(x, y) == probability_of_improvement(np.exp(x), np.exp(y))


@settings(max_examples=50)
@given(several | few, several | few)
def test_the_order_of_the_sides_turns_a_comparison_and_changes_nothing_else(x: np.ndarray, y: np.ndarray) -> None:
    turned = {"value": "value", "low": "high", "high": "low"}
    for function, total in ((probability_of_improvement, 1), (difference, 0)):
        one, other = function(x, y), function(y, x)
        for end, opposite in turned.items():
            assert (one[end] is None) == (other[opposite] is None)
            if one[end] is not None:
                assert one[end] == pytest.approx(total - other[opposite], abs=1e-15 * total)
    same = probability_of_improvement(x, x)
    assert same["value"] == 0.5
    assert same["low"] is None or same["low"] <= 0.5 <= same["high"]


def test_both_sides_are_resampled_independently() -> None:
    # Resampled alike, two equal samples would never differ.
    values = np.array([1.0, 2, 3, 4])
    actual = difference(values, values, "mean")
    assert actual["value"] == 0
    assert actual["low"] < -0.5 < 0.5 < actual["high"]
    chance = probability_of_improvement(values, values)
    assert chance["value"] == 0.5
    assert chance["low"] < 0.3 < 0.7 < chance["high"]


def test_a_difference_by_hand() -> None:
    x, y = np.array([10.0, 20, 30, 40]), np.array([1.0, 1, 1, 1])
    assert difference(x, y)["value"] == 24.0
    assert difference(x, y, "mean")["value"] == 24.0
    assert difference(x[:1], y) == {"value": 9.0, "low": None, "high": None}
    assert difference(x[:0], y) == {"value": None, "low": None, "high": None}
    assert probability_of_improvement(x[:0], y)["value"] is None
    assert probability_of_improvement(x[:1], y) == {"value": 1.0, "low": None, "high": None}


@settings(max_examples=50)
@given(several, several)
def test_a_difference_shifts_with_its_first_side(x: np.ndarray, y: np.ndarray) -> None:
    one, shifted = difference(x, y), difference(x + 1000.0, y)
    for end in ("value", "low", "high"):
        assert shifted[end] == pytest.approx(one[end] + 1000, rel=1e-9, abs=1e-6)


@settings(max_examples=50)
@given(arrays(float, st.integers(1, 20), elements=numbers))
def test_the_interquartile_mean_is_that_of_rliable(rliable: ModuleType, values: np.ndarray) -> None:
    assert iqm(values) == pytest.approx(rliable.metrics.aggregate_iqm(values[:, None]), rel=1e-12, abs=1e-9)


@settings(max_examples=50)
@given(few, few)
def test_the_probability_of_improvement_is_that_of_rliable(rliable: ModuleType, x: np.ndarray, y: np.ndarray) -> None:
    theirs = rliable.metrics.probability_of_improvement(x[:, None], y[:, None])
    assert probability_of_improvement(x, y)["value"] == pytest.approx(theirs, abs=1e-12)


def near_the_tails(ends: tuple[float, float], drawn: np.ndarray) -> bool:
    """Say whether ends found with 2,000 resamples may be those of the distribution that a peer drew from.

    Of 2,000 resamples, the fraction below the true 2.5 % quantile has a deviation of sqrt(0.025 * 0.975 / 2000),
    0.35 %; four of them are 1.4 %, and those of the peer's draws are added in the same way. So with its 5,000 the
    ends lie between its quantiles at 0.2 % and 4.8 %, and at 95.2 % and 99.8 %.
    """
    slack = 4 * np.sqrt(0.025 * 0.975 / RESAMPLES) + 4 * np.sqrt(0.025 * 0.975 / len(drawn))
    return all(
        np.quantile(drawn, max(level - slack, 0)) - 1e-9 <= end <= np.quantile(drawn, min(level + slack, 1)) + 1e-9
        for end, level in zip(ends, (0.025, 0.975), strict=True)
    )


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")
@pytest.mark.parametrize(("n", "name"), [(4, "iqm"), (10, "mean")])
def test_intervals_are_those_of_rliable(rliable: ModuleType, n: int, name: str) -> None:
    scores = np.random.default_rng(n).normal(100, 20, (n, 1))
    theirs = getattr(rliable.metrics, f"aggregate_{name}")

    def statistic(each: np.ndarray) -> np.ndarray:
        return np.array([theirs(each)])

    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator, whatever it is given
    drawn = rliable.library.StratifiedBootstrap(scores).apply(statistic, 5_000)[:, 0]
    points, ends = rliable.library.get_interval_estimates({"x": scores}, statistic, reps=RESAMPLES)
    assert STATISTICS[name](scores[:, 0]) == pytest.approx(points["x"][0])
    assert near_the_tails(interval(scores[:, 0], name), drawn)
    assert near_the_tails(tuple(ends["x"][:, 0]), drawn), "the peer's own ends are as near, from as many resamples"


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")
def test_the_interval_of_the_probability_of_improvement_is_that_of_rliable(rliable: ModuleType) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.5, 1, (6, 1)), rng.normal(0, 1, (9, 1))
    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator, whatever it is given
    bootstrap = rliable.library.StratifiedIndependentBootstrap(x, y)
    drawn = bootstrap.apply(lambda a, b: np.array([rliable.metrics.probability_of_improvement(a, b)]), 2_000)[:, 0]
    actual = probability_of_improvement(x[:, 0], y[:, 0])
    assert near_the_tails((actual["low"], actual["high"]), drawn)
