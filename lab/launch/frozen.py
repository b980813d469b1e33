"""The code at submission: a copy that jobs run from, so that edits while they are queued do not leak in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import provenance
from lab.errors import LabError

LARGEST_UNTRACKED = 20 * 2**20  # bytes; a larger file that git does not track is data, not code


@dataclass(frozen=True)
class Frozen:
    """A copy of the code.

    Attributes:
        path: where it is.
        root: what it is a copy of: a checkout, or the folder that holds an installed package.
        packages: the folder in the copy that holds `lab`.
        complete: whether all code of a checkout is in it, and not this package alone.
    """

    path: Path
    root: Path
    packages: Path
    complete: bool

    def env(self, cwd: str | None = None) -> dict[str, str]:
        """Return the environment in which `python -m MODULE`, started here or elsewhere, imports from the copy.

        Args:
            cwd: where it is started; null for here.

        Raises:
            LabError: PYTHONPATH cannot hold a path.
        """
        cwd, paths = cwd or str(Path.cwd()), [str(self.packages)]
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
        for name in map(Path, (os.path.abspath(path), os.path.realpath(path))):  # noqa: PTH100 - links are copied too
            if name.is_relative_to(self.root) and (self.complete or name != self.root):
                copied = self.path / name.relative_to(self.root)
                if copied.exists():
                    return str(copied)
        return path


def freeze(folder: Path, outputs: Path) -> Frozen:
    """Copy the code as it is now, unless such a copy is there already or the code that runs is itself a copy.

    Args:
        folder: gets a directory for each state of the code; below `outputs`, or ignored by git.
        outputs: the run directory, which is not part of the code although it may lie beside it.

    Raises:
        LabError: PYTHONPATH cannot hold the folder's path.
    """
    package = provenance.package()
    if provenance.is_frozen():
        return Frozen(package.parent, package.parent, package.parent, complete=True)
    folder = folder.absolute()
    _require_listable(str(folder))
    checkout = provenance.checkout_of_package()
    root = checkout or package.parent
    facts, patch = provenance.describe_code(outputs)
    sources = set(_of_checkout(root, {outputs.resolve(), folder.resolve()}) if checkout else _of_package(package))
    aside = folder / f".{uuid.uuid4().hex}.tmp"  # on another machine the number of this process may be in use
    try:
        aside.mkdir(parents=True)
        for source in sources:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # jobs could not read it either
                _copy(source, aside / source.relative_to(root), sources)
        beside = package.parent.relative_to(root)
        for name, content in zip(provenance.FROZEN, (json.dumps(facts).encode(), patch), strict=True):
            (aside / beside / name).write_bytes(content)
        path = folder / _digest(aside)[:12]
        try:
            aside.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Frozen(path, root, path / beside, checkout is not None)


def _of_checkout(root: Path, written: set[Path]) -> Iterator[Path]:
    """Yield the files that git tracks or would add, but for those below what this program writes."""
    for tracked, words in ((True, ["--cached"]), (False, ["--others", "--exclude-standard"])):
        # Where the run directory holds this package, what git tracks there is still code.
        excluded = written - set(provenance.package().parents) if tracked else written
        for name in filter(None, provenance.ask_git(root, "ls-files", *words, "-z").split(b"\0")):
            path = root / os.fsdecode(name)
            if not _is_entry(path) or path.parent.resolve() != path.parent:  # below a link that replaced a folder
                continue
            if excluded.isdisjoint(path.parents) and (tracked or path.lstat().st_size <= LARGEST_UNTRACKED):
                yield path


def _of_package(package: Path) -> Iterator[Path]:
    """Yield the files of a package that git does not track, and of the config groups inside it or beside it."""
    for folder in [package] if (package / "conf").is_dir() else [package, package.parent / "conf"]:
        yield from (path for path in folder.rglob("*") if _is_entry(path) and "__pycache__" not in path.parts)


def _is_entry(path: Path) -> bool:
    """Say whether there is a file or a link, broken or not, and no folder."""
    return path.is_symlink() or path.is_file()


def _copy(source: Path, target: Path, sources: set[Path]) -> None:
    """Copy a file, or a link: one to what is copied leads to the copy, any other to where it led."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        goal = Path(os.path.normpath(source.parent / source.readlink()))
        copied = any(other == goal or goal in other.parents for other in sources)
        target.symlink_to(os.path.relpath(goal, source.parent) if copied else goal)
    else:
        shutil.copy(source, target)


def _digest(folder: Path) -> str:
    """Return a digest of the names, modes and contents below a folder."""
    digest = hashlib.sha256()
    for path in sorted(filter(_is_entry, folder.rglob("*"))):
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
