"""The code that a result came from, brought back beside the checkout: its commit, and what was not committed."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import provenance
from lab.errors import LabError
from lab.launch.frozen import Frozen
from lab.run_dir import RunDir, read_json

HERE = "; code=here runs it with the code as it is now"


@dataclass(frozen=True)
class Code:
    """What code a Session was trained with.

    Attributes:
        sha: its commit; empty if there was none yet, so that the patch holds all of it.
        patch: what was not committed, for `git apply`; empty if nothing.
        within: the working directory, as a path in the checkout; null if it was outside.
    """

    sha: str
    patch: bytes
    within: str | None

    def __str__(self) -> str:
        commit = f"commit {self.sha[:12]}" if self.sha else "no commit"
        return f"{commit} and what was not committed" if self.patch else commit


def read_code(directory: RunDir) -> Code:
    """Read what code a Session was trained with.

    Raises:
        LabError: it is not known, or not whole.
    """
    git = read_json(directory.provenance)["git"]
    patch = directory.patch.read_bytes() if directory.patch.exists() else b""
    if git["uncommitted"] is None:
        raise LabError(f"The code of {directory.path} is not known: {git['note']}{HERE}.")
    if git["uncommitted"] and not patch:
        raise LabError(
            f"{directory.patch} is missing: with it went what was not committed to {_short(git['sha'])}{HERE}."
        )
    return Code(git["sha"] or "", patch, git.get("within"))


def left_out(directory: RunDir) -> list[str]:
    """Return the untracked files that were too large to be stored."""
    return list(read_json(directory.provenance)["git"]["left_out"])


def other_code(directory: RunDir) -> list[dict[str, Any]]:
    """Return each time that a Session was resumed with other code than it was begun with."""
    facts = read_json(directory.provenance)
    keys = ("sha", "uncommitted")
    return [
        entry
        for number, entry in enumerate(facts.get("resumed", []), 1)
        if any(entry["git"][key] != facts["git"][key] for key in keys)
        or (directory.path / f"uncommitted-{number}.patch").exists()
    ]


def code_here() -> Frozen:
    """Return the code as it is now."""
    root = provenance.package().parent
    return Frozen(root, root, root, complete=True)


@contextmanager
def restored(code: Code) -> Iterator[Frozen]:
    """Bring code back as a git worktree in a temporary folder, which goes when this ends.

    Raises:
        LabError: the commit is not here, or the patch does not apply to it.
    """
    checkout = provenance.checkout()
    if checkout is None:
        raise LabError(
            f"{code} cannot be brought back, as lab is not run from a git checkout: run it from a clone{HERE}."
        )
    if code.sha and not _git(checkout, "cat-file", "-e", f"{code.sha}^{{commit}}", check=False):
        raise LabError(f"Commit {code.sha} is not in {checkout}: get it, as with `git fetch origin {code.sha}`{HERE}.")
    with tempfile.TemporaryDirectory(prefix="lab-rerun-") as folder:
        path = Path(folder).resolve() / "code"
        if code.sha:
            # No hooks of the checkout: what they would do is no part of the commit.
            _git(
                checkout,
                "-c",
                "core.hooksPath=/dev/null",
                "worktree",
                "add",
                "--quiet",
                "--detach",
                str(path),
                code.sha,
            )
        else:
            path.mkdir()
            _git(path, "init", "--quiet")
        try:
            if code.patch:
                _apply(path, code)
            yield Frozen(path, checkout, path / _beside(checkout, path, code), complete=True)
        finally:
            if code.sha:
                _git(checkout, "worktree", "remove", "--force", "--force", str(path), check=False)


def _apply(path: Path, code: Code) -> None:
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"],
        cwd=path,
        input=code.patch,
        capture_output=True,
        check=False,
        env=provenance.without_git(),
    )
    if done.returncode:
        why = (done.stderr.decode(errors="replace").strip().splitlines() or ["git does not say why"])[0]
        raise LabError(
            f"What was not committed cannot be brought back: uncommitted.patch does not apply to {_short(code.sha)}"
            f" ({why.removeprefix('error: ')}){HERE}."
        )


def _beside(checkout: Path, path: Path, code: Code) -> Path:
    """Return the folder in a worktree that holds this package; the worktree itself if it is installed elsewhere."""
    if provenance.checkout_of_package() is None:
        return Path()
    beside = provenance.package().parent.relative_to(checkout.resolve())
    if not (path / beside / "lab" / "__init__.py").exists():
        raise LabError(f"{code} has no {beside / 'lab'}, so there is nothing to run{HERE}.")
    return beside


def _git(folder: Path, *words: str, check: bool = True) -> bool:
    """Run git, and say whether it succeeded.

    Raises:
        LabError: it is to succeed, and did not.
    """
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, check=False, env=provenance.without_git())
    if done.returncode and check:
        raise LabError(f"`git {' '.join(words)}` failed in {folder}: {done.stderr.decode(errors='replace').strip()}.")
    return done.returncode == 0


def _short(sha: str | None) -> str:
    return f"commit {sha[:12]}" if sha else "an empty checkout"
