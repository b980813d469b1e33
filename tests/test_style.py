"""The code keeps to its own rules."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

MODULES = sorted((ROOT / "lab").rglob("*.py"))
BORDER = ("__main__.py", "spec.py", "interpolation.py", "launch")  # what may know of Hydra and OmegaConf
ORDER = ("env", "memory", "net", "algo")  # a room may import those before it and itself


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_linters(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT / "lab").parts[0]
    names = imported(path)
    if room not in BORDER:
        assert not {name for name in names if name.split(".")[0] in ("hydra", "omegaconf")}
    ours = {name.split(".")[1] for name in names if name.startswith("lab.")}
    if room == "analysis":
        assert ours <= {"analysis", "run_dir", "levels", "files", "shapes", "errors", "plain"}
    if room in ("env", "memory", "net", "algo"):
        above = {"session", "collect", "agent", "record", "display", "command", "launch", "analysis", "spec"}
        assert not ours & above
    if room in ORDER[:3]:
        assert not ours & set(ORDER) - {room}
    if room not in ("__main__.py", "command", "launch"):
        assert not ours & {"command", "launch"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_printed_is_made_visible(path: Path) -> None:
    """Names and errors may be a stranger's: print takes constants or `visible(...)`, and rich is a Terminal."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        text, name = ast.unparse(call), ast.unparse(call.func)
        assert name != "Console" and not name.endswith((".stdout.write", ".stderr.write")), text
        assert name != "TextColumn" or "markup=False" in text, text
        if name == "print":
            shown = [ast.unparse(each) for each in call.args if not isinstance(each, ast.Constant)]
            assert all(each.startswith("visible(") or each == "USAGE" for each in shown), text
