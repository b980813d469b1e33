"""Removing run directories: what must stay, and why."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError
from lab.run.code.git import GitError, run_git
from lab.run.directory import find_level
from lab.run.files import ASIDE
from lab.run.guard import BELOW, OF_SESSION, OF_SWEEP, VACANT
from lab.run.lock import Lock
from lab.run.progress import is_active, read_progress
from lab.run.tags import read_tags
from lab.run.trackers import unsent_runs

OWN = re.compile(
    rf"{OF_SESSION.pattern}|{OF_SWEEP.pattern}|{VACANT.pattern}"
    r"|\.hydra|(tags|exported|rerun|validation)\.json|validation|\.gitignore"
)  # what this program writes in run directories
INSIDE = {
    "checkpoint": re.compile(rf"(last|previous|best)\.pt|replay|{ASIDE.pattern}"),
    "replay": re.compile(rf"\d+-\d+\.pt|{ASIDE.pattern}"),
    ".hydra": re.compile(rf"\w+\.yaml|{ASIDE.pattern}"),
}  # and in folders there
NESTED = re.compile(rf"{BELOW.pattern}|validation")  # run directories in a run directory
DVC_PATH = re.compile(r"^\s*(?:- )?path: (.+)$", re.MULTILINE)  # in dvc.lock and in .dvc files
DATE = re.compile(r"\d{4}-\d\d-\d\d")
MOST_NAMES = 3


def find_obstacle(path: Path) -> str | None:
    """Return why a run directory must not be removed, to follow its name; None if it may be.

    Raises:
        LabError: it is no run directory.
    """
    if path.is_symlink():
        return f"is a link to {path.readlink()}: nothing is removed through links"
    find_level(path)
    if (around := _larger_run(path)) is not None:
        return f"is part of {around}, which is removed as a whole or not at all"
    if Path.cwd().is_relative_to(path.resolve()):
        return "is the working directory, or around it"
    nested = [path, *_nested(path)]
    for each in nested:
        if tags := _tags(each):
            return f"has the {'tag' if len(tags) == 1 else 'tags'} {', '.join(tags)}{_in(each, path)}"
    if any(
        is_active(each, read_progress(each)) for each in (path, path / "validation") if each == path or each in nested
    ):
        return "is running, or a cluster may still have a task for it"
    for each in nested:
        if unsent := unsent_runs(each):
            send = f"wandb sync {shlex.quote(str(unsent[0]))}"
            return f"holds a run of Weights & Biases that was not sent: `{send}` sends it, or remove that folder first"
        if foreign := sorted(_foreign(each, OWN)):
            more = ", ..." if len(foreign) > MOST_NAMES else ""
            return f"holds what Lab did not write{_in(each, path)}: {', '.join(foreign[:MOST_NAMES])}{more}"
    return _tracked(path.resolve())


def _larger_run(path: Path) -> Path | None:
    """Return the Trial or the Experiment that a run directory is part of."""
    whole = path.resolve()
    if not NESTED.fullmatch(whole.name):
        return None
    try:
        level = find_level(whole.parent)
    except LabError:
        return None
    return whole.parent if level != "session" else None


def _nested(path: Path) -> Iterator[Path]:
    for entry in os.scandir(path):
        if NESTED.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield path / entry.name
            yield from _nested(path / entry.name)


def _foreign(folder: Path, own: re.Pattern[str], place: str = "") -> Iterator[str]:
    """Yield what this program did not write in a folder or in its own folders there, but for nested run directories."""
    for entry in os.scandir(folder):
        replaced = re.fullmatch(r"replaced-\d+", entry.name) or (place and NESTED.fullmatch(entry.name))
        inside = OWN if replaced else INSIDE.get(entry.name)
        if not own.fullmatch(entry.name):
            yield f"{place}{entry.name}"
        elif inside and entry.is_dir(follow_symlinks=False):
            yield from _foreign(Path(entry.path), inside, f"{place}{entry.name}/")


def _tags(path: Path) -> list[str]:
    try:
        return read_tags(path)
    except LabError:
        return ["(tags.json is damaged)"]


def _in(path: Path, root: Path) -> str:
    return "" if path == root else f" in {path.relative_to(root)}"


def _tracked(path: Path) -> str | None:
    """Return that git or DVC tracks a directory, something in it, or a directory around it; None if neither does."""
    try:
        if run_git(path.parent, "--literal-pathspecs", "ls-files", "-z", "--", path.name):
            return "is tracked by git: `git rm -r` removes it"
    except GitError:
        pass
    for folder in path.parents:
        for file in (folder / "dvc.lock", *(folder.glob("*.dvc") if folder.is_dir() else ())):
            with suppress(OSError, UnicodeDecodeError):
                if file.is_file() and any(_overlap(folder / out.strip("'\""), path) for out in _outs(file)):
                    return f"is tracked by DVC in {file}"
        if (folder / ".git").exists() or (folder / ".dvc").is_dir():
            return None
    return None


def _outs(file: Path) -> list[str]:
    return DVC_PATH.findall(file.read_text(encoding="utf-8"))


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def find_needed(path: Path, specs: Iterable[tuple[Path, dict[str, object]]]) -> Path | None:
    """Return a run that began with weights of a run directory (init_from), and needs them to be run again.

    Args:
        path: the run directory.
        specs: other runs, and their specs by dotted key.
    """
    whole = path.resolve()
    for other, spec in specs:
        for key, value in spec.items():
            if key.partition(".")[0] == "init_from" and isinstance(value, str):
                with suppress(OSError, ValueError):
                    if Path(value).resolve().is_relative_to(whole) and not other.resolve().is_relative_to(whole):
                        return other
    return None


def measure(path: Path) -> int:
    """Return the bytes of all files in a directory."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                size += (Path(folder) / name).lstat().st_size
    return size


def remove(path: Path) -> None:
    """Remove a run directory, and the folder of its date if that is empty then.

    Raises:
        LabError: it must not be removed.
    """
    obstacle = find_obstacle(path)
    if obstacle:
        raise LabError(f"{path} {obstacle}.")
    path = path.resolve()  # DIR/checkpoint/.. has no name
    # Sessions of a Trial alone may be resumed without a lock on it.
    locks = [Lock(each) for each in (path, *(_nested(path) if find_level(path) == "trial" else ()))]
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        for lock in locks:
            if not lock.acquire(patience=0.0):
                raise LabError(f"{lock.path.parent} is in use by {lock.holder()}.")
        path.rename(aside)  # at once, for whoever reads it meanwhile
    finally:
        for lock in locks:
            lock.release()
    shutil.rmtree(aside)
    if DATE.fullmatch(path.parent.name):
        for empty in (path.parent, path.parent.parent):
            with suppress(OSError):  # it is not empty
                if not Path.cwd().is_relative_to(empty):
                    empty.rmdir()
