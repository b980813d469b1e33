"""`status`, `report` and `resume`: commands on run directories of every level."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lab.analysis import analyze
from lab.command import report, resume, status
from lab.common.text import format_value
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir
from lab.run.files import read_json, write_json, write_sealed_json
from lab.run.progress import read_progress
from lab.run.schemas import MEANINGS
from lab.sweep.summary import count_sessions
from tests import synthetic
from tests.helpers import QUIET, lab, result, train


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    states = {(2, 1): "failed", (3, 0): "pruned", (3, 1): "pruned", (4, 1): "pending"}
    return synthetic.experiment(tmp_path / "experiment", trials=5, seeds=2, rows=20, states=states).path


def test_status_shows_a_tree_with_the_best_so_far(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    analyze(experiment)
    status.main([str(experiment)])
    lines = capsys.readouterr().out.splitlines()
    assert "10 Sessions planned, 6 completed, 1 failed, 1 pending, 2 pruned" in lines[0]
    assert any("seed 1  failed  RuntimeError: the environment broke" in line for line in lines)
    assert any("seed 0  pruned  pruned at rung 5 of 10" in line for line in lines)
    assert sum(line.startswith(("│   ", "    ")) for line in lines) == 2 * 3, "completed Trials take a line each"
    assert re.search(r"trial-000  completed  2 of 2 Sessions  return \d+\.\d  algo\.lr=", "\n".join(lines))
    best = read_json(experiment / "experiment.json")["best"]
    assert lines[-1].startswith(f"best so far: trial-{best['trial']:03}")
    other = SweepDir(experiment).trial(1 - best["trial"])
    results = read_json(other.results)
    results["metrics"].pop("return")
    write_json(other.results, results)
    status.main([str(experiment)])
    assert f"({other.path.name}: a Session has no return)" in " ".join(capsys.readouterr().out.split())


def test_a_watch_waits_for_a_detached_sweep_that_is_about_to_start(experiment: Path) -> None:
    lock = SweepDir(experiment).lock
    trials = read_progress(experiment)
    assert not status.is_active(experiment, trials)
    lock.announce(os.getpid())
    assert status.is_active(experiment, trials)
    with subprocess.Popen(["true"]) as ended:
        pass
    lock.announce(ended.pid)
    assert not status.is_active(experiment, trials)


def test_the_sessions_of_trials_to_come_are_pending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = synthetic.experiment(tmp_path / "experiment", trials=1, seeds=2, rows=20, states={(0, 1): "pending"})
    write_sealed_json(sweep.sweep, {**read_json(sweep.sweep), "trials": 3})
    status.main([str(sweep.path)])
    assert "6 Sessions planned, 1 completed, 5 pending" in capsys.readouterr().out
    analyze(sweep.path)
    assert count_sessions(read_json(sweep.results)["sessions"]) == "1 of 6 Sessions (5 pending)"


def test_status_before_any_analysis_and_of_one_session(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status.main([str(experiment)])
    assert "best so far" not in capsys.readouterr().out
    status.main([str(experiment / "trial-000" / "seed-0")])
    assert "Session  completed" in capsys.readouterr().out


def test_status_watches_until_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "WATCH_SECONDS", 0.05)
    session = RunDir(tmp_path / "seed-0")
    assert session.lock.acquire()
    session.write_status("running", 10, 100)
    watching = threading.Thread(target=status.main, args=([str(tmp_path), "--watch"],))
    watching.start()
    time.sleep(0.3)
    assert watching.is_alive()
    session.write_status("completed", 100, 100)
    watching.join(10)
    assert not watching.is_alive()
    session.release()


def test_report_makes_everything_of_an_experiment_again(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.main([str(experiment)])
    shown = capsys.readouterr().out
    assert "6 of 10 Sessions (1 failed, 1 pending, 2 pruned)" in shown
    assert "Not ranked, failed: trial-002" in shown
    assert "Not ranked, pruned: trial-003" in shown
    assert "trial-002 seed 1: RuntimeError: the environment broke" in shown
    files = [experiment / name for name in ("experiment.json", "trials.csv", "experiment.png", "report.html")]
    files += [trial.plot for trial in SweepDir(experiment).trials()]
    before = [path.read_bytes() for path in files]
    report.main([str(experiment)])
    assert [path.read_bytes() for path in files] == before, "the same files give the same output"


def test_a_ranking_is_never_cut_and_says_what_it_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = synthetic.experiment(tmp_path / "experiment", trials=8, seeds=2, rows=4).path
    for point in folder.glob("*/point.json"):
        more = {
            "algo.optimizer.max_grad_norm": 0.123456789,
            "env.kwargs.a_name_of_many_characters_is_long": 1,
        }
        plain = read_json(point)
        if plain["number"] % 2:
            more = dict.fromkeys(more, 2)
        write_sealed_json(point, plain | {"hyperparameters": plain["hyperparameters"] | more})
    report.main([str(folder)])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    (head,) = (line for line in lines if line.startswith("rank "))
    assert head == (
        "rank Trial mean return 95 % interval lr gamma advantage max_grad_norm a_name_of_many_characters_is_long"
    )
    best = read_json(folder / "experiment.json")["best"]
    assert f"1 trial-{best['trial']:03} " in lines[lines.index(head) + 1]
    settings = " ".join(f"{key}={format_value(value)}" for key, value in best["hyperparameters"].items())
    assert f"Settings of trial-{best['trial']:03}: {settings}" in lines
    assert any(
        re.match(r"Importance \(PED-ANOVA; rough: 8 Trials, fewer than 20\): \w+ \d+ %, ", line) for line in lines
    )


@pytest.mark.parametrize("level", ["trial-000", "trial-000/seed-0"])
def test_report_of_a_trial_and_of_a_session(experiment: Path, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    report.main([str(experiment / level)])
    shown = capsys.readouterr().out
    name = "trial" if level == "trial-000" else "session"
    assert f"{name}.json" in shown
    assert name == "session" or f"strength: {MEANINGS['strength']}" in shown
    assert (experiment / level / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("command", [report, status, resume])
def test_a_directory_that_is_none_is_a_sentence(command: object, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is not a run directory"):
        command.main([str(tmp_path / "nothing")])  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [report, status, resume])
def test_help_is_shown(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--help"])  # type: ignore[attr-defined]
    assert capsys.readouterr().out.startswith("Usage: python -m lab ")


def test_resume_runs_an_interrupted_session_again_and_it_ends_as_it_would_have(tmp_path: Path) -> None:
    overrides = ("frames=2000", "algo.horizon=16", "seed=[3,4]")
    whole = train(tmp_path / "whole", *overrides)
    done = lab(*QUIET, *overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    session = RunDir(tmp_path / "run" / "seed-4")
    write_json(session.status, {**read_json(session.status), "state": "running"})  # as after a crash of the machine
    assert session.read_status()["state"] == "interrupted"
    started = read_json(RunDir(tmp_path / "run" / "seed-3").provenance)["start"]
    done = lab("resume", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert result(session) == result(whole[1])
    assert read_json(RunDir(tmp_path / "run" / "seed-3").provenance)["start"] == started
    assert read_json(tmp_path / "run" / "trial.json")["seeds"] == [3, 4], "a stack of seeds is a Trial"
    again = lab("resume", str(tmp_path / "run"))
    assert again.returncode == 2
    assert "There is nothing to resume" in again.stderr
