"""Whose code runs when a run directory is resumed or run again, if this user did not make it on this host.

A forged provenance cannot be recognized: this reminds those who handle directories of others, and proves nothing.
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

MOST = 3  # makers that are named
LONGEST = 80  # letters of a name
UNKNOWN = "somebody unknown"
_told: set[Path] = set()  # directories of which this process has said it


def user_name() -> str:
    """Return the name of the user that this process belongs to."""
    return _name(os.getuid())


def warn_of_foreign_code(path: Path, act: str) -> None:
    """Say once, in a line on the terminal, whose code an act runs; nothing if this user made the directory here.

    Args:
        path: a run directory.
        act: what is about to be done with it, as `resume`.
    """
    others = [] if path.resolve() in _told else list(dict.fromkeys(_others(path)))
    if others:
        _told.add(path.resolve())
        named = ", ".join(others[:MOST]) + (" and others" if len(others) > MOST else "")
        code = "pickled environments, and what its command, its spec and its provenance name"
        print(visible(f"{path} was made by {named}: {act} runs code from it ({code})."), file=sys.stderr, flush=True)


def _others(path: Path) -> Iterator[str]:
    """Yield those who made a run directory or a Session in it, by what it says and by who owns its files."""
    sweep, found = SweepDir(path), find_sessions(path)
    if sweep.sweep.exists():
        yield from _maker(_read(sweep.sweep), host=True)
    elif not found:
        yield UNKNOWN
    for session in found:
        facts = _read(session.provenance)
        resumed = facts.get("resumed")
        for each in (facts, *(resumed if isinstance(resumed, list) else ())):
            # Where the Sessions of a sweep run is for its launcher to choose.
            yield from _maker(each, host=not sweep.sweep.exists())
    runs = (RunDir(path), *found)
    files = [sweep.sweep, sweep.multirun, *(file for run in runs for file in (run.spec, run.checkpoint("last")))]
    for owner in {file.lstat().st_uid for file in files if file.exists()} - {os.getuid()}:
        yield f"{_name(owner)}, who owns files in it"


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except LabError:
        return {}


def _maker(facts: Any, host: bool) -> Iterator[str]:
    """Yield who wrote facts on the origin of something, unless it was this user and, if that counts, on this host."""
    if not (isinstance(facts, dict) and facts.get("user") and facts.get("host")):
        yield UNKNOWN
    elif facts["user"] != user_name() or (host and facts["host"] != platform.node()):
        yield f"{str(facts['user'])[:LONGEST]} on host {str(facts['host'])[:LONGEST]}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container
        return f"user {uid}"
