"""Jobs on this machine: what is killed or hangs costs itself alone, and nothing is left running."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from lab.common.text import quote
from lab.errors import LabError
from lab.launch.local import LocalLauncher
from lab.run.directory import RunDir, SweepDir
from lab.run.files import read_json
from tests.helpers import lab

FATED = (
    "-m", "algo=a2c", "env=gymnasium", "env.id=tests.envs:Fated-v0", "name=fated", "env.num_envs=2", "frames=2000",
    "algo.horizon=16", "log.every=500", "log.tensorboard=false", "eval.every=0", "hydra.launcher.slots=2",
)  # fmt: skip
MARK = "LAB_TEST_MARK"


def processes(mark: str) -> list[str]:
    """Return the command lines of the processes that have a mark in their environment."""
    commands = []
    for folder in Path("/proc").iterdir():
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                commands.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return commands


@pytest.mark.slow
@pytest.mark.law
def test_law_4_of_eight_sessions_in_two_slots_one_is_killed_and_one_hangs(tmp_path: Path) -> None:
    # The environments are processes of their own, which are to go when the one that trains is killed.
    fates = "+env.kwargs.fate=0,1,2,killed,4,5,hangs,7"
    overrides = ("env.vectorization_mode=async", "env.restore=pickle", fates, "hung_after=0.1")
    mark = uuid.uuid4().hex
    done = lab(*FATED, *overrides, f"hydra.sweep.dir={tmp_path}", env={MARK: mark}, timeout=240, fresh=True)
    assert done.returncode == 1, done.stderr
    assert processes(mark) == [], "nothing is left running"
    states = [RunDir(trial.session(0).path).read_status() for trial in SweepDir(tmp_path).trials()]
    assert [number for number, one in enumerate(states) if one["state"] == "failed"] == [3, 6]
    assert [one["state"] for one in states].count("completed") == 6
    assert "killed by SIGKILL" in states[3]["error"]
    assert "No step for 0.1 minutes" in states[6]["error"]
    assert "trial-006 seed 0: No step for 0.1 minutes" in done.stdout


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"slots": "abc"}, "hydra.launcher.slots=abc is not allowed: hydra.launcher.slots must be a whole number"),
        ({"per_gpu": 1.5}, "hydra.launcher.per_gpu=1.5 is not allowed"),
        ({"gpu_memory": 0}, "hydra.launcher.gpu_memory=0 is not allowed"),
        ({"slot": 2}, r"hydra.launcher has no key 'slot'\. Did you mean 'slots'\?"),
    ],
)
def test_law_6_options_that_cannot_work_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        LocalLauncher(**changed)


@pytest.mark.slow
def test_simulated_gpus_are_leased_evenly(tmp_path: Path) -> None:
    overrides = (
        "device=auto",
        "hydra.launcher.slots=4",
        "seed=0,1,2,3,4,5,6,7",
        "stack=1",
        "frames=300",
        "env.restore=pickle",
    )
    environment = {"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}
    done = lab(*FATED, *overrides, f"hydra.sweep.dir={tmp_path}", env=environment)
    assert done.returncode == 0, done.stderr
    facts = [read_json(RunDir(tmp_path / f"seed-{seed}").provenance) for seed in range(6)]
    counts = Counter(one["visible_gpus"] for one in facts)
    assert set(counts) == {"GPU-a", "GPU-b"}
    assert min(counts.values()) >= 2


@pytest.mark.slow
def test_launching_a_job_takes_less_than_importing_torch(tmp_path: Path) -> None:
    overrides = ("seed=0,1,2,3,4,5,6,7", "stack=1", "hydra.launcher.slots=1", "frames=32", "env.restore=pickle")
    done = lab(*FATED, *overrides, f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    files = [[folder / name for name in ("spec.yaml", "session.png")] for folder in sorted(tmp_path.glob("seed-*"))]
    times = [[path.stat().st_mtime for path in pair] for pair in files]
    between = [after[0] - before[1] for before, after in itertools.pairwise(times)]  # from an end to the next frame
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    assert median(between) < time.monotonic() - start


@pytest.mark.slow
def test_a_directory_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "directory", [of] {all} = é'
    done = lab(*FATED, "seed=0,1", "frames=300", f"hydra.sweep.dir={quote(str(folder))}")
    assert done.returncode == 0, done.stderr
    for command in ("status", "report", "resume"):
        assert lab(command, str(folder)).returncode == 0
    assert read_json(folder / "trial.json")["seeds"] == [0, 1]
