"""The metrics of a Session by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lab.analysis.session import Tables, efficiency, frames_to_solve, read_tables, session_results, stability
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.schemas import METRICS


def tables(returns: list[float | None], random_return: float | None = 10.0) -> Tables:
    frames = [100 * (i + 1) for i in range(len(returns))]
    metrics = pd.DataFrame(
        {
            "frame": frames, "optimizer_steps": [frame // 10 for frame in frames], "episodes": range(len(returns)),
            "return": returns, "length": returns, "eval_return": [None] * (len(returns) - 1) + [77.0],
        },
        dtype=float,
    )  # fmt: skip
    env = {"id": "E-v0", "kwargs": {}, "reference": {"id": "E-v0", "random_return": random_return, "solved": 50.0}}
    episodes = pd.DataFrame({"frame": range(1, 301), "return": [0.0] * 150 + [100.0] * 150, "length": [1] * 300})
    return Tables({"env": env}, episodes, metrics, pd.DataFrame(), "completed")


def test_metrics_by_hand() -> None:
    # Strengths 10, 30, 20 at frames 100, 200, 300 and steps 10, 20, 30.
    results = session_results(tables([20.0, 40.0, 30.0]))
    weights = np.array([1 / 100, 1 / 200, 1 / 300])
    expected = {
        "frames": 300, "optimizer_steps": 30, "episodes": 300, "return": 100.0, "best": 100.0, "eval_return": 77.0,
        "strength": 20.0, "max_strength": 30.0, "final_strength": 20.0, "stability": 1 - 10 / 40,
        "sample_efficiency": (np.array([10, 30, 20]) * weights).sum() / weights.sum(),
        "training_efficiency": (np.array([10, 30, 20]) * weights).sum() / weights.sum(),
        # Half of the last 100 episodes are of return 100 after the 200th.
        "frames_to_solve": 200,
    }  # fmt: skip
    assert {key: results[key] for key in expected} == pytest.approx(expected)


def test_rows_before_the_first_episode_count_for_nothing() -> None:
    assert session_results(tables([None, 20.0, 40.0]))["strength"] == 20.0


def test_metrics_without_a_meaning_are_null() -> None:
    results = session_results(tables([20.0, 40.0], random_return=None))
    assert results["strength"] is None
    assert results["return"] == 100.0
    empty = tables([None, None])
    empty.episodes = empty.episodes.iloc[:0]
    assert session_results(empty)["return"] is None
    assert session_results(empty)["strength"] is None
    other = tables([20.0])
    other.spec["env"]["id"] = "F-v0"
    assert session_results(other)["strength"] is None
    assert session_results(other)["frames_to_solve"] is None


def test_stability_by_hand() -> None:
    assert stability(np.array([1.0, 2.0, 3.0])) == 1.0
    assert stability(np.array([4.0, 2.0])) == 0.5
    assert stability(np.array([4.0])) is None
    assert stability(np.array([0.0, 1.0])) is None


def test_efficiency_by_hand() -> None:
    assert efficiency(np.array([3.0, 0.0]), np.array([1.0, 2.0])) == 2.0
    assert efficiency(np.array([3.0]), np.array([0.0])) is None


def test_the_best_return_is_of_a_hundred_episodes_whatever_was_logged() -> None:
    some = tables([0.0])
    returns = [0.0] * 100 + [50.0] * 100 + [0.0] * 100
    some.episodes = pd.DataFrame({"frame": range(300), "return": returns, "length": [1] * 300})
    assert session_results(some)["best"] == 50.0
    some.episodes = some.episodes.iloc[150:160]
    assert session_results(some)["best"] == 50.0
    some.episodes = pd.DataFrame({"frame": range(2), "return": [90.0, 10.0], "length": [1, 1]})
    assert session_results(some)["best"] == 50.0


def test_frames_to_solve_needs_a_hundred_episodes() -> None:
    episodes = pd.DataFrame({"frame": range(99), "return": [100.0] * 99})
    assert frames_to_solve(episodes, 50.0) is None


def test_a_directory_that_is_no_session(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not the run directory of a Session"):
        read_tables(RunDir(tmp_path))


def test_metrics_are_those_that_an_objective_may_name() -> None:
    assert set(session_results(tables([20.0, 40.0, 30.0]))) == set(METRICS)
