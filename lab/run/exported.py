"""Exported run directories, which lack what is large: what is missing in them, and where it is."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.schemas import EXPORTED


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
