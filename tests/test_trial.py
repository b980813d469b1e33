"""A Trial as a sweep runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common.parts import split_evenly
from lab.run.directory import TrialDir
from lab.run.files import read_json
from lab.trial import DIED, TRIALS, Point, Trial, pack_jobs

STATES = ("completed", "failed", "completed", "interrupted", "pending")


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A Trial with a Session in each state, of seeds 0 to 4."""
    trial = Trial(TrialDir(tmp_path / "trial-007"), ["env=cartpole"], Point(["a=1"], {"a": 1}), range(5), "trial-007")
    for seed, state in enumerate(STATES[:4]):
        trial.directory.session(seed).write_status(state, 10, 100)
    return trial


def jobs(trials: list[Trial], stack: int) -> list[list[str]]:
    return [job.overrides for job in pack_jobs(trials, stack, lambda trial: trial.number)]


def test_sessions_that_have_not_ended_remain(trial: Trial) -> None:
    assert list(trial.states().values()) == list(STATES)
    assert trial.remaining() == [3, 4]
    assert trial.number == 7
    trial.directory.session(2).write_status("pruned", 10, 100)
    assert trial.remaining() == [], "a Trial that was pruned runs no more"
    assert jobs([trial], 1) == []


@pytest.mark.parametrize(
    ("stack", "overrides"),
    [
        (1, [["seed=3", "hydra.sweep.subdir=trial-007/seed-3"], ["seed=4", "hydra.sweep.subdir=trial-007/seed-4"]]),
        (2, [["seed=[3,4]", "hydra.sweep.subdir=trial-007"]]),
        (9, [["seed=[3,4]", "hydra.sweep.subdir=trial-007"]]),
    ],
)
def test_remaining_sessions_are_packed_into_jobs(trial: Trial, stack: int, overrides: list[list[str]]) -> None:
    assert jobs([trial], stack) == [["env=cartpole", "a=1", *rest] for rest in overrides]


def test_a_standalone_trial_owns_the_directory_of_the_sweep(tmp_path: Path) -> None:
    trial = Trial(TrialDir(tmp_path), [], Point([], {}), [0, 1])
    for stack, subdirs in ((1, ["seed-0", "seed-1"]), (2, ["."])):
        expected = [f"hydra.sweep.subdir={subdir}" for subdir in subdirs]
        assert [overrides[-1] for overrides in jobs([trial], stack)] == expected


def test_sessions_of_trials_in_a_group_share_jobs(trial: Trial, tmp_path: Path) -> None:
    other, alone = (
        Trial(TrialDir(tmp_path / name), ["env=cartpole"], Point([f"a={a}"], {"a": a}), [3, 4, 5], name)
        for name, a in (("trial-008", 2), ("trial-009", 3))
    )
    first, second = pack_jobs([trial, other, alone], 4, lambda trial: trial.number == 9, launched=[(8, 5)])
    trials = f'+{TRIALS}=\'[["trial-007", [], [3, 4]], ["trial-008", ["a=2"], [3, 4]]]\''
    assert first.overrides == ["env=cartpole", "a=1", "seed=[3,4]", "hydra.sweep.subdir=.", trials]
    assert [*first.sessions] == [(7, 3), (7, 4), (8, 3), (8, 4)]
    assert first.trials == [7, 8]
    assert first.sessions_of(8)[4].path == tmp_path / "trial-008" / "seed-4"
    assert first.sessions_of(8)[4].place == (8, 4)
    assert second.overrides == ["env=cartpole", "a=3", "seed=[3,4,5]", "hydra.sweep.subdir=trial-009"]


def test_parts_are_even() -> None:
    assert [len(part) for part in split_evenly(range(10), 4)] == [3, 3, 4]
    assert [*split_evenly([], 4)] == []


def test_failed_sessions_run_again_when_asked_to(trial: Trial) -> None:
    trial.retry = True
    assert trial.remaining() == [1, 3, 4]
    trial.start()
    assert trial.states()[1] == "pending"
    assert trial.remaining() == [1, 3, 4]
    assert read_json(trial.directory.point)["seeds"] == [0, 1, 2, 3, 4]


def test_a_lost_session_continues_and_one_in_a_job_is_left_alone(trial: Trial) -> None:
    trial.retry = True
    trial.directory.session(0).write_status("failed", 10, 100, "killed", lost=True)
    trial.start(launched=[1])
    assert [trial.states()[seed] for seed in (0, 1)] == ["interrupted", "failed"]


@pytest.mark.parametrize(
    ("before", "reason", "after"),
    [
        ("interrupted", "no memory", ("interrupted", "no memory")),
        ("interrupted", None, ("interrupted", None)),
        ("running", "killed", ("failed", "killed")),  # by a process that does not hold the directory any more
        (None, "killed", ("failed", "killed")),
        (None, None, ("failed", DIED)),
        ("completed", "killed", ("completed", None)),
    ],
)
def test_a_session_whose_job_ended_gets_an_end_state(
    trial: Trial, before: str | None, reason: str | None, after: tuple[str, str | None]
) -> None:
    session = trial.directory.session(4)
    if before:
        session.write_status(before, 50, 100)
    trial.close([4], reason)
    status = session.read_status()
    assert (status["state"], status["error"]) == after


def test_only_running_sessions_are_asked_to_stop(trial: Trial) -> None:
    session = trial.directory.session(4)
    assert session.lock.acquire()
    session.write_status("running", 1, 100)
    trial.ask_to_stop("pruned", "the reason")
    assert session.read_stop_request() == ("pruned", "the reason")
    assert [directory.stop.exists() for directory in trial.sessions().values()] == [False] * 4 + [True]
    session.release()
