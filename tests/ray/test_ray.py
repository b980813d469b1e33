"""Sweeps on a real Ray of two nodes: a node or a worker that is lost, Ctrl-C, and a controller that is killed.

Run these with -m ray -n 0: each starts several processes per core.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.run.directory import RunDir, find_sessions
from lab.run.files import read_json
from tests.helpers import lab, result
from tests.helpers import wait_for as wait_seconds
from tests.ray.conftest import NODE, Start
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


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that run the Sessions of a sweep."""
    return [psutil.Process(session.read_status()["pid"]) for session in saved(folder)]


def workers() -> dict[int, psutil.Process]:
    """Return the workers of Ray on this machine that run a job of ours, by the process group of the job."""
    found = {}
    for process in psutil.process_iter(["name"]):
        if "run_in_process" in process.info["name"] or process.info["name"].startswith("ray::"):
            found[process.pid] = process
    return found


def assert_same(folder: Path, other: Path) -> None:
    sessions, others = find_sessions(folder), find_sessions(other)
    assert [one.path.relative_to(folder) for one in sessions] == [one.path.relative_to(other) for one in others]
    for session, counterpart in zip(sessions, others, strict=True):
        assert session.log.read_text().count(" completed at frame ") == 1
        assert result(session) == result(counterpart), session.path


@pytest.mark.law
def test_law_3_sessions_go_on_elsewhere_when_their_node_is_killed(cluster: Any, tmp_path: Path, start: Start) -> None:
    overrides = (*SLOW, "frames=12000", "algo.lr=1e-2,1e-3,1e-4", "seed=0,1,2,3", "stack=2")
    folder, local = tmp_path / "ray", tmp_path / "local"
    process = start("-m", *overrides, *on(cluster), f"hydra.sweep.dir={folder}")
    wait_for(lambda: len(saved(folder)) == 8, process)  # two jobs of two Sessions on each node
    lost = next(node for node in cluster.worker_nodes)
    cluster.remove_node(lost, allow_graceful=False)
    try:
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        cluster.add_node(**NODE)
    assert process.returncode == 0, output + errors
    assert states(folder) == ["completed"] * 12
    assert len(resumed(folder)) == 4
    assert min(resumed(folder)) > 0
    assert "ray" not in errors.lower()
    done = lab("-m", *overrides, f"hydra.sweep.dir={local}", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(folder, local)
