"""The command line that tests fork ends as one that is started, and draws numbers of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import lab

PROGRAM = """
import sys, threading, time
import numpy as np

def late():
    time.sleep(0.05)
    print("late")

if "late" in sys.argv:
    threading.Thread(target=late).start()
print(np.random.random())
sys.exit({"text": "it broke", "late": None, "code": 3}[sys.argv[1]])
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Put a program in the place of Lab."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").touch()
    (tmp_path / "lab" / "__main__.py").write_text(PROGRAM)
    return tmp_path


def test_it_ends_as_a_program_that_is_started(program: Path) -> None:
    text, late, code = (lab(how, cwd=program, env={"PYTHONPATH": ""}) for how in ("text", "late", "code"))
    assert (text.returncode, text.stderr) == (1, "it broke\n")
    assert (late.returncode, late.stdout.splitlines()[1:]) == (0, ["late"])
    assert code.returncode == 3
    assert len({done.stdout.splitlines()[0] for done in (text, late, code)}) == 3, (
        "a global generator is never the same"
    )
