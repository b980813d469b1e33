"""Checkouts and packages for the tests of code snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.run.code import packages, snapshot
from lab.run.code.packages import UserPackage
from tests.helpers import git


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def commit_files(root: Path, files: dict[str, str]) -> str:
    """Write files and commit all that is in a folder, a new repository if it is none; return the SHA."""
    write(root, files)
    git(root, "init", "-q", "-b", "trunk")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "files")
    return git(root, "rev-parse", "HEAD")


def use_packages(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let packages and modules at these paths seem to be imported, and no others of the user's own."""
    sources = {path: tuple(sorted(path.rglob("*.py"))) if path.is_dir() else (path,) for path in paths}
    imported = [UserPackage(path.stem, path, path.parent, files) for path, files in sources.items()]
    monkeypatch.setattr(snapshot, "user_packages", lambda: imported)


def use_lab_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package seem to run from another place, without packages of the user's own."""
    monkeypatch.setattr(packages, "__file__", str(root / "lab" / "run" / "code" / "packages.py"))
    monkeypatch.chdir(root)
    use_packages(monkeypatch)
