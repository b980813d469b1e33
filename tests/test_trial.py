"""A Trial as a sweep runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.run.directory import TrialDir
from lab.run.files import read_json
from lab.trial import DIED, Point, Trial

STATES = ("completed", "failed", "completed", "interrupted", "pending")


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A Trial with a Session in each state, of seeds 0 to 4."""
    made = Trial(TrialDir(tmp_path / "trial-007"), ["env=cartpole"], Point(["a=1"], {"a": 1}), range(5), "trial-007")
    for seed, state in enumerate(STATES[:4]):
        made.directory.session(seed).write_status(state, 10, 100)
    return made


def test_sessions_that_ended_are_not_left(trial: Trial) -> None:
    assert list(trial.states().values()) == list(STATES)
    assert trial.remaining() == [3, 4]
    assert trial.number == 7


def test_a_trial_that_was_pruned_runs_no_more(trial: Trial) -> None:
    trial.directory.session(2).write_status("pruned", 10, 100)
    assert trial.remaining() == []
    assert trial.jobs(1) == []


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (1, [["seed=3", "hydra.sweep.subdir=trial-007/seed-3"], ["seed=4", "hydra.sweep.subdir=trial-007/seed-4"]]),
        (2, [["seed=[3,4]", "hydra.sweep.subdir=trial-007"]]),
        (9, [["seed=[3,4]", "hydra.sweep.subdir=trial-007"]]),
    ],
)
def test_what_is_left_is_packed_into_jobs(trial: Trial, stack: int, words: list[list[str]]) -> None:
    assert [job.overrides for job in trial.jobs(stack)] == [["env=cartpole", "a=1", *rest] for rest in words]


def test_a_trial_that_stands_alone_owns_the_directory_of_the_sweep(tmp_path: Path) -> None:
    alone = Trial(TrialDir(tmp_path), [], Point([], {}), [0, 1])
    assert [job.overrides[-1] for job in alone.jobs(1)] == ["hydra.sweep.subdir=seed-0", "hydra.sweep.subdir=seed-1"]
    assert [job.overrides[-1] for job in alone.jobs(2)] == ["hydra.sweep.subdir=."]


def test_failed_sessions_run_again_when_asked_to(trial: Trial) -> None:
    trial.retry = True
    assert trial.remaining() == [1, 3, 4]
    trial.start()
    assert trial.states()[1] == "pending"
    assert trial.remaining() == [1, 3, 4]
    assert read_json(trial.directory.point)["seeds"] == [0, 1, 2, 3, 4]


def test_a_lost_session_goes_on_and_one_in_a_job_is_left_alone(trial: Trial) -> None:
    trial.retry = True
    trial.directory.session(0).write_status("failed", 10, 100, "killed", lost=True)
    trial.start(launched=[1])
    assert trial.states()[0] == "interrupted"
    assert trial.states()[1] == "failed"


def test_why_an_interrupted_session_could_not_go_on_is_kept(trial: Trial) -> None:
    trial.close([3], "there is not enough memory")
    status = trial.directory.session(3).read_status()
    assert (status["state"], status["error"]) == ("interrupted", "there is not enough memory")


def test_a_session_without_an_end_gets_one(trial: Trial) -> None:
    running = trial.directory.session(3)
    running.write_status("running", 50, 100)  # by a process that has no hold of the directory any more
    trial.close([3, 4], "its process was killed")
    for seed in (3, 4):
        status = trial.directory.session(seed).read_status()
        assert (status["state"], status["error"]) == ("failed", "its process was killed")
    assert trial.directory.session(0).read_status()["state"] == "completed"


def test_an_interrupted_session_stays_so(trial: Trial) -> None:
    trial.close([3], None)
    assert trial.directory.session(3).read_status()["state"] == "interrupted"
    trial.close([4], None)
    assert trial.directory.session(4).read_status()["error"] == DIED


def test_only_running_sessions_are_asked_to_stop(trial: Trial) -> None:
    session = trial.directory.session(4)
    assert session.lock.acquire()
    session.write_status("running", 1, 100)
    trial.ask_to_stop("pruned", "the reason")
    assert session.read_stop_request() == ("pruned", "the reason")
    assert [directory.stop.exists() for directory in trial.sessions().values()] == [False] * 4 + [True]
    session.release()
