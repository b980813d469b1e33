"""A user's own algorithm and environment, in a package and a config directory of their own, as the how-to has them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.run.directory import RunDir
from lab.run.files import read_json
from tests.examples import read_page
from tests.helpers import ROOT, lab, result

BLOCKS, _ = read_page(ROOT / "docs" / "tutorials" / "your-own.md")
FILES = {block.file: block.text for block in BLOCKS if block.file}
COMMANDS = [shlex.split(command)[3:] for block in BLOCKS if block.kind == "console" for command, _ in block.commands()]


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    """Write the files of the guide, and return what lets `lab` run beside them."""
    folder = tmp_path / "a user's place"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {"cwd": folder, "env": {"PYTHONPATH": str(ROOT)}}


def test_the_tutorial_shows_one_of_each() -> None:
    assert sorted(FILES) == [
        "my_conf/algo/my_algo.yaml", "my_conf/env/my_env.yaml", "my_package/__init__.py", "my_package/signed.py",
        "my_package/wide.py",
    ]  # fmt: skip
    assert all("--config-dir" in overrides for overrides in COMMANDS[:2])


def test_a_session_learns_what_the_readme_says(place: dict[str, Any]) -> None:
    done = lab(*COMMANDS[0], "hydra.run.dir=one", **place)
    assert done.returncode == 0, done.stderr
    directory = RunDir(place["cwd"] / "one")
    assert float(read_json(directory.results)["return"]) == pytest.approx(18.5, abs=0.7), "as the guide says"
    assert re.search(r"lab enjoy .*/one' code=here$", done.stdout, re.MULTILINE), "as the next step"
    refused = lab("enjoy", "one", "episodes=2", **place)
    assert "my_package is not installed, but lies in" in refused.stderr and "code=here" in refused.stderr
    played = lab("enjoy", "one", "episodes=2", "code=here", **place)
    assert played.returncode == 0, played.stderr


@pytest.mark.law
@pytest.mark.slow
def test_a_session_is_the_same_when_run_again(place: dict[str, Any]) -> None:
    assert lab(*COMMANDS[0], "frames=4000", "hydra.run.dir=one", **place).returncode == 0
    again = lab("rerun", "one", "out=again", **place)
    assert "1 of 1 Session is the same to the last bit" in again.stdout, again.stdout + again.stderr


@pytest.mark.law
@pytest.mark.slow
def test_a_sweep_reaches_its_processes(place: dict[str, Any]) -> None:
    done = lab(*COMMANDS[1], "hydra.sweep.dir=sweep", **place)
    assert done.returncode == 0, done.stdout + done.stderr
    directories = [RunDir(place["cwd"] / "sweep" / f"trial-00{t}" / f"seed-{s}") for t in (0, 1) for s in (0, 1)]
    assert [directory.read_status()["state"] for directory in directories] == ["completed"] * 4
    alone = lab(*(COMMANDS[0]), "frames=10_000", "seed=1", "algo.least=0.0", "hydra.run.dir=alone", **place)
    assert alone.returncode == 0, alone.stderr
    assert result(RunDir(place["cwd"] / "alone")) == result(directories[1])


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True], ids=["session", "sweep"])
def test_what_was_interrupted_is_resumed(place: dict[str, Any], sweep: bool) -> None:
    overrides = [*COMMANDS[sweep], "frames=20_000", "hydra.run.dir=out", "hydra.sweep.dir=out"]
    environment = {"env": {**os.environ, **place["env"]}, "cwd": place["cwd"]}
    process = subprocess.Popen([sys.executable, "-m", "lab", *overrides], **environment, stdout=subprocess.DEVNULL)
    out = place["cwd"] / "out"
    deadline = time.monotonic() + 60
    while not any(out.rglob("episodes.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    done = lab("resume", "out", **place)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [path.parent for path in out.rglob("episodes.csv")]
    assert len(folders) == (4 if sweep else 1)
    for folder in folders:
        assert RunDir(folder).read_status()["state"] == "completed"
    assert any(read_json(RunDir(folder).provenance).get("resumed") for folder in folders)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("algo.leest=1", "algo.leest cannot be set: algo has no key 'leest'. Did you mean 'least'?"),
        ("algo.least=-1", "algo.least=-1 is not allowed: algo.least must be a number, 0 or more."),
        ("algo=my_alg", "algo=my_alg does not exist. Did you mean 'my_algo'?"),
    ],
)
def test_mistakes_are_told_in_a_sentence(place: dict[str, Any], mistake: str, sentence: str) -> None:
    done = lab(*COMMANDS[0], mistake, **place)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
