"""What keeps others' files safe: which directories may be taken, which links are refused, what is moved aside."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from lab.errors import LabError
from lab.run.files import ASIDE, read_json, read_yaml, write_atomically
from lab.run.schemas import POINT, SPEC, STATUS, SWEEP

SPEC_KEYS = {"algo", "env", "net", "seed", "frames"}  # by which a spec is known from another YAML file
OWN = "app_name: lab"  # in what Hydra records of a composition of this program
LOG = "job.log"  # of Hydra, with hydra/job_logging=default
OF_SESSION = re.compile(
    r"spec\.yaml|provenance\.json|uncommitted.*\.patch|status\.json|session\.(log|json|png)|stop\.json"
    r"|(episodes|metrics|timing)\.csv|events\.out\.tfevents\..*|checkpoint"
)
OF_SWEEP = re.compile(
    r"sweep\.json|multirun\.yaml|experiment\.(json|png)|trials\.csv|report\.html|\.?study\.db.*|\.jobs|\.code|\.submitit"
    r"|events\.out\.tfevents\..*|point\.json|trial\.(json|png)|card\.md|(trial|seed)-\d+"
)
# What may lie in a directory before anything was begun there: of Hydra, of `rerun`, and of a Session that was replaced.
VACANT = re.compile(rf"\.lock|\.jobs|stop\.json|replaced-\d+|{re.escape(LOG)}|{ASIDE.pattern}")
BELOW = re.compile(r"(trial|seed)-\d+")
# Files that others write too than the process that holds the directory; of these, what is being written may be new.
SHARED = re.compile(r"(session|trial|experiment)\.(json|png)|trials\.csv|report\.html|card\.md|stop\.json")
WRITING_SECONDS = 60.0  # that a writer may take for one file
BEGAN = time.time() - 2.0  # this process, as file systems with coarse clocks may date what it writes
MOST_NAMES = 5  # of what a directory holds that a sentence tells


def holds_session(path: Path) -> bool:
    """Say whether a directory holds a Session, by its spec or its status."""
    try:
        if read_yaml(path / "spec.yaml", SPEC).keys() >= SPEC_KEYS:
            return True
    except (LabError, OSError):
        pass
    try:
        return {"state", "frame", "frames", "pid"} <= read_json(path / "status.json", STATUS).keys()
    except LabError:
        # On a full disk a status may have been torn before there was anything else.
        torn = (path / "status.json").exists() and (path / ".lock").exists()
        return torn and all(VACANT.fullmatch(entry.name) or entry.name == "status.json" for entry in _entries(path))


def holds_sweep(path: Path) -> bool:
    """Say whether a directory holds a sweep or a Trial, by what lies in it or below it."""
    for file, shape, key in (("sweep.json", SWEEP, "kind"), ("point.json", POINT, "hyperparameters")):
        try:
            if key in read_json(path / file, shape):
                return True
        except LabError:
            pass
    below = (Path(entry.path) for entry in _entries(path) if BELOW.fullmatch(entry.name) and entry.is_dir())
    return any(holds_session(entry) or holds_sweep(entry) for entry in below)


def refuse_foreign(path: Path, key: str, sweep: bool = False) -> None:
    """Raise LabError if a directory holds anything but what this program left there.

    Args:
        path: the directory.
        key: of the config, which says where it is.
        sweep: whether it is to hold a sweep or a stack, and not a Session.
    """
    if path.exists() and not path.is_dir():
        raise LabError(f"{path} is a file: choose another {key}.")
    if (holds_sweep if sweep else holds_session)(path):
        return
    names = sorted(foreign(path))
    if names:
        more = ", ..." if len(names) > MOST_NAMES else ""
        raise LabError(
            f"{path} is not empty and holds no {'sweep' if sweep else 'Session'} that can be read"
            f" ({', '.join(names[:MOST_NAMES])}{more}): choose another {key}."
        )


def foreign(path: Path) -> Iterator[str]:
    """Yield the names of what lies in a directory in which nothing was begun, seen from it."""
    for entry in _entries(path):
        if BELOW.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{name}" for name in foreign(Path(entry.path)))
        elif not (VACANT.fullmatch(entry.name) or (entry.name == ".hydra" and _is_own_record(Path(entry.path)))):
            yield entry.name


def _is_own_record(folder: Path) -> bool:
    """Say whether Hydra has recorded a composition of this program in a folder, or of this process, or nothing."""
    file = folder / "hydra.yaml"
    if not file.exists():
        return not any(_entries(folder))
    return file.stat().st_mtime >= BEGAN or f"\n    {OWN}\n" in file.read_text(errors="replace")


def refuse_links(path: Path, own: re.Pattern[str], within: tuple[str, ...] = ()) -> None:
    """Raise LabError if a name that this program writes to in a directory is a symbolic link.

    Args:
        path: the directory, which may be reached by a link itself.
        own: names that are written to.
        within: folders below it in which everything is.
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
    """Give files that are written in place a content of their own, which another name shares, as in a cache of DVC."""
    for path in paths:
        if path.exists() and path.stat().st_nlink > 1:
            write_atomically(path, path.read_bytes())


def remove_leftovers(*folders: Path) -> None:
    """Remove what writers that were killed left in folders of which this process has hold."""
    for folder in folders:
        for entry in _entries(folder):
            found = ASIDE.fullmatch(entry.name)
            if not found or not entry.is_file(follow_symlinks=False):
                continue
            new = time.time() - entry.stat(follow_symlinks=False).st_mtime < WRITING_SECONDS
            if not (new and SHARED.fullmatch(found["name"])):
                Path(entry.path).unlink(missing_ok=True)


def move_aside(path: Path, own: re.Pattern[str], last: str = "") -> Path | None:
    """Move what this program wrote in a directory into a new folder there, and return that; null if there is nothing.

    Args:
        path: the directory.
        own: names of what is moved.
        last: the one that is moved after all others, as it says what the directory is.
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
