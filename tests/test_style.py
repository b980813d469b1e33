"""The code keeps to its own rules."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

MODULES = sorted((ROOT / "lab").rglob("*.py"))


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["codespell_lib"]]
)
def test_linters(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_point_one_way() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
