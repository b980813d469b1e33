"""The code at submission: a copy that jobs run from, so that edits while they are queued do not leak in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.run.code.digest import FROZEN, is_frozen, package
from lab.run.code.repository import Repository
from lab.run.code.snapshot import CodeSnapshot, read_frozen, take

OTHERS = ".repositories"  # the folder in a copy for the repositories of the user's own modules


@dataclass(frozen=True)
class Tree:
    """A copy of a folder of code.

    Attributes:
        path: where it is.
        root: what it is a copy of: a checkout, or the folder that holds packages.
        complete: whether all code of a checkout is in it, and not packages alone.
        roots: the folders in it that modules are imported from.
    """

    path: Path
    root: Path
    complete: bool
    roots: tuple[Path, ...]

    def moved(self, path: str) -> str | None:
        """Return where in the copy a path is; null if the copy has no such thing."""
        for name in map(Path, (os.path.abspath(path), os.path.realpath(path))):  # noqa: PTH100 - links are copied too
            if name.is_relative_to(self.root) and (self.complete or name != self.root):
                copied = self.path / name.relative_to(self.root)
                if copied.exists():
                    return str(copied)
        return None


@dataclass(frozen=True)
class Frozen:
    """A copy of the code: of what holds lab, and of the repositories of the user's own modules.

    Attributes:
        trees: the copies; the first is that of lab, and its first import folder holds `lab`.
    """

    trees: tuple[Tree, ...]

    @property
    def path(self) -> Path:
        """Where the copy of lab's checkout is."""
        return self.trees[0].path

    def env(self, cwd: str | None = None) -> dict[str, str]:
        """Return the environment in which `python -m MODULE`, started here or elsewhere, imports from the copy.

        Args:
            cwd: where it is started; null for here.

        Raises:
            LabError: PYTHONPATH cannot hold a path.
        """
        cwd, paths = cwd or str(Path.cwd()), [str(root) for tree in self.trees for root in tree.roots]
        if self.moved(cwd) != cwd:
            paths.insert(0, self.moved(cwd))
        elif not sys.flags.safe_path:  # Python by itself would put it before the copy
            paths.append(cwd)
        for path in paths:
            _require_listable(path)
        for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
            paths += [self.moved(path), path]
        return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}

    def moved(self, path: str) -> str:
        """Return where in the copy a path is, or the path as it is if the copy has no such thing."""
        # The innermost counts: a checkout may lie in another.
        trees = sorted(self.trees, key=lambda tree: len(tree.root.parts), reverse=True)
        return next((found for tree in trees if (found := tree.moved(path)) is not None), path)


def freeze(folder: Path, outputs: Path) -> Frozen:
    """Copy the code as it is now, unless such a copy is there already or the code that runs is itself a copy.

    Args:
        folder: gets a directory for each state of the code; below `outputs`, or ignored by git.
        outputs: the run directory, which is not part of the code although it may lie beside it.

    Raises:
        LabError: PYTHONPATH cannot hold the folder's path.
    """
    if is_frozen():
        return frozen_at(*read_frozen())
    folder = folder.absolute()
    _require_listable(str(folder))
    snapshot = take(outputs)
    beside = package().parent.relative_to(snapshot.lab.path)
    aside = folder / f".{uuid.uuid4().hex}.tmp"  # on another machine the number of this process may be in use
    try:
        aside.mkdir(parents=True, mode=0o700)
        for repository in snapshot.repositories:
            _copy_all(repository.path, repository.files, place(aside, snapshot, repository))
        if not snapshot.lab.files:
            _copy_all(package().parent, _of_package(), aside / beside)
        (aside / beside / FROZEN).write_text(json.dumps(snapshot.to_dict()))
        for name, patch in snapshot.patches(".uncommitted").items():
            (aside / beside / name).write_bytes(patch)
        _make_private(aside)
        path = folder / _digest(aside)[:12]
        try:
            aside.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return frozen_at(snapshot, path)


def place(path: Path, snapshot: CodeSnapshot, repository: Repository) -> Path:
    """Return where in a copy of a snapshot a repository is: where it lies in another one, or beside lab's."""
    if repository is snapshot.lab:
        return path
    around = [one for one in snapshot.repositories if one.in_git and one.path in repository.path.parents]
    if around:
        outer = max(around, key=lambda one: len(one.path.parts))
        return place(path, snapshot, outer) / repository.path.relative_to(outer.path)
    return path / OTHERS / repository.name


def frozen_at(snapshot: CodeSnapshot, path: Path) -> Frozen:
    """Return the copy of a snapshot that is at a path."""
    trees = []
    for repository in snapshot.repositories:
        there = place(path, snapshot, repository)
        complete = repository.in_git and bool(repository.files or is_frozen())
        if there.is_dir():
            trees.append(Tree(there, repository.path, complete, tuple(there / root for root in repository.roots)))
    return Frozen(tuple(trees))


def _of_package() -> Iterator[str]:
    """Yield the files of a package that git does not track, and of the config groups inside it or beside it."""
    inside, beside = package() / "conf", package().parent / "conf"
    for folder in [package()] if inside.is_dir() else [package(), beside]:
        for path in folder.rglob("*"):
            if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts:
                yield str(path.relative_to(package().parent))


def _copy_all(root: Path, names: Collection[str] | Iterator[str], target: Path) -> None:
    sources = {root / name for name in names}
    for source in sources:
        if source.parent.resolve() != source.parent:  # below a link that replaced a folder
            continue
        with contextlib.suppress(FileNotFoundError, PermissionError):  # jobs could not read it either
            _copy(source, target / source.relative_to(root), sources)


def _copy(source: Path, target: Path, sources: set[Path]) -> None:
    """Copy a file, or a link: one to what is copied leads to the copy, any other to where it led."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        goal = Path(os.path.normpath(source.parent / source.readlink()))
        copied = any(other == goal or goal in other.parents for other in sources)
        target.symlink_to(os.path.relpath(goal, source.parent) if copied else goal)
    elif source.is_file():
        shutil.copy(source, target)


def _make_private(folder: Path) -> None:
    """Let nobody else read what is below a folder."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() or path.stat().st_mode & 0o100 else 0o600)


def _digest(folder: Path) -> str:
    """Return a digest of the names, modes and contents below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file()):
        link = path.is_symlink()
        content = os.fsencode(path.readlink()) if link else path.read_bytes()
        mode = "link" if link else oct(path.stat().st_mode & 0o111)
        digest.update(b"\0".join([os.fsencode(path.relative_to(folder)), mode.encode(), b""]))
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _require_listable(path: str) -> None:
    if os.pathsep in path:
        raise LabError(
            f"{path} has a {os.pathsep!r} in it, with which PYTHONPATH separates paths, so jobs could not import from"
            " there: choose another directory."
        )
