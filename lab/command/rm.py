"""`python -m lab rm DIR ... [condition ...]`: remove run directories."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.analysis.conditions import explain_none, find_runs
from lab.analysis.runs import Run, read_run, read_runs
from lab.command.ls import CONDITIONS, list_runs
from lab.command.options import command, option
from lab.common.output import columns
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import format_bytes, plural
from lab.errors import LabError
from lab.run.directory import find_level
from lab.run.removal import find_needed, find_obstacle, measure, remove

NOTES = """It lists what is removed and how large that is, and asks. What stays is named with the reason: a run that has
a tag, runs, is tracked by git or DVC, is part of a larger one, holds files of others or an offline run of Weights &
Biases that was not sent, or whose weights another run started from (init_from), unless that is what `rerun` made.
Links are not followed."""


@dataclass
class Options:
    """Options of the command."""

    yes: bool = option(False, "do not ask", "--yes")


@command(
    "a run directory; with conditions, a directory with all below it",
    Options,
    NOTES,
    several=True,
    conditions=f"remove, of all that is below DIR, what meets conditions: {CONDITIONS}",
)
def main(paths: list[Path], options: Options, conditions: list[str]) -> None:
    """Remove run directories.

    Raises:
        LabError: a directory is no run directory or must stay, a condition is not allowed, or nobody can be asked.
    """
    console = Terminal(soft_wrap=True)
    if conditions:
        runs = [run for path in paths for run in find_runs(path, *conditions)]
    else:
        runs = [read_run(path, find_level(path)) for path in paths]
    runs = list({run.path.resolve(): run for run in runs}.values())
    obstacles = find_obstacles(runs, [*paths, Path("outputs")])
    if obstacles and not conditions:
        raise LabError(" ".join(f"{path} {why}, so nothing is removed." for path, why in obstacles.items()))
    removed = [run for run in runs if run.path not in obstacles]
    for line in list_runs(removed, columns(console.file) or UNCUT) if removed else ():
        console.print(line, no_wrap=True)
    for path, why in obstacles.items():
        console.print(f"Kept: {path} {why}.", style="yellow")
    if not removed:
        if not runs:
            console.print(" ".join(explain_none(path, conditions) for path in paths))
        return
    size = format_bytes(sum(measure(run.path) for run in removed))
    what = f"{plural(len(removed), 'run')} with {plural(sum(run.planned for run in removed), 'Session')}, {size}"
    if not (options.yes or _confirmed(console, what)):
        console.print("Nothing was removed.")
        return
    for run in removed:
        remove(run.path)
    console.print(f"Removed {what}.")


def find_obstacles(runs: Sequence[Run], roots: Sequence[Path]) -> dict[Path, str]:
    """Return why runs must stay, of those that must; `roots` are where runs may lie that need them."""
    obstacles = {run.path: why for run in runs if (why := find_obstacle(run.path))}
    others = {run.path.resolve(): run for root in roots if root.is_dir() for run in read_runs(root)}
    going = {run.path.resolve() for run in runs if run.path not in obstacles}
    needing = [run for path, run in others.items() if path not in going and not run.rerun_of]
    specs = [(run.path, spec) for run in needing for spec in run.specs]
    for run in runs:
        if run.path not in obstacles and (child := find_needed(run.path, specs)):
            obstacles[run.path] = f"holds the weights that {child} started from (init_from)"
    return obstacles


def _confirmed(console: Terminal, what: str) -> bool:
    if not sys.stdin.isatty():
        raise LabError(f"{what} would be removed: add --yes, as nobody can be asked here.")
    console.print(f"Remove {what}? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
