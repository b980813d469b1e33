"""Copies of code that other processes run from: made at submission, or brought back from an earlier state."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.run.code.git import GitError, run_git, succeeds
from lab.run.code.repository import Repository

HERE = "; code=here runs it with the current code"


@dataclass(frozen=True)
class Tree:
    """A copy of a folder of code.

    Attributes:
        path: where the copy is.
        origins: the folders that it stands for: a checkout, or a folder that holds packages.
        complete: whether it holds all code of a checkout, and not only packages.
        roots: the folders in it that modules are imported from.
    """

    path: Path
    origins: tuple[Path, ...]
    complete: bool
    roots: tuple[Path, ...]

    def translate(self, path: str) -> str | None:
        """Return where a path is in the copy; None if it is not there."""
        for name in map(Path, (os.path.abspath(path), os.path.realpath(path))):  # noqa: PTH100 - links are copied too
            for origin in self.origins:
                if name.is_relative_to(origin) and (self.complete or name != origin):
                    copied = self.path / name.relative_to(origin)
                    if copied.exists():
                        return str(copied)
        return None


@dataclass(frozen=True)
class CodeCopy:
    """A copy of the code of a process; the first tree holds lab, in its first import folder."""

    trees: tuple[Tree, ...]

    @property
    def path(self) -> Path:
        """Where the copy of lab's checkout is."""
        return self.trees[0].path

    def env(self, cwd: str | None = None) -> dict[str, str]:
        """Return the environment in which `python -m MODULE` imports from the copy.

        Args:
            cwd: where it is started; None for here.

        Raises:
            LabError: PYTHONPATH cannot hold a path.
        """
        cwd, paths = cwd or str(Path.cwd()), [str(root) for tree in self.trees for root in tree.roots]
        if self.translate(cwd) != cwd:
            paths.insert(0, self.translate(cwd))
        elif not sys.flags.safe_path:  # Python itself would put it before the copy
            paths.append(cwd)
        for path in paths:
            require_listable(path)
        for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
            paths += [self.translate(path), path]
        return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}

    def translate(self, path: str) -> str:
        """Return where a path is in the copy, or the path itself if it is not there."""
        # The innermost tree counts: a checkout may lie in another.
        trees = sorted(self.trees, key=lambda tree: max(len(origin.parts) for origin in tree.origins), reverse=True)
        return next((copied for tree in trees if (copied := tree.translate(path)) is not None), path)


def require_listable(path: str) -> None:
    """Raise LabError if PYTHONPATH cannot hold a path."""
    if os.pathsep in path:
        raise LabError(
            f"{path} has a {os.pathsep!r} in it, with which PYTHONPATH separates paths, so jobs could not import from"
            " there: choose another directory."
        )


def copy_files(root: Path, names: Iterable[str], target: Path) -> None:
    """Copy files of a folder; links to what is copied lead to the copy, others to where they led."""
    sources = {root / name for name in names}
    for source in sources:
        if source.parent.resolve() != source.parent:  # below a link that replaced a folder
            continue
        copied = target / source.relative_to(root)
        with suppress(FileNotFoundError, PermissionError):  # jobs could not read it either
            copied.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                goal = Path(os.path.normpath(source.parent / source.readlink()))
                inside = any(other == goal or goal in other.parents for other in sources)
                copied.symlink_to(os.path.relpath(goal, source.parent) if inside else goal)
            elif source.is_file():
                shutil.copy(source, copied)


def link_files(root: Path, names: Iterable[str], target: Path) -> None:
    """Put links to files of a folder where their copies would be; names that end with a slash are no files."""
    for name in names:
        source, link = root / name, target / name
        if not name.endswith("/") and source.is_file() and source.parent.resolve() == source.parent:
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(source)


def make_private(folder: Path) -> None:
    """Forbid others to read what is below a folder."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() or path.stat().st_mode & 0o100 else 0o600)


@contextmanager
def check_out(repository: Repository, checkout: Path | None, there: Path) -> Iterator[None]:
    """Check a commit out as a worktree and apply its patch; remove the worktree at the end."""
    sha, name = repository.sha, str(repository)
    if sha and checkout is None:
        raise LabError(f"{name} cannot be restored: {repository.path} is no checkout of it{HERE}.")
    if sha and checkout and not succeeds(checkout, "cat-file", "-e", f"{sha}^{{commit}}"):
        raise LabError(f"Commit {sha} is not in {checkout}: get it, as with `git fetch origin {sha}`{HERE}.")
    try:
        if sha and checkout:
            # Hooks of the checkout are not part of the commit.
            options = ("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--force", "--detach")
            run_git(checkout, *options, str(there), sha)
        else:
            there.mkdir(parents=True)
            run_git(there, "init", "--quiet")
        if repository.patch:
            try:
                run_git(there, "apply", "--whitespace=nowarn", "-", stdin=repository.patch)
            except GitError as error:
                raise LabError(
                    f"What was not committed cannot be restored: the patch does not apply to {name} ({error}){HERE}."
                ) from error
        yield
    except GitError as error:
        raise LabError(f"{name} cannot be restored: {error}{HERE}.") from error
    finally:
        if sha and checkout:
            succeeds(checkout, "worktree", "remove", "--force", "--force", str(there))
