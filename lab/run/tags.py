"""Tags of run directories: words by which they are found again, and which keep `rm` from removing them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lab.errors import LabError
from lab.run.files import read_json, write_sealed_json
from lab.run.schemas import TAGS

TAG = re.compile(r"\w[\w.:/+-]*")


def tags_path(path: Path) -> Path:
    """Return the file in a run directory that holds its tags."""
    return path / "tags.json"


def read_tags(path: Path) -> list[str]:
    """Return the tags of a run directory, in the order of the alphabet.

    Raises:
        LabError: the file is damaged.
    """
    file = tags_path(path)
    return sorted(read_json(file, TAGS)["tags"]) if file.exists() else []


def write_tags(path: Path, tags: Iterable[str]) -> None:
    """Write the tags of a run directory; without any, the file is removed.

    Raises:
        LabError: a tag is not one word.
    """
    tags = sorted(set(tags))
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise LabError(f"{tag!r} cannot be a tag: a tag is one word of letters, digits and . _ - + : /.")
    if tags:
        write_sealed_json(tags_path(path), {"tags": tags})
    else:
        tags_path(path).unlink(missing_ok=True)
