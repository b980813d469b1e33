"""Keeping others' files safe: which directories may be used, which links are refused, what is moved aside."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabError
from lab.run.files import ASIDE, read_json, read_yaml, write_atomically
from lab.run.schemas import POINT, SPEC, STATUS, SWEEP

SPEC_KEYS = {"algo", "env", "net", "seed", "frames"}  # tell a spec from another YAML file
OWN = "\n    app_name: lab\n"  # in Hydra's record of a composition of this program
OF_SESSION = re.compile(
    r"spec\.yaml|provenance\.json|uncommitted.*\.patch|status\.json|session\.(log|json|png)|stop\.json"
    r"|(episodes|metrics|timing)\.csv|events\.out\.tfevents\..*|checkpoint"
    r"|(wandb|mlflow)\.json|wandb"
)
OF_SWEEP = re.compile(
    r"sweep\.json|multirun\.yaml|experiment\.(json|png)|trials\.csv|report\.html|\.?study\.db.*|\.jobs|\.code|\.submitit"
    r"|events\.out\.tfevents\..*|point\.json|trial\.(json|png)|card\.md|(trial|seed)-\d+|validation"
)
# May lie in a directory before anything started there: files of Hydra, of `rerun`, and of Sessions that were replaced.
VACANT = re.compile(rf"\.lock|\.jobs|stop\.json|replaced-\d+|job\.log|{ASIDE.pattern}")
BELOW = re.compile(r"(trial|seed)-\d+")
# Files that other processes than the owner of the directory write too: a half-written one may be in use.
SHARED = re.compile(r"(session|trial|experiment)\.(json|png)|trials\.csv|report\.html|card\.md|stop\.json")
WRITING_SECONDS = 60.0  # that a writer may need for one file
PROCESS_START = time.time() - 2.0  # as file systems with coarse clocks may date what this process writes
MOST_NAMES = 5  # foreign files that an error names


def holds_session(path: Path) -> bool:
    """Return whether a directory holds a Session, by its spec or its status."""
    try:
        if read_yaml(path / "spec.yaml", SPEC).keys() >= SPEC_KEYS:
            return True
    except (LabError, OSError):
        pass
    try:
        return {"state", "frame", "frames", "pid"} <= read_json(path / "status.json", STATUS).keys()
    except LabError:
        # On a full disk the first status may be torn before anything else exists.
        torn = (path / "status.json").exists() and (path / ".lock").exists()
        return torn and all(VACANT.fullmatch(entry.name) or entry.name == "status.json" for entry in _entries(path))


def holds_sweep(path: Path) -> bool:
    """Return whether a directory holds a sweep or a Trial, by what lies in it or below it."""
    for file, shape, key in (("sweep.json", SWEEP, "kind"), ("point.json", POINT, "hyperparameters")):
        try:
            if key in read_json(path / file, shape):
                return True
        except LabError:
            pass
    below = (Path(entry.path) for entry in _entries(path) if BELOW.fullmatch(entry.name) and entry.is_dir())
    return any(holds_session(entry) or holds_sweep(entry) for entry in below)


def refuse_foreign(path: Path, key: str, sweep: bool = False) -> None:
    """Raise LabError if a directory holds anything that this program did not write.

    Args:
        path: the directory.
        key: the config key that sets it.
        sweep: whether it is to hold a sweep or a stack, rather than a Session.
    """
    if path.exists() and not path.is_dir():
        raise LabError(f"{path} is a file: choose another {key}.")
    if (holds_sweep if sweep else holds_session)(path):
        return
    names = sorted(_foreign(path))
    if names:
        more = ", ..." if len(names) > MOST_NAMES else ""
        raise LabError(
            f"{path} is not empty and holds no {'sweep' if sweep else 'Session'} that can be read"
            f" ({', '.join(names[:MOST_NAMES])}{more}): choose another {key}."
        )


def _foreign(path: Path) -> Iterator[str]:
    """Yield the relative paths of foreign files in a directory in which nothing started."""
    for entry in _entries(path):
        if BELOW.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{name}" for name in _foreign(Path(entry.path)))
        elif not (VACANT.fullmatch(entry.name) or (entry.name == ".hydra" and _is_own_record(Path(entry.path)))):
            yield entry.name


def _is_own_record(folder: Path) -> bool:
    """Return whether Hydra recorded a composition of this program in a folder, or of this process, or nothing."""
    file = folder / "hydra.yaml"
    if not file.exists():
        return not _entries(folder)
    return file.stat().st_mtime >= PROCESS_START or OWN in file.read_text(errors="replace")


def refuse_links(path: Path, own: re.Pattern[str], within: tuple[str, ...] = ()) -> None:
    """Raise LabError if a name that this program writes to in a directory is a symbolic link.

    Args:
        path: the directory, which may itself be reached by a link.
        own: the names.
        within: folders in it in which this program writes every name.
    """
    entries = [entry for entry in _entries(path) if own.fullmatch(entry.name) or entry.name in (".lock", *within)]
    for folder in within:
        if not (path / folder).is_symlink():
            entries += _entries(path / folder)
    for entry in entries:
        if entry.is_symlink():
            raise LabError(
                f"{entry.path} is a link to {Path(entry.path).readlink()}, and nothing is written through links:"
                " put what it leads to in its place, or choose another directory."
            )


def break_hard_links(*paths: Path) -> None:
    """Give files that are written in place their own content if they share it, for example with a cache of DVC."""
    for path in paths:
        if path.exists() and path.stat().st_nlink > 1:
            write_atomically(path, path.read_bytes())


def remove_leftovers(*folders: Path) -> None:
    """Remove the half-written files of killed processes from folders that this process has acquired."""
    for folder in folders:
        for entry in _entries(folder):
            match = ASIDE.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age >= WRITING_SECONDS or not SHARED.fullmatch(match["name"]):
                    Path(entry.path).unlink(missing_ok=True)


def move_aside(path: Path, own: re.Pattern[str], last: str = "") -> Path | None:
    """Move what this program wrote in a directory into a new folder there; return it, or None if there was nothing.

    Args:
        path: the directory.
        own: names of what is moved.
        last: the name that is moved after all others, because it tells what the directory holds.
    """
    names = sorted((entry.name for entry in _entries(path) if own.fullmatch(entry.name)), key=lambda name: name == last)
    if not names:
        return None
    number = 1
    while os.path.lexists(path / f"replaced-{number}"):
        number += 1
    aside = path / f"replaced-{number}"
    aside.mkdir()
    for name in names:
        (path / name).rename(aside / name)
    return aside


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
