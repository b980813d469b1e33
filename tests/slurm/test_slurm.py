"""Sweeps on a real SLURM cluster: tasks that are preempted, time out, run out of memory, are adopted or canceled.

A cluster of simulated nodes will do: `sudo python3 tests/slurm/cluster.py up`. Run these with -m slurm -n 0, as all of
them use it.
"""

from __future__ import annotations

import csv
import re
import signal
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from lab.common.text import quote
from lab.run.directory import RunDir, SweepDir, find_sessions
from lab.run.files import read_json
from tests.helpers import clone, lab, result, train
from tests.helpers import wait_for as wait_seconds
from tests.slurm.helpers import NAME, Start, slurm
from tests.sweep.test_sweep import states

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

SLOW = ("algo=a2c", "env=gymnasium", "env.id=tests.envs:Slow-v0", "name=slow", "algo.horizon=16", "log.every=500",
        "log.tensorboard=false", "eval.every=4000", "eval.episodes=2", "checkpoint.every=1000")  # fmt: skip
SLURM = ("hydra/launcher=slurm", f"hydra.launcher.name={NAME}", "hydra.launcher.poll=0.5", "hydra.launcher.mem_gb=1")
TWO = ("hydra.launcher.array_parallelism=2", "parallel=2", "stack=1")  # at the same time
AWKWARD = "a sweep, of 'two' \"seeds\" [on] {n=1}; é$HOME"
SECONDS = 240.0  # that something may take which SLURM does
wait_for = partial(wait_seconds, seconds=SECONDS)


def queued(*options: str) -> list[str]:
    """Return the tasks that wait or run, as `squeue` prints them."""
    return slurm("squeue", "--noheader", "--array", f"--name={NAME}", "--format=%i %T %N", *options).splitlines()


def running_on(node: str) -> int:
    return len(queued("--states=RUNNING", f"--nodelist={node}"))


def tasks(folder: Path) -> list[str]:
    """Return all tasks that were ever submitted for a sweep."""
    return sorted(read_json(path)["task"] for path in SweepDir(folder).jobs.glob("*.json"))


def arrays(folder: Path) -> set[str]:
    return {task.partition("_")[0] for task in tasks(folder)}


def runs(folder: Path) -> list[tuple[str, str]]:
    """Return every run of every task of a sweep, with how it ended; a task that was queued again has several."""
    options = ("--duplicates", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,Start")
    rows = [row.split("|") for row in slurm("sacct", f"--jobs={','.join(arrays(folder))}", *options).splitlines()]
    return [(task, state.split()[0]) for task, state, start in rows if start not in ("Unknown", "None")]


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


def frames(table: Path) -> list[int]:
    with table.open(newline="") as file:
        return [int(row["frame"]) for row in csv.DictReader(file)]


def assert_completed_once(session: RunDir) -> None:
    """Show that a Session was trained once, whole, whatever happened on the way."""
    assert session.read_status()["state"] == "completed"
    assert session.log.read_text().count(" completed at frame ") == 1
    episodes, metrics = frames(session.episodes), frames(session.metrics)
    assert episodes == sorted(episodes)
    assert all(before < after for before, after in pairwise(metrics))
    assert metrics[-1] == session.read_status()["frame"] >= session.read_status()["frames"]
    assert session.results.exists()


def assert_all_completed_once(folder: Path, number: int) -> None:
    sessions = find_sessions(folder)
    assert len(sessions) == number
    for session in sessions:
        assert_completed_once(session)
    wait_for(lambda: queued() == [])  # a task ends after its Sessions


@pytest.mark.law
def test_law_3_sessions_survive_a_node_that_is_lost_and_a_job_that_comes_before_them(
    tmp_path: Path, start: Start
) -> None:
    overrides = (*SLOW, "frames=12000", "algo.lr=1e-2,1e-3,1e-4", "seed=0,1,2,3", "stack=2")
    folder = tmp_path / "sweep"
    low = ("hydra.launcher.partition=low", "hydra.launcher.mem_gb=2")  # so that a node has room for three
    process = start("-m", *overrides, *SLURM, *low, f"hydra.sweep.dir={folder}")
    wait_for(lambda: running_on("n1") == running_on("n2") == 3 and len(saved(folder)) >= 4, process)
    try:
        slurm("scontrol", "update", "nodename=n1", "state=down", "reason=test")
        wait_for(lambda: running_on("n1") == 0, process)
    finally:
        slurm("scontrol", "update", "nodename=n1", "state=resume")
    assert running_on("n2") == 3
    slurm("sbatch", f"--job-name={NAME}-high", "--partition=high", "--nodelist=n2", "--exclusive", "--output=/dev/null",
          "--wrap=sleep 5")  # fmt: skip
    wait_for(lambda: running_on("n2") == 0, process)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output + errors
    assert_all_completed_once(folder, 12)
    assert Counter(state for _, state in runs(folder)) == {"NODE_FAIL": 3, "PREEMPTED": 3, "COMPLETED": 6}
    assert max(resumed(folder)) > 0
    alone = train(tmp_path / "alone", *overrides[:-3], "algo.lr=1e-3", "seed=[0,3]")
    for session, seed in zip(alone, (0, 3), strict=True):
        assert result(SweepDir(folder).trial(1).session(seed)) == result(session)


@pytest.mark.law
def test_law_3_tasks_beyond_their_time_limit_go_on_in_their_directory_whatever_it_is_called(tmp_path: Path) -> None:
    overrides = (*SLOW, "env.id=tests.envs:SlowAtFirst-v0", "frames=16000", "seed=0,1")  # for 80 seconds
    folder = tmp_path / AWKWARD
    # Told so 10 seconds before its end, or as much as 30 seconds earlier, which is how often SLURM looks.
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=10")
    done = lab("-m", *overrides, *SLURM, *limit, f"hydra.sweep.dir={quote(str(folder))}", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_completed_once(folder, 2)
    assert max(resumed(folder)) > 0
    wait_for(lambda: Counter(state for _, state in runs(folder))["COMPLETED"] == 2)
    assert "REQUEUED" in {state for _, state in runs(folder)}
    assert len(tasks(folder)) == 2, "it was the same task again, and no other"
    alone = train(tmp_path / "alone", *overrides[:-1], "seed=[0,1]")
    assert [result(session) for session in find_sessions(folder)] == [result(session) for session in alone]


def test_a_task_out_of_memory_fails_alone_with_what_slurm_says(tmp_path: Path) -> None:
    both = "env.id=tests.envs:Slow-v0,tests.envs:Hungry-v0"
    overrides = (*(both if word.startswith("env.id=") else word for word in SLOW), "frames=3000")
    done = lab("-m", *overrides, *SLURM, f"hydra.sweep.dir={tmp_path}", timeout=SECONDS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert_completed_once(SweepDir(tmp_path).trial(0).session(0))
    status = SweepDir(tmp_path).trial(1).session(0).read_status()
    assert (status["state"], status["lost"]) == ("failed", True)
    # With cgroups the kernel kills the task, and its state says why; without them SLURM does, and its log says why.
    assert "SLURM reports" in status["error"]
    assert re.search("OUT_OF_MEMORY|Exceeded job memory limit", status["error"])
    assert [entry["trial"] for entry in read_json(tmp_path / "experiment.json")["not_completed"]] == [1]
    assert status["error"] in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.law
def test_law_3_tasks_that_run_on_without_a_controller_are_adopted(tmp_path: Path, start: Start) -> None:
    overrides = (*SLOW, "frames=12000", "algo.lr=1e-2,1e-3", "seed=0,1")
    process = start("-m", *overrides, *SLURM, *TWO, f"hydra.sweep.dir={tmp_path}")
    wait_for(lambda: len(saved(tmp_path)) == 2, process)
    process.kill()
    process.communicate()
    assert len(saved(tmp_path)) == 2, "what runs goes on"
    before = tasks(tmp_path)
    assert len(before) == 4
    done = lab("resume", str(tmp_path), timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_completed_once(tmp_path, 4)
    assert tasks(tmp_path) == before, "nothing is submitted again"
    assert sorted(runs(tmp_path)) == [(task, "COMPLETED") for task in before]
    assert resumed(tmp_path) == []
    assert (tmp_path / "report.html").exists()


@pytest.mark.law
def test_law_3_ctrl_c_saves_what_runs_and_calls_off_what_waits(tmp_path: Path, start: Start) -> None:
    overrides = (*SLOW, "frames=12000", "algo.lr=1e-2,1e-3", "seed=0,1")
    folder = tmp_path / AWKWARD
    process = start("-m", *overrides, *SLURM, *TWO, f"hydra.sweep.dir={quote(str(folder))}")
    wait_for(lambda: len(saved(folder)) == 2, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output + errors
    assert queued() == []
    assert states(folder) == ["interrupted"] * 2
    at = {session.path: session.read_status()["frame"] for session in find_sessions(folder)}
    assert all(0 < frame < 12000 for frame in at.values())
    assert len(runs(folder)) == 2
    done = lab("resume", str(folder), "hydra.launcher.array_parallelism=4", "parallel=4", timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_completed_once(folder, 4)
    assert sorted(resumed(folder)) == sorted(at.values())
    assert len(tasks(folder)) == 8
    alone = train(tmp_path / "alone", *overrides[:-2], "algo.lr=1e-2", "seed=0")[0]
    assert result(SweepDir(folder).trial(0).session(0)) == result(alone)


def test_a_second_ctrl_c_cancels_what_runs(tmp_path: Path, start: Start) -> None:
    hangs = ("env.id=tests.envs:Fated-v0", "+env.kwargs.fate=hangs", "env.restore=pickle", "algo.horizon=400")
    process = start("-m", *SLOW, *hangs, "frames=4000", "seed=0,1", *SLURM, f"hydra.sweep.dir={tmp_path}")
    assert process.stdout
    wait_for(lambda: states(tmp_path) == ["running"] * 2, process)
    process.send_signal(signal.SIGINT)
    assert any("Press Ctrl-C again to kill them" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert f"Stopped at once. To continue: python -m lab resume {tmp_path}" in errors
    wait_for(lambda: queued() == [])
    wait_for(lambda: states(tmp_path) == ["interrupted"] * 2)


def test_many_short_sessions_are_packed_into_few_tasks(tmp_path: Path) -> None:
    rates = ",".join(f"{number}e-3" for number in range(1, 11))
    small = ("algo=a2c", "env=cartpole", "frames=500", "log.every=250", "eval.every=0", "log.tensorboard=false")
    overrides = (*small, f"algo.lr={rates}", "seed=range(20)", "stack=20")
    done = lab("-m", *overrides, *SLURM, f"hydra.sweep.dir={tmp_path}", timeout=2 * SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_completed_once(tmp_path, 200)
    assert len(tasks(tmp_path)) == 10
    assert len(arrays(tmp_path)) == 1
    assert sorted(runs(tmp_path)) == [(task, "COMPLETED") for task in tasks(tmp_path)]
    alone = train(tmp_path / "alone", *small, "algo.lr=0.007", "seed=13", "checkpoint.every=20000")[0]
    assert result(SweepDir(tmp_path).trial(6).session(13)) == result(alone)


def test_detached_tasks_run_the_code_of_their_submission(tmp_path: Path) -> None:
    there, folder = clone(tmp_path / "clone"), tmp_path / "sweep"
    overrides = (*SLOW, "frames=3000", "algo.lr=1e-2,1e-3", "hydra.launcher.additional_parameters={begin:now+3600}")
    done = lab("-m", *overrides, *SLURM, "detach=true", f"hydra.sweep.dir={folder}", **there)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The sweep goes on in" in done.stdout
    assert not find_sessions(folder)
    assert len(queued("--states=PENDING")) == 2, "it does not wait for them"
    broken = tmp_path / "clone" / "lab" / "training" / "stack.py"
    code = broken.read_text()
    broken.write_text("raise RuntimeError('edited after submission')\n")
    shown = lab("status", str(folder), **there)
    assert shown.returncode == 0, shown.stderr
    assert "2 Sessions planned" in shown.stdout
    slurm("scontrol", "update", f"jobid={','.join(arrays(folder))}", "starttime=now")
    wait_for(lambda: states(folder) == ["completed"] * 2)
    wait_for(lambda: queued() == [])
    broken.write_text(code)
    done = lab("resume", str(folder), **there)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_completed_once(folder, 2)
    assert len(tasks(folder)) == 2
    assert (folder / "report.html").exists() and (folder / "experiment.json").exists()
