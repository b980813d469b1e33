"""What Trials are ranked by, by hand, and which Trials have no value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lab.analysis.objective import Objective
from lab.analysis.statistics import interval
from lab.analysis.trial import Trial
from lab.errors import LabError
from tests.analysis.test_trial import session, trial

RETURNS = [1.0, 2.0, 3.0, 6.0]


def of_returns(*returns: float) -> Trial:
    return trial(*(session(seed, **{"return": value, "best": 2 * value}) for seed, value in enumerate(returns)))


def objective(aggregate: str = "mean", *metrics: str) -> Objective:
    chosen = metrics or ("return",)
    return Objective(
        chosen, tuple("minimize" if metric == "frames_to_solve" else "maximize" for metric in chosen), aggregate
    )


@pytest.mark.parametrize(("aggregate", "value"), [("mean", 3.0), ("median", 2.5), ("iqm", 2.5)])
def test_values_by_hand(aggregate: str, value: float) -> None:
    made = objective(aggregate, "return", "best")
    assert made.values(of_returns(*RETURNS)) == [value, 2 * value]
    statistic = interval(np.array(RETURNS), aggregate)
    assert made.intervals(of_returns(*RETURNS)) == [statistic, tuple(2 * end for end in statistic)]


def test_the_lower_bound_is_the_low_end_of_the_interval_of_the_mean() -> None:
    made = objective("lower")
    low, high = interval(np.array(RETURNS), "mean")
    assert made.values(of_returns(*RETURNS)) == [low]
    assert made.intervals(of_returns(*RETURNS)) == [(low, high)]


def test_of_one_seed_there_is_a_value_and_no_interval() -> None:
    assert objective().values(of_returns(5.0)) == [5.0]
    assert objective().intervals(of_returns(5.0)) == [(None, None)]


def test_of_one_seed_there_is_no_lower_bound() -> None:
    with pytest.raises(LabError, match="seed 0 is the only one, and an interval needs 2"):
        objective("lower").values(of_returns(5.0))


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("failed", "seed 1 failed"), ("pruned", "seed 1 was pruned"), ("running", "seed 1 is running"),
        ("interrupted", "seed 1 was interrupted"), ("pending", "seed 1 has not started"),
    ],
)  # fmt: skip
def test_a_trial_has_a_value_if_every_session_completed(state: str, sentence: str) -> None:
    made = trial(session(0, **{"return": 1.0}), session(1, state, **{"return": 1.0}))
    with pytest.raises(LabError, match=f"^{sentence}$"):
        objective().values(made)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_trial_has_a_value_if_every_session_has_the_metric(value: float | None) -> None:
    made = trial(*(session(seed, frames_to_solve=value if seed else 100) for seed in range(3)))
    with pytest.raises(LabError, match=r"^seeds 1 and 2 have no frames_to_solve$"):
        objective("mean", "frames_to_solve").values(made)


def test_all_reasons_are_told() -> None:
    made = trial(session(0, "failed"), session(1), session(2, "pending"))
    with pytest.raises(LabError, match=r"^seed 2 has not started; seed 0 failed; seed 1 has no return$"):
        objective().values(made)


def test_plain_data_and_back() -> None:
    made = objective("iqm", "return", "frames_to_solve")
    assert Objective.from_dict(made.to_dict()) == made
    assert made.signs == (1, -1)
