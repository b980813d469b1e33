"""What the terminal says at the end of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common.terminal import Terminal
from lab.errors import LabError, print_error
from lab.run.directory import RunDir, best_session
from lab.run.files import write_json
from lab.run.trackers import describe_tracked, tracker_path
from lab.training.display import describe_special_settings, describe_stopped, print_checks, print_next_steps
from tests.helpers import specs, train


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


def test_what_decides_a_session_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = specs("algo=a2c", "env=cartpole", "stop_at=40", "frames=900", "extended_from=[300]")[0].to_dict()
    spec["init_from"] = {"file": str(tmp_path / "t4/seed-1/checkpoint/best.pt"), "weights": "1"}
    assert describe_special_settings(spec) == [
        "stop_at=40: training ends once the mean return of the last 100 episodes has reached it",
        "init_from=t4/seed-1/checkpoint/best.pt: training starts with these weights",
        "extended_from=[300]: it was planned for 300 frames, and goes on from there",
    ]
    assert describe_special_settings(specs("algo=a2c", "env=cartpole")[0].to_dict()) == []
    status = {"frame": 512, "frames": 900, "stopped": "return 41 >= stop_at=40"}
    lines = describe_stopped([("seed 0", status), ("seed 1", {"frame": 900, "frames": 900, "stopped": None})])
    assert lines == ["seed 0 stopped at frame 512 of 900: return 41 >= stop_at=40"]
    assert describe_stopped([("seed 0", status)] * 7)[-1] == "and 3 more Sessions stopped so"


def test_next_steps_are_commands_below_their_purposes(capsys: pytest.CaptureFixture[str]) -> None:
    path = "outputs/a2c_cartpole/2026-01-01/12-00-00/trial-000/seed-0"
    print_next_steps(Terminal(soft_wrap=True), {f"python -m lab enjoy {path}": "play it", "tensorboard": "curves"})
    lines = ["Next:", "  # play it", f"  python -m lab enjoy {path}", "  # curves", "  tensorboard"]
    assert capsys.readouterr().out.splitlines() == lines, "a command can be copied as a line, and none is padded"


def test_sentences_are_broken_between_words_and_commands_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    console = Terminal(soft_wrap=True)
    print_next_steps(
        console, {"python -m lab enjoy outputs/a2c_cartpole/2026-01-01/12-00-00": "play the best of all, and now"}
    )
    console.print("settings  algo.lr=0.001 algo.gamma=0.99", hang=10)
    assert capsys.readouterr().out.splitlines() == [
        "Next:",
        "  # play the best of all, and",
        "    now",
        "  python -m lab enjoy outputs/a2c_cartpole/2026-01-01/12-00-00",
        "settings  algo.lr=0.001",
        "          algo.gamma=0.99",
    ]
    print_error(LabError("one sentence that is longer than the terminal"))
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 30


def test_the_end_names_where_trackers_have_a_session(tmp_path: Path) -> None:
    one, other = RunDir(tmp_path / "seed-0"), RunDir(tmp_path / "seed-1")
    offline = tmp_path / "seed-0" / "wandb" / "offline-run-1-abc"
    offline.mkdir(parents=True)
    write_json(tracker_path(one.path, "wandb"), {"id": "abc", "url": None, "dir": str(one.path)})
    write_json(tracker_path(one.path, "mlflow"), {"id": "d", "tracking_uri": "postgresql://me:secret@host/db"})
    other.path.mkdir()
    write_json(tracker_path(other.path, "wandb"), {"id": "def", "url": "https://wandb.ai/x"})
    lines, commands = describe_tracked([one, other])
    assert lines == [
        "MLflow's tracking URI is postgresql://host/db",
        f"Weights & Biases has {other.path} at https://wandb.ai/x",
    ]
    assert list(commands) == [f"wandb sync {offline}"]
    (offline / "run-abc.wandb.synced").touch()
    assert describe_tracked([one]) == (lines[:1], {})
