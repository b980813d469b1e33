"""Output that nobody reads any more costs no result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lab.run.directory import RunDir
from tests.helpers import ROOT

CODE = """
import sys
from lab.common.output import keep_going
keep_going()
from rich.console import Console
for number in range(3):
    print(number, flush=True)
    Console().print("rich")
sys.stdout.flush()
sys.stderr.write(f"lost {sys.stdout.lost}")
"""


def read_nothing(first: str, *command: str) -> tuple[int, str]:
    """Run a command whose output is read up to a line with some text; return its exit code and its errors."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout and process.stderr
        if first:
            assert first in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        return process.wait(60), errors


def test_output_to_a_closed_pipe_is_dropped() -> None:
    assert read_nothing("", "-c", CODE) == (0, "lost True")


def test_a_session_continues_without_readers_of_its_output(tmp_path: Path) -> None:
    overrides = ("frames=3000", "log.every=200", "eval.every=0", "log.tensorboard=false", f"hydra.run.dir={tmp_path}")
    assert read_nothing("3,000 frames", "-m", "lab", *overrides) == (0, "")
    assert RunDir(tmp_path).read_status()["state"] == "completed"
