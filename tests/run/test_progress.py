"""Progress: how far Sessions and Trials have come, from their status files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.directory import TrialDir
from lab.run.files import write_json
from lab.run.progress import count_states, read_progress, read_trial_progress
from lab.run.status import combined_state
from tests import synthetic


def test_the_progress_of_an_experiment_includes_what_never_started(tmp_path: Path) -> None:
    states = {(0, 1): "failed", (1, 0): "pruned", (1, 1): "pruned", (2, 1): "pending", (3, 0): "interrupted"}
    synthetic.experiment(tmp_path, trials=4, seeds=2, rows=4, states=states)
    trials = read_progress(tmp_path)
    assert [trial.state for trial in trials] == ["failed", "pruned", "pending", "interrupted"]
    assert [trial.ended for trial in trials] == [True, True, False, False]
    assert count_states(trials) == {"completed": 3, "failed": 1, "pruned": 2, "pending": 1, "interrupted": 1}
    assert trials[1].fraction_done == 0.5
    assert trials[0].fraction_done == 1.0, "a failed Session does not hold its Trial back"
    assert set(trials[0].hyperparameters) == {"algo.lr", "algo.gamma", "algo.advantage"}


def test_a_trial_and_a_session_are_run_directories_too(tmp_path: Path) -> None:
    synthetic.experiment(tmp_path, trials=1, seeds=2, rows=4)
    assert len(read_progress(tmp_path / "trial-000")[0].sessions) == 2
    alone = read_progress(tmp_path / "trial-000" / "seed-1")
    assert (alone[0].number, alone[0].sessions[0].state) == (None, "completed")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match="it holds no Session, Trial or Experiment"):
        read_progress(tmp_path / "empty")
    with pytest.raises(LabError, match="there is no such directory"):
        read_progress(tmp_path / "nowhere")


def test_a_status_is_read_again_until_the_session_has_ended(tmp_path: Path) -> None:
    directory = TrialDir(tmp_path)
    session = directory.session(0)
    assert session.lock.acquire()
    session.write_status("running", 10, 100, None, 5.0, 1000.0)
    trial = read_trial_progress(directory, [0, 1])
    assert [s.state for s in trial.sessions] == ["running", "pending"]
    assert trial.sessions[0].fraction_done == 0.1
    session.write_status("completed", 100, 100)
    trial.refresh()
    assert trial.sessions[0].state == "completed"
    write_json(session.status, {"state": "running"})
    trial.refresh()
    assert trial.sessions[0].state == "completed", "what has ended is not read any more"
    session.release()


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["completed", "completed"], "completed"),
        (["completed", "failed"], "failed"),
        (["running", "pruned"], "running"),
        (["pruned", "completed"], "pruned"),
        (["interrupted", "completed"], "interrupted"),
        (["pending", "completed"], "pending"),
        ([], "pending"),
    ],
)
def test_the_state_of_a_trial(states: list[str], expected: str) -> None:
    assert combined_state(states) == expected
