"""Sweeps on a real Ray of two nodes: a node or a worker that is lost, Ctrl-C, and a controller that is killed.

Run these with -m ray -n 0: each starts several processes per core.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.run.directory import RunDir, find_sessions
from lab.run.files import read_json
from tests.helpers import lab, result
from tests.helpers import wait_for as wait_seconds
from tests.ray.conftest import Start
from tests.sweep.test_sweep import states

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

SLOW = ("algo=a2c", "env=gymnasium", "env.id=tests.envs:Slow-v0", "name=slow", "algo.horizon=16", "log.every=500",
        "log.tensorboard=false", "eval.every=4000", "eval.episodes=2", "checkpoint.every=1000")  # fmt: skip
SECONDS = 300.0
wait_for = partial(wait_seconds, seconds=SECONDS)


def on(cluster: Any) -> tuple[str, ...]:
    """Return the overrides for a cluster."""
    return ("hydra/launcher=ray", f"hydra.launcher.address={cluster.address}")


def saved(folder: Path) -> list[RunDir]:
    """Return the Sessions that run and have a checkpoint."""
    return [
        session
        for session in find_sessions(folder)
        if session.checkpoint("last").exists() and session.read_status()["state"] == "running"
    ]


def resumed(folder: Path) -> list[int]:
    """Return the frames that Sessions went on from in another process."""
    provenances = [read_json(session.provenance) for session in find_sessions(folder)]
    return [entry["frame"] for provenance in provenances for entry in provenance.get("resumed", [])]


def worker_of(job: psutil.Process) -> psutil.Process:
    """Return the worker of Ray that runs a job: the parent of the process that the job's group is named after."""
    return psutil.Process(os.getpgid(job.pid)).parent()


def kill_worker(session: RunDir, hard: bool) -> None:
    """Kill the worker that runs a Session; `hard` as with its machine, so that the Session cannot save its work."""
    job = psutil.Process(session.read_status()["pid"])
    worker = worker_of(job)
    if hard:
        os.killpg(os.getpgid(job.pid), signal.SIGKILL)
    worker.kill()


def assert_same(folder: Path, other: Path) -> None:
    sessions, others = find_sessions(folder), find_sessions(other)
    assert [one.path.relative_to(folder) for one in sessions] == [one.path.relative_to(other) for one in others]
    for session, counterpart in zip(sessions, others, strict=True):
        assert session.log.read_text().count(" completed at frame ") == 1
        assert result(session) == result(counterpart), session.path


TWO = (*SLOW, "frames=8000", "seed=0,1", "stack=1")


@pytest.mark.law
def test_law_3_a_job_that_loses_its_worker_goes_on_and_no_other_notices(
    cluster: Any, tmp_path: Path, start: Start
) -> None:
    folder, local = tmp_path / "ray", tmp_path / "local"
    process = start("-m", *TWO, *on(cluster), f"hydra.sweep.dir={folder}")
    wait_for(lambda: len(saved(folder)) == 2, process)
    kill_worker(saved(folder)[0], hard=True)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output + errors
    assert len(resumed(folder)) == 1
    assert resumed(folder)[0] > 0
    done = lab("-m", *TWO, f"hydra.sweep.dir={local}", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(folder, local)


@pytest.mark.law
def test_law_3_a_job_that_is_lost_too_often_fails_alone_and_can_be_retried(
    cluster: Any, tmp_path: Path, start: Start
) -> None:
    process = start("-m", *TWO, *on(cluster), "hydra.launcher.max_retries=0", f"hydra.sweep.dir={tmp_path}")
    wait_for(lambda: len(saved(tmp_path)) == 2, process)
    kill_worker(saved(tmp_path)[0], hard=True)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, output + errors
    assert "Traceback" not in errors
    assert sorted(states(tmp_path)) == ["completed", "failed"]
    (failed,) = (session for session in find_sessions(tmp_path) if session.read_status()["state"] == "failed")
    assert failed.read_status()["lost"]
    assert failed.read_status()["error"].startswith("The job has no result: Ray lost its worker: ")
    done = lab("resume", str(tmp_path), "retry=true", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(tmp_path) == ["completed"] * 2
    assert min(resumed(tmp_path)) > 0


@pytest.mark.law
def test_law_3_ctrl_c_saves_what_runs_and_calls_off_what_waits(cluster: Any, tmp_path: Path, start: Start) -> None:
    overrides = (*SLOW, "frames=12000", "algo.lr=1e-2,1e-3", "seed=0,1", "stack=1", "parallel=2")
    process = start("-m", *overrides, *on(cluster), "hydra.launcher.slots=2", f"hydra.sweep.dir={tmp_path}")
    wait_for(lambda: len(saved(tmp_path)) == 2, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output + errors
    assert states(tmp_path) == ["interrupted"] * 2
    assert len(find_sessions(tmp_path)) == 2


@pytest.mark.law
def test_law_3_jobs_save_their_work_when_their_controller_is_killed(cluster: Any, tmp_path: Path, start: Start) -> None:
    process = start("-m", *TWO, *on(cluster), f"hydra.sweep.dir={tmp_path}")
    wait_for(lambda: len(saved(tmp_path)) == 2, process)
    before = {session.path: session.read_status()["frame"] for session in find_sessions(tmp_path)}
    process.kill()
    process.communicate()
    wait_for(lambda: states(tmp_path) == ["interrupted"] * 2)
    assert all(read_json(RunDir(path).status)["state"] == "interrupted" for path in before), "they wrote it themselves"
    done = lab("resume", str(tmp_path), timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(tmp_path) == ["completed"] * 2
    assert len(resumed(tmp_path)) == 2


def test_law_6_what_no_node_can_hold_is_refused_before_anything_starts(cluster: Any, tmp_path: Path) -> None:
    done = lab("-m", *TWO, *on(cluster), "hydra.launcher.num_gpus=8", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "hydra.launcher.num_gpus=8 (at most 0 on a node)" in done.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.law
def test_law_3_sessions_go_on_elsewhere_when_their_node_is_killed(cluster: Any, tmp_path: Path, start: Start) -> None:
    overrides = (*SLOW, "frames=12000", "algo.lr=1e-2,1e-3,1e-4", "seed=0,1,2,3", "stack=2")
    folder, local = tmp_path / "ray", tmp_path / "local"
    process = start("-m", *overrides, *on(cluster), f"hydra.sweep.dir={folder}")
    wait_for(lambda: len(saved(folder)) == 8, process)  # two jobs of two Sessions on each node
    (lost,) = cluster.worker_nodes
    cluster.remove_node(lost, allow_graceful=False)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output + errors
    assert states(folder) == ["completed"] * 12
    assert len(resumed(folder)) == 4
    assert min(resumed(folder)) > 0
    assert "ray" not in errors.lower()
    done = lab("-m", *overrides, f"hydra.sweep.dir={local}", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(folder, local)
