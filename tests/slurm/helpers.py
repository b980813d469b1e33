"""What the tests on a SLURM cluster need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

NAME = f"lab-test-{os.getpid()}"  # of all jobs of these tests

Start = Callable[..., subprocess.Popen[str]]


def slurm(*command: str) -> str:
    """Give a command to SLURM, and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
