"""Whose code runs when a run directory is resumed or run again, if another user or another host made it.

Forged provenance cannot be detected: this is a reminder for those who handle directories of others, not a protection.
"""

from __future__ import annotations

import os
import platform
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.errors import LabError, visible
from lab.run.directory import RunDir, SweepDir, find_sessions
from lab.run.files import read_json

MOST_MAKERS = 3  # that a warning names
MOST_LETTERS = 80  # of a name
UNKNOWN = "somebody unknown"
EXPORTER = "somebody whose name `export` left out"
_warned: set[Path] = set()  # directories of which this process has warned


def user_name() -> str:
    """Return the name of the user that this process belongs to."""
    return _name_of(os.getuid())


def warn_of_foreign_code(path: Path, action: str) -> None:
    """Print once whose code an action runs; nothing if this user made the run directory on this host.

    Args:
        path: the run directory.
        action: what is about to be done with it, for example `resume`.
    """
    makers = [] if path.resolve() in _warned else list(dict.fromkeys(_foreign_makers(path)))
    if makers:
        _warned.add(path.resolve())
        names = ", ".join(makers[:MOST_MAKERS]) + (" and others" if len(makers) > MOST_MAKERS else "")
        code = "pickled environments, and what its command, its spec and its provenance name"
        print(
            visible(f"{path} was made by {names}: {action} runs code from it ({code}).", sys.stderr),
            file=sys.stderr,
            flush=True,
        )


def _foreign_makers(path: Path) -> Iterator[str]:
    """Yield who made a run directory or a Session in it, by its records and by the owners of its files."""
    sweep, sessions = SweepDir(path), find_sessions(path)
    in_sweep = sweep.sweep.exists()
    unknown = EXPORTER if any(session.exported.exists() for session in sessions) else UNKNOWN
    if in_sweep:
        yield from _foreign_maker(_read(sweep.sweep), unknown, check_host=True)
    elif not sessions:
        yield UNKNOWN
    for session in sessions:
        facts = _read(session.provenance)
        resumed = facts.get("resumed")
        for each in (facts, *(resumed if isinstance(resumed, list) else ())):
            yield from _foreign_maker(
                each, unknown, check_host=not in_sweep
            )  # a launcher chooses where Sessions of a sweep run
    files = [sweep.sweep, sweep.multirun]
    files += [file for run in (RunDir(path), *sessions) for file in (run.spec, run.checkpoint("last"))]
    for owner in {file.lstat().st_uid for file in files if file.exists()} - {os.getuid()}:
        yield f"{_name_of(owner)}, who owns files in it"


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except LabError:
        return {}


def _foreign_maker(facts: Any, unknown: str, check_host: bool) -> Iterator[str]:
    if not (isinstance(facts, dict) and facts.get("user") and facts.get("host")):
        yield unknown
    elif facts["user"] != user_name() or (check_host and facts["host"] != platform.node()):
        yield f"{str(facts['user'])[:MOST_LETTERS]} on host {str(facts['host'])[:MOST_LETTERS]}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container
        return f"user {uid}"
