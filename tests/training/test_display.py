"""What the terminal says at the end of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common.terminal import Terminal
from lab.run.directory import best_session
from lab.training.display import print_checks, print_next_steps
from tests.helpers import train


def test_the_best_agent_and_what_was_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sessions = train(tmp_path, "mode=dev", "seed=[0,1]", "frames=500", "eval.every=250")
    for session, value in zip(sessions, (20.0, 30.0), strict=True):
        session.results.write_text(f'{{"eval_best": {value}, "return": {-value}, "optimizer_steps": 0}}')
    assert best_session(sessions) == sessions[1], "by evaluation"
    assert print_checks(Terminal(soft_wrap=True), sessions) == {}
    assert "no learning step was made, so nothing was checked" in capsys.readouterr().out
    sessions[1].results.write_text('{"eval_best": null, "return": 500, "optimizer_steps": 1}')
    assert best_session(sessions) == sessions[0]
    print_checks(Terminal(soft_wrap=True), sessions)
    assert "all checks passed in 1 learning step: " in capsys.readouterr().out
    sessions[0].checkpoint("best").unlink()
    assert best_session(sessions[:1]) is None


def test_next_steps_are_commands_below_their_purposes(capsys: pytest.CaptureFixture[str]) -> None:
    path = "outputs/a2c_cartpole/2026-01-01/12-00-00/trial-000/seed-0"
    print_next_steps(Terminal(soft_wrap=True), {f"python -m lab enjoy {path}": "play it", "tensorboard": "curves"})
    lines = ["Next:", "  # play it", f"  python -m lab enjoy {path}", "  # curves", "  tensorboard"]
    assert capsys.readouterr().out.splitlines() == lines, "a command can be copied as a line, and none is padded"
