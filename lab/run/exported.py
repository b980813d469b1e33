"""Exported run directories, which lack what is large: what is missing in them, and where it is."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.common.text import plural
from lab.errors import LabError
from lab.run.directory import RunDir, best_session, find_level, find_sessions
from lab.run.files import read_json, read_yaml
from lab.run.schemas import EXPORTED, SPEC


def read_digest(directory: RunDir) -> str | None:
    """Return the digest of a Session's final weights that `export` kept; None if there is none.

    Raises:
        LabError: exported.json is damaged.
    """
    return read_json(directory.exported, EXPORTED)["weights"] if directory.exported.exists() else None


def describe_missing(directory: RunDir, file: Path) -> str:
    """Return a sentence that says that a file of a Session is missing, why, and how it is fetched if DVC keeps it."""
    text = f"{directory.path} has no {file.relative_to(directory.path)}"
    if not directory.exported.exists():
        return f"{text}."
    origin = read_json(directory.exported, EXPORTED)["of"]
    return (
        f"{text}: it is the small part of {origin} that was exported. Where DVC keeps the rest,"
        f" `dvc pull {shlex.quote(origin)}` fetches it."
    )


def find_best(path: Path, checkpoint: str = "best") -> RunDir:
    """Return the Session in a run directory whose agent is the best by evaluation, and among equals by return.

    Raises:
        LabError: there is no such checkpoint, or there are agents of several environments.
    """
    directory = RunDir(path)
    if directory.spec.exists():
        if not directory.checkpoint(checkpoint).exists():
            raise LabError(describe_missing(directory, directory.checkpoint(checkpoint)))
        return directory
    level, sessions = find_level(path), find_sessions(path)  # raises
    best = best_session(sessions, checkpoint)
    if best is None:
        raise LabError(f"{path} holds {plural(len(sessions), 'Session')}, none with a {checkpoint} checkpoint.")
    envs = {read_yaml(one.spec, SPEC)["env"]["id"] for one in sessions if one.checkpoint(checkpoint).exists()}
    if len(envs) > 1:
        raise LabError(
            f"The {level.capitalize()} {path} holds agents of several environments ({', '.join(sorted(envs))}), none of"
            " which is the best of all: choose a Trial or a Session in it."
        )
    return best
