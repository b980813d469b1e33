"""What several tests need."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lab.env.vector import probe
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.provenance import Provenance, collect
from lab.run.tensor_files import read as read_checkpoint
from lab.session import train as train_stack
from lab.spec import Spec, read
from tests.fork_server import ForkServer

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
ALGORITHMS = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))
ENVIRONMENTS = sorted(path.stem for path in (CONF / "env").glob("*.yaml") if "\nid: ???" not in path.read_text())
ATARI = sorted(path.stem for path in (CONF / "env").glob("*.yaml") if "\nid: ALE/" in path.read_text())
OTHER_ATARI = [env for env in ATARI if env != "pong"]  # games that differ in little for tests of other things
# What kinds of actions an algorithm serves, where it does not serve all, and which an environment has.
CHOICE, CHOICES, BOX = "one choice", "several choices", "numbers"
SERVED = {
    "crossq": (CHOICE, BOX),
    "ddqn_per": (CHOICE,),
    "dqn": (CHOICE,),
    "pqn": (CHOICE,),
    "rainbow": (CHOICE,),
    "sac": (CHOICE, BOX),
    "sarsa": (CHOICE,),
    "td3": (BOX,),
}
MUJOCO = sorted(
    path.stem for path in (CONF / "env").glob("*.yaml") if re.search(r"^id: \w+-v5$", path.read_text(), re.M)
)
CONTINUOUS = ["pendulum", "mountaincar_continuous", "lunarlander_continuous", "bipedalwalker", *MUJOCO]
KINDS = dict.fromkeys(CONTINUOUS, BOX)
QUIET = ("log.tensorboard=false", "log.every=500", "eval.every=1000", "eval.episodes=3", "checkpoint.every=1000")

FORK_SERVERS: list[ForkServer] = []  # of this process, the last of which may be running

Interruption = tuple[Any, str, int, Callable[[], None]]  # at a call, counted from 1, of a method something happens


def serves(algo: str, env: str, kind: str | None = None) -> bool:
    """Say whether an algorithm serves an environment of conf/env/, or a kind of actions."""
    if env in ATARI and algo in ("crossq", "pqn"):  # whose normalization convolutions do not have
        return False
    return (kind or KINDS.get(env, CHOICE)) in SERVED.get(algo, (CHOICE, CHOICES, BOX))


def specs(*overrides: str) -> list[Spec]:
    """Compose a config as the command line does."""
    return copy.deepcopy(composed(overrides))


@functools.cache
def composed(overrides: tuple[str, ...]) -> list[Spec]:
    """Compose a config, of which the tests of an algorithm ask for the same ones again and again."""
    with initialize_config_dir(str(CONF)):
        return read(compose("config", [*overrides]))


def train(folder: Path, *overrides: str) -> list[RunDir]:
    """Train a stack in this process, a directory for each seed, and return them."""
    made = specs(*QUIET, *overrides)
    return train_specs(folder, made)


def train_specs(folder: Path, made: list[Spec]) -> list[RunDir]:
    """Train specs as one stack in this process."""
    directories, code = [RunDir(folder / f"{index}-seed-{spec.seed}") for index, spec in enumerate(made)], same_code()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.run.provenance.CodeSnapshot.take", lambda *arguments: code)
        train_stack(made, directories, probe(made[0].env), show=False)
    return directories


def result(directory: RunDir) -> dict[str, str]:
    """Return what law 1 speaks of: a digest of episodes.csv, metrics.csv and the final weights."""
    tables = {"episodes": directory.episodes.read_text(), "metrics": directory.metrics.read_text()}
    return {**tables, "weights": weights(directory, "last")}


def weights(directory: RunDir, which: str) -> str:
    """Return a digest of the parameters in a checkpoint."""
    parameters = read_checkpoint(directory.checkpoint(which))["parameters"]
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in parameters.values())).hexdigest()


def go_on(made: list[Spec], directories: list[RunDir], interruption: Interruption | None = None) -> list[str]:
    """Begin specs in this process, or go on with them, until an interruption; return how the Sessions ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.session.collect", lambda *arguments: same_provenance())
        if interruption:
            where, name, number, happen = interruption
            original, calls = getattr(where, name), []

            def interrupted(*arguments: Any, **options: Any) -> Any:
                calls.append(1)
                if len(calls) == number:
                    happen()
                return original(*arguments, **options)

            patch.setattr(where, name, interrupted)
        records = train_stack(made, directories, probe(made[0].env), show=False)
    return [record.state for record in records]


@functools.cache
def same_code() -> CodeSnapshot:
    """Return the code of this process, which takes longer to read than a short Session to train."""
    return CodeSnapshot.take(ROOT / "outputs")


@functools.cache
def same_provenance() -> Provenance:
    """Return where results of this process come from."""
    return collect(["none"], "cpu", 1, [0], ROOT)


def lab(
    *overrides: str, timeout: float = 120, cwd: Path = ROOT, env: dict[str, str] | None = None, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line; `fresh` where it matters that its process has imported nothing."""
    environment = {**os.environ, **(env or {})}
    if not fresh:
        if not FORK_SERVERS or FORK_SERVERS[-1].ended:
            FORK_SERVERS.append(ForkServer())
        return FORK_SERVERS[-1].run([*overrides], cwd, environment, timeout)
    command = [sys.executable, "-m", "lab", *overrides]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False, env=environment
    )


RUN_EACH = """
import contextlib, io, json, sys
from lab.__main__ import run
for line in sys.stdin:
    sys.argv, out, err = ["lab", *json.loads(line)], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run()
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def run_each(cwd: Path, *commands: Sequence[str]) -> list[tuple[int, str, str]]:
    """Run command lines one after the other in one process, which imports once; return status, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_EACH],
        input="\n".join(map(json.dumps, commands)),
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def occupy(folder: Path, seconds: int = 120) -> list[Path]:
    """Make the directories that runs started in the next seconds would get, as if other runs had them."""
    now = datetime.now()
    taken = [folder / f"{now + timedelta(seconds=later):%Y-%m-%d/%H-%M-%S}" for later in range(seconds)]
    for path in taken:
        path.mkdir(parents=True)
        (path / ".lock").touch()
    return taken


def start_lab(*overrides: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """Start the command line in a session of its own, so that a signal reaches this process alone."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "lab", *overrides]
    return subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for(holds: Callable[[], Any], process: subprocess.Popen[str] | None = None, seconds: float = 90.0) -> None:
    """Wait until something holds, while a process runs."""
    patience = time.monotonic() + seconds
    while not holds():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < patience, "it took too long"
        time.sleep(0.05)


def clone(folder: Path) -> dict[str, Any]:
    """Clone the project in its current state and commit it; return what lets `lab` run there and from its code."""
    git(ROOT, "clone", "--quiet", str(ROOT), str(folder))
    for part in ("lab", "conf", "tests"):
        shutil.rmtree(folder / part)
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "now")
    return {"cwd": folder, "env": {"PYTHONPATH": str(folder)}}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as somebody, and return what it prints."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()
