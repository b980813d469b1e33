"""Output that nobody reads any more costs no result."""

from __future__ import annotations

import io
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from lab.common.output import columns, wrap
from lab.common.terminal import UNCUT, Terminal
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


@pytest.mark.parametrize(
    "kept",
    [
        "`python -m lab resume outputs/a b c`",
        "'outputs/a directory with spaces'",
        "algo={name: ppo, lr: 1e-3, gamma: 0.9}",
        "env.id='A name'",
    ],
)
def test_what_is_copied_stays_on_one_line(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    lines = wrap(f"Error: the user's file is damaged, so that {kept} does not find the runs' figures.", None).split(
        "\n"
    )
    assert any(kept in line for line in lines)
    assert all(len(line) <= 30 or line == kept for line in lines) and len(lines) > 3


def test_a_command_at_the_end_stays_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    command = "python -m lab report 'outputs/one two' out=three"
    text = f"Interrupted while it was drawing; draw it again with: {command}"
    assert wrap(text, None).split("\n")[-1] == command
    Terminal(soft_wrap=True, width=UNCUT).print(text)
    assert capsys.readouterr().out.split("\n")[-2] == command


@pytest.mark.parametrize(("given", "width"), [("44", 44), ("³", 70), ("0", 70), ("-5", 70), ("", 70)])
def test_the_width_is_that_of_the_stream_itself(given: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", given)
    end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 70))
    with open(terminal, "w") as stream, open(end):  # noqa: PTH123
        assert columns(stream) == width
    monkeypatch.delenv("COLUMNS")
    assert columns(io.StringIO()) is None and columns(stream) is None, "no terminal, and a closed one"


def test_output_to_a_closed_pipe_is_dropped() -> None:
    assert read_nothing("", "-c", CODE) == (0, "lost True")


def test_a_session_continues_without_readers_of_its_output(tmp_path: Path) -> None:
    overrides = ("frames=3000", "log.every=200", "eval.every=0", "log.tensorboard=false", f"hydra.run.dir={tmp_path}")
    assert read_nothing("3,000 frames", "-m", "lab", *overrides) == (0, "")
    assert RunDir(tmp_path).read_status()["state"] == "completed"
