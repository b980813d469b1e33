"""Fixtures of the tests on a SLURM cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers import ROOT, start_lab
from tests.slurm.helpers import NAME, Start, slurm

SCRIPT = "tests/slurm/cluster.py"


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """Skip all tests here without a cluster that works."""
    asked = subprocess.run(
        [sys.executable, str(ROOT / SCRIPT), "status"], capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode:
        problem = " ".join((asked.stdout + asked.stderr).split()).partition(" s ")[2] or asked.stderr.strip()
        pytest.skip(f"no SLURM cluster: {problem} To start one: sudo python3 {SCRIPT} up")


@pytest.fixture(autouse=True)
def calls_off(cluster: None) -> Iterator[None]:
    """Leave no job behind, whatever came of a test."""
    yield
    slurm("scancel", f"--name={NAME}")


@pytest.fixture
def start() -> Iterator[Start]:
    """Give `start_lab`, and leave none of its processes behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*overrides: str) -> subprocess.Popen[str]:
        started.append(start_lab(*overrides))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
