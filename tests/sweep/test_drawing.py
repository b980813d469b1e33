"""Which Trials of an Experiment are drawn, and in which processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.run.directory import SweepDir
from lab.sweep.drawing import draw_trials
from tests import synthetic


def drawn(directory: SweepDir) -> list[int]:
    return [trial.plot.stat().st_mtime_ns for trial in directory.trials()]


@pytest.mark.slow
def test_many_trials_are_drawn_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = synthetic.experiment(tmp_path, 9, 1, 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("lab.analysis.draw_trial", lambda trial: pytest.fail("this process draws"))
    draw_trials(directory)
    before = drawn(directory)
    draw_trials(directory)
    assert drawn(directory) == before, "nothing has changed since"


def test_a_trial_is_drawn_again_once_a_session_has_changed(tmp_path: Path) -> None:
    directory = synthetic.experiment(tmp_path, 3, 1, 5)
    draw_trials(directory)
    before = drawn(directory)
    directory.trial(1).session(0).write_status("completed", 1, 1)
    draw_trials(directory)
    assert [new > old for new, old in zip(drawn(directory), before, strict=True)] == [False, True, False]


def test_a_picture_that_cannot_be_drawn_is_named_and_the_others_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = synthetic.experiment(tmp_path, 2, 1, 5)
    directory.trial(0).plot.mkdir()
    draw_trials(directory, again=True)
    assert f"{directory.trial(0).plot} could not be drawn" in capsys.readouterr().err
    assert directory.trial(1).plot.stat().st_size > 1000
