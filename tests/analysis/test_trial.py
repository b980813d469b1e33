"""The metrics of a Trial by hand, and which Sessions they stand on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lab.analysis.session import Session, Tables
from lab.analysis.trial import (
    VARIES,
    Trial,
    common_spec,
    consistency,
    count_states,
    describe_unfinished,
    read_trial,
    trial_results,
)
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir
from lab.run.files import write_json
from tests import synthetic

RANDOM = 10.0
STATES = {(0, 1): "failed", (0, 2): "pruned", (0, 3): "pending"}


def session(
    seed: int,
    state: str = "completed",
    returns: list[float | None] | None = None,
    random_return: float | None = RANDOM,
    error: str | None = None,
    spec: dict[str, object] | None = None,
    **metrics: float | None,
) -> Session:
    """Make up a Session with these metrics, and these returns at its log points."""
    tables = None
    if returns is not None or spec is not None:
        points = returns or [20.0]
        env = {"id": "E-v0", "kwargs": {}, "reference": {"id": "E-v0", "random_return": random_return, "solved": None}}
        logged = pd.DataFrame({"frame": [100 * (i + 1) for i in range(len(points))], "return": points}, dtype=float)
        plain = {"name": "made up", "frames": 1000, "seed": seed, "env": env, **(spec or {})}
        tables = Tables(plain, pd.DataFrame(), logged, pd.DataFrame(), state)
    return Session(RunDir(f"trial-000/seed-{seed}"), seed, state, 1000, 1000, error, tables, dict(metrics))


def trial(*sessions: Session, number: int | None = None, **hyperparameters: object) -> Trial:
    """Make up a Trial of these Sessions."""
    return Trial(
        TrialDir("trial-000" if number is None else f"trial-{number:03}"), number, hyperparameters, [*sessions]
    )


def test_metrics_stand_on_completed_sessions_alone() -> None:
    made = trial(
        session(0, **{"return": 1.0, "frames_to_solve": 500}),
        session(1, "failed", **{"return": 1000.0}),
        session(2, "pruned", **{"return": 1000.0}),
        session(3, **{"return": 3.0, "frames_to_solve": None}),
        session(4, "running", **{"return": 1000.0}),
        session(5, "interrupted", **{"return": 1000.0}),
        session(6, "pending"),
    )
    results = trial_results(made)
    assert results["sessions"] == {
        "planned": 7, "completed": 2, "failed": 1, "interrupted": 1, "pending": 1, "pruned": 1, "running": 1
    }  # fmt: skip
    assert results["seeds"] == [0, 3]
    assert results["metrics"]["return"]["n"] == 2
    assert results["metrics"]["return"]["mean"]["value"] == 2.0
    assert results["metrics"]["return"]["std"]["value"] == pytest.approx(math.sqrt(2))
    assert results["metrics"]["frames_to_solve"]["n"] == 1, "of a Session that never got there nothing is made up"
    assert results["metrics"]["frames_to_solve"]["mean"] == {"value": 500.0, "low": None, "high": None}


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_metric_that_is_not_finite_enters_no_aggregate(value: float | None) -> None:
    made = trial(*(session(seed, **{"return": value if seed == 1 else 5.0 + seed}) for seed in range(3)))
    summary = trial_results(made)["metrics"]["return"]
    assert summary["n"] == 2
    assert summary["mean"]["value"] == 6.0


def test_a_session_without_a_result_is_named_with_its_reason() -> None:
    made = trial(
        session(0),
        session(1, "failed", error="Traceback:\n  File x\nRuntimeError: broke\n"),
        session(2, "pending"),
        session(3, "running"),
    )
    assert trial_results(made)["not_completed"] == [
        {"seed": 1, "state": "failed", "error": "RuntimeError: broke", "log": "seed-1/session.log"},
        {"seed": 2, "state": "pending", "error": None, "log": None},
        {"seed": 3, "state": "running", "error": None, "log": "seed-3/session.log"},
    ]


def test_a_trial_of_which_nothing_completed_has_results() -> None:
    results = trial_results(trial(session(0, "failed"), session(1, "pending")))
    assert results["sessions"] == {"planned": 2, "completed": 0, "failed": 1, "pending": 1}
    assert results["metrics"] == {}
    assert results["consistency"] is None


def test_consistency_by_hand() -> None:
    # Strengths 10, 30 and 14, 26: at either log point the deviation is 4 / sqrt(2), and the means are 12 and 28.
    expected = pytest.approx(1 - 2 * (8 / math.sqrt(2)) / 40)
    assert consistency(trial(session(0, returns=[20, 40]), session(1, returns=[24, 36]))) == expected
    shorter = trial(session(0, returns=[None, 20, 40, 99]), session(1, returns=[12, 24, 36]))
    assert consistency(shorter) == expected, "over log points that all have"
    equal = [session(0, returns=[20, 40]), session(1, returns=[20, 40])]
    assert consistency(trial(*equal, session(2, "pruned", returns=[500, 500]))) == 1.0, "of completed Sessions"


@pytest.mark.parametrize(
    "sessions",
    [
        [session(0, returns=[20, 40])],
        [session(0, returns=[20, 40]), session(1, "failed", returns=[20, 40])],
        [session(seed, returns=[20, 40], random_return=None) for seed in range(2)],
        [session(0, returns=[RANDOM - 5, RANDOM]), session(1, returns=[RANDOM + 5, RANDOM])],
        [session(0, returns=[None]), session(1, returns=[None])],
        [session(0, returns=[20.0]), session(1, returns=[25.0], random_return=5.0)],
    ],
    ids=["one Session", "one completed", "random return unknown", "mean strength 0", "no episode", "other reference"],
)
def test_consistency_without_a_meaning_is_null(sessions: list[Session]) -> None:
    assert consistency(trial(*sessions)) is None


def test_states_are_counted_and_described() -> None:
    assert count_states([]) == {"completed": 0}
    assert count_states(["failed", "completed", "failed"]) == {"completed": 1, "failed": 2}
    states = ["failed", "completed", "failed", "pending", "pruned", "running", "interrupted", "pending", "pending"]
    assert describe_unfinished([session(seed, state) for seed, state in enumerate(states)]) == [
        "seeds 3, 7 and 8 have not started", "seed 5 is running", "seeds 0 and 2 failed", "seed 4 was pruned",
        "seed 6 was interrupted",
    ]  # fmt: skip


def test_a_trial_is_read_from_its_files(tmp_path: Path) -> None:
    synthetic.experiment(tmp_path, trials=1, states=STATES)
    made = read_trial(TrialDir(tmp_path / "trial-000"))
    assert [each.state for each in made.sessions] == ["completed", "failed", "pruned", "pending"]
    assert made.state == "failed"
    assert made.spec["algo.optimizer.lr"] == made.value("algo.lr") == made.hyperparameters["algo.lr"]
    assert "seed" not in made.spec
    results = trial_results(made)
    assert results["metrics"]["return"]["n"] == 1
    assert [each["error"] for each in results["not_completed"]] == [
        "RuntimeError: the environment broke", "pruned at rung 5 of 10 by MedianPruner", None
    ]  # fmt: skip


def test_the_spec_is_known_of_a_session_that_failed_before_its_first_row(tmp_path: Path) -> None:
    synthetic.experiment(tmp_path, trials=1, seeds=1, states={(0, 0): "failed"})
    directory = TrialDir(tmp_path / "trial-000")
    directory.session(0).metrics.unlink()
    made = read_trial(directory)
    assert made.sessions[0].tables is None
    assert made.spec["env.id"] == "CartPole-v1"
    directory.session(0).spec.write_text("[1]")
    assert read_trial(directory).spec == {}


def test_a_session_that_is_being_written_is_read_up_to_its_last_whole_row(tmp_path: Path) -> None:
    directory = TrialDir(synthetic.experiment(tmp_path, trials=1, seeds=2, rows=4).trial(0).path)
    torn, empty = directory.session(0), directory.session(1)
    with torn.metrics.open("a") as file:
        file.write("250000,-")
    for table in (empty.episodes, empty.metrics, empty.timing):
        table.write_text("")
    sessions = read_trial(directory).sessions
    assert sessions[0].tables is not None
    assert len(sessions[0].tables.metrics) == 4
    assert sessions[0].metrics["frames"] == 200_000
    assert (sessions[1].tables, sessions[1].metrics) == (None, {})


def test_the_same_files_give_the_same_bytes_wherever_they_are(tmp_path: Path) -> None:
    actual = []
    for folder in (tmp_path / "here", tmp_path / "somewhere else"):
        trial_of = SweepDir(synthetic.experiment(folder, trials=1, states=STATES).path).trial(0)
        write_json(trial_of.results, trial_results(read_trial(trial_of)))
        actual.append(trial_of.results.read_bytes())
    assert actual[0] == actual[1]
    assert str(tmp_path) not in actual[0].decode()
    assert json.loads(actual[0])["consistency"] is None


def test_a_directory_without_sessions_is_no_trial(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds no Session"):
        read_trial(TrialDir(tmp_path))


def test_a_value_that_differs_between_sessions_is_not_stated_as_that_of_the_trial() -> None:
    made = trial(
        session(0, spec={"name": "x_0", "env": {"id": "E-v0", "kwargs": {"level": 0, "size": 3}}}),
        session(1, spec={"name": "x_1", "env": {"id": "E-v0", "kwargs": {"level": True, "size": 3}}}),
    )
    assert made.common == {
        "name": VARIES,
        "frames": 1000,
        "env": {"id": "E-v0", "kwargs": {"level": VARIES, "size": 3}},
    }
    assert made.spec["env.kwargs.level"] == VARIES
    assert made.value("env.kwargs.size") == 3
    assert common_spec([]) == {}
    assert common_spec([{"a": {}}, {"a": {"b": 1}}, {}]) == {"a": VARIES}


def test_curves_of_sessions_that_log_at_other_frames() -> None:
    first, second = session(0, returns=[1.0, 2.0, 3.0]), session(1, returns=[10.0, 20.0, 30.0])
    assert second.tables is not None
    second.tables.metrics["frame"] = [150, 200, 280]
    frames, values = trial(first, second).log()
    assert frames.tolist() == [100, 200]
    assert values[0].tolist() == [1.0, 2.0]
    assert math.isnan(values[1][0])
    assert values[1][1] == 20.0
