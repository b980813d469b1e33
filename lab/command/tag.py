"""`python -m lab tag DIR TAG ...`: tag a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.command.options import command, option
from lab.errors import LabError, did_you_mean, visible
from lab.run.directory import find_level
from lab.run.tags import read_tags, write_tags

NOTES = """Tags are words of your own, as paper or broken. `ls tag=paper` lists what has one, `export` copies them, and
`rm` removes nothing that has any. Without a tag, those that the directory has are printed."""


@dataclass
class Options:
    """Options of the command."""

    remove: str = option("", "tags to remove", "remove=TAG,...")


@command(
    "the run directory of a Session, a Trial or an Experiment, and after it the tags to add",
    Options,
    NOTES,
    several=True,
)
def main(paths: list[Path], options: Options) -> None:
    """Add tags to a run directory, or remove them.

    Raises:
        LabError: it is no run directory, a tag is not one word, or one to remove is not there.
    """
    path, *added = paths
    find_level(path)
    tags = read_tags(path)
    removed = [tag.strip() for tag in options.remove.split(",") if tag.strip()]
    for tag in removed:
        if tag not in tags:
            known = f"it has {', '.join(tags)}" if tags else "it has none"
            raise LabError(f"{path} has no tag {tag!r}: {known}.{did_you_mean(tag, tags)}")
    wanted = {*tags, *map(str, added)} - {*removed}
    if wanted != {*tags}:
        write_tags(path, wanted)
    print(visible(f"{path}: {' '.join(sorted(wanted)) or 'no tags'}"))
