"""Sweeps that are interrupted, detached or killed, and continued."""

from __future__ import annotations

import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.experiment import INTERRUPTED
from lab.run.directory import RunDir, SweepDir, find_sessions
from lab.run.files import read_json, read_yaml
from lab.sweep.sweep import finish
from tests.helpers import ROOT, result
from tests.launch.test_local import FATED
from tests.sweep.test_sweep import SEARCH, SMALL, run, states, sweep


def test_ctrl_c_ends_a_sweep_with_everything_written(tmp_path: Path) -> None:
    def rows() -> list[int]:
        return [s.metrics.read_text().count("\n") for s in find_sessions(tmp_path) if s.metrics.exists()]

    long = (*SMALL[:2], *SMALL[3:], "frames=16000", "algo.lr=1e-2,1e-3", "checkpoint.every=1000")
    process = start(*long, f"hydra.sweep.dir={tmp_path}")
    wait_for(lambda: sum(n > 3 for n in rows()) == 2, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "The sweep was interrupted." in output
    assert f"python -m lab resume {tmp_path}" in output
    assert states(tmp_path) == ["interrupted"] * 2
    assert not orphans(tmp_path)
    run("resume", str(tmp_path))
    assert states(tmp_path) == ["completed"] * 2
    for session in find_sessions(tmp_path):
        (resumed,) = read_json(session.provenance)["resumed"]
        assert resumed["frame"] >= 1500, "it continues from its checkpoint"
        frames = [int(line.split(",")[0]) for line in session.metrics.read_text().splitlines()[1:]]
        assert frames == sorted(set(frames))


@pytest.mark.slow
@pytest.mark.law
def test_law_1_trials_in_one_job_are_as_alone_although_they_were_interrupted(tmp_path: Path) -> None:
    grid = ("algo.lr=1e-2,1e-3", "algo.gamma=0.9,0.99", "seed=0,1", "checkpoint.every=1000")
    long = (*SMALL[:2], *SMALL[3:], "frames=4000", "eval.every=2000", *grid)
    process = start(*long, "stack=8", f"hydra.sweep.dir={tmp_path / 'shared'}")
    wait_for(lambda: [s.metrics.exists() for s in find_sessions(tmp_path / "shared")] == [True] * 8, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert states(tmp_path / "shared") == ["interrupted"] * 8
    run("resume", str(tmp_path / "shared"), timeout=240)
    run("-m", *long, "stack=1", "hydra/launcher=basic", f"hydra.sweep.dir={tmp_path / 'alone'}", timeout=240)
    sessions = [find_sessions(tmp_path / name) for name in ("shared", "alone")]
    assert len(list((tmp_path / "shared" / ".jobs").glob("*.log"))) == 2, "one job, and one more that resumed it"
    for shared, alone in zip(*sessions, strict=True):
        assert result(shared) == result(alone)
        assert read_json(shared.provenance)["resumed"][0]["frame"] < 4000
        texts = [(session.hydra / "overrides.yaml").read_text() for session in (shared, alone)]
        assert texts[0].replace("stack=8", "stack=1") == texts[1]
        assert read_yaml(shared.hydra / "config.yaml")["algo"] == read_yaml(alone.hydra / "config.yaml")["algo"]
    assert len((tmp_path / "shared" / "trials.csv").read_text().splitlines()) == 5


def test_a_session_that_fails_in_a_job_of_several_trials_fails_alone(tmp_path: Path) -> None:
    done = sweep(tmp_path, "algo.lr=1e-2,1e38", "seed=0,1", "stack=4", "max_failure_rate=1", code=1)
    assert states(tmp_path) == ["completed"] * 2 + ["failed"] * 2
    assert len(list((tmp_path / ".jobs").glob("*.log"))) == 1
    assert "NaN or infinite" in find_sessions(tmp_path)[2].read_status()["error"]
    assert "Not ranked, failed: trial-001" in done.stdout
    assert read_json(tmp_path / "experiment.json")["not_completed"]


def test_a_detached_sweep_runs_without_the_process_that_started_it(tmp_path: Path) -> None:
    done = sweep(tmp_path, "seed=0,1", "detach=true")
    assert f"python -m lab status {tmp_path} --watch" in done.stdout
    patience = time.monotonic() + 90
    while not (tmp_path / "trial.png").exists() or SweepDir(tmp_path).lock.is_held():
        assert time.monotonic() < patience, (tmp_path / ".jobs" / "controller.log").read_text()
        time.sleep(0.2)
    assert states(tmp_path) == ["completed"] * 2
    assert "2 of 2 Sessions" in (tmp_path / ".jobs" / "controller.log").read_text()


@pytest.mark.parametrize(("launcher", "slots"), [("local", 2), ("basic", 1)])
def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, launcher: str, slots: int) -> None:
    # Asked to end, a Session ends after its horizon, in which an environment hangs here.
    never = ("algo.horizon=400", "+env.kwargs.fate=hangs", "env.restore=pickle")
    fated = [argument for argument in FATED[1:] if launcher == "local" or not argument.startswith("hydra.launcher.")]
    process = start(*fated, *never, f"hydra/launcher={launcher}", "seed=0,1", "stack=1", f"hydra.sweep.dir={tmp_path}")
    assert process.stdout
    wait_for(lambda: states(tmp_path) == ["running"] * slots, process)
    process.send_signal(signal.SIGINT)
    assert any("Press Ctrl-C again to kill them" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert f"Stopped at once. To continue: python -m lab resume {tmp_path}" in errors
    assert not orphans(tmp_path)
    assert states(tmp_path) == ["interrupted"] * slots


@pytest.mark.parametrize(("remaining", "command"), [(0, "report"), (1, "resume")])
def test_a_ctrl_c_during_the_analysis_names_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], remaining: int, command: str
) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.analysis.analyze", interrupted)
    plan = SimpleNamespace(directory=SweepDir(tmp_path), started=list, count_remaining=lambda: remaining)
    experiment: Any = SimpleNamespace(plan=plan, stopped=INTERRUPTED if remaining else None)
    assert finish(experiment) == 130
    assert f"To continue: python -m lab {command} {tmp_path}" in capsys.readouterr().err


def start(*overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lab", "-m", *overrides]
    # A session of its own, so that a signal reaches the controlling process alone.
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(holds: Any, process: subprocess.Popen[str], seconds: float = 90.0) -> None:
    patience = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.1)


def orphans(folder: Path) -> list[str]:
    """Return the processes that still work in a directory, once they have had time to end."""
    patience = time.monotonic() + 20
    while True:
        held = [str(session.path) for session in find_sessions(folder) if session.lock.is_held()]
        if not held or time.monotonic() > patience:
            return held
        time.sleep(0.2)


MOMENTS = int(os.environ.get("LAB_MOMENTS", "2"))  # 20 for the whole test


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", ["random", "grid"])
def test_law_3_a_sweep_killed_at_any_moment_goes_on_as_if_it_had_not_been(tmp_path: Path, kind: str) -> None:
    space = ["algo.lr=1e-4,1e-3,1e-2", SEARCH[2]] if kind == "grid" else SEARCH[1:]
    overrides = [*SMALL, SEARCH[0], *space, "search.n_trials=6", f"hydra/sweeper/sampler={kind}", "seed=0,1", "stack=1"]
    whole = tmp_path / "whole"
    begin = time.monotonic()
    run("-m", *overrides, f"hydra.sweep.dir={whole}", timeout=300)
    duration = time.monotonic() - begin
    expected = (whole / "experiment.json").read_bytes()
    draws = random.Random(kind)
    for moment in range(MOMENTS):
        folder = tmp_path / f"killed-{moment}"
        process = start(*overrides, f"hydra.sweep.dir={folder}")
        time.sleep(duration * (moment + draws.random()) / MOMENTS)
        process.kill()
        process.communicate()
        completed = {s.path: read_json(s.provenance)["start"] for s in find_sessions(folder) if ended(s)}
        run("-m", *overrides, f"hydra.sweep.dir={folder}", timeout=300)
        assert states(folder) == ["completed"] * 12
        for path, start_time in completed.items():
            assert read_json(RunDir(path).provenance)["start"] == start_time, "what completed is not run twice"
        assert (folder / "experiment.json").read_bytes() == expected
        if kind == "random":
            assert study_states(folder) == ["COMPLETE"] * 6


def ended(session: RunDir) -> bool:
    return session.status.exists() and read_json(session.status)["state"] == "completed"


def study_states(folder: Path) -> list[str]:
    import optuna

    study = optuna.load_study(study_name=None, storage=f"sqlite:///{SweepDir(folder).study}")
    return [trial.state.name for trial in study.trials]


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    directory = SweepDir(tmp_path)
    assert directory.lock.acquire()
    done = sweep(tmp_path, "seed=0,1", code=2)
    assert f"is in use: process {os.getpid()} on host {platform.node()} controls a sweep there." in done.stderr
    directory.lock.release()
