"""`python -m lab status DIR`: progress of a run directory, read from its status files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree as Branches

from lab.command.options import command, option
from lab.common.terminal import Terminal
from lab.common.text import format_number, plural
from lab.errors import LabError, warn_once
from lab.run.directory import SweepDir
from lab.run.files import Document
from lab.run.progress import TrialProgress, count_states, is_active, read_progress
from lab.sweep.tree import add_trial, title

PLAIN_WIDTH = 200  # columns, where the output is no terminal
WATCH_SECONDS = 2.0  # between two updates
REMARK = "The number of planned Sessions and the best Trial are not known."


@dataclass
class Options:
    """Options of the command."""

    watch: bool = option(False, "update every two seconds, until nothing runs any more or Ctrl-C", shown="--watch")


@command("the run directory of a Session, a Trial or an Experiment", Options)
def main(path: Path, options: Options) -> None:
    """Print the progress of a run directory.

    Raises:
        LabError: the directory is not a run directory.
    """
    trials = read_progress(path)
    console = Terminal()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    if not options.watch:
        console.print(render(path, trials))
        return
    with Live(render(path, trials), console=console, auto_refresh=False) as live:
        try:
            while is_active(path, trials):
                time.sleep(WATCH_SECONDS)
                trials = read_progress(path)
                live.update(render(path, trials), refresh=True)
        except KeyboardInterrupt:
            return


def render(path: Path, trials: list[TrialProgress]) -> RenderableType:
    """Draw the tree of a run directory."""
    sweep = SweepDir(path).find_sweep(("trials", "seeds", "objective"), REMARK)
    counts = count_states(trials)
    not_started = max(sweep["trials"] - len(trials), 0) * len(sweep["seeds"]) if sweep else 0
    planned = sum(counts.values()) + not_started
    if counts and not_started:
        counts["pending"] = counts.get("pending", 0) + not_started
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    root = Branches(Text(f"{path}: {plural(planned, 'Session')} planned, {states or 'none started'}", style="bold"))
    for trial in trials:
        add_trial(root, trial, sessions=len(trials) == 1 or trial.state != "completed")
    best = find_best(sweep, trials) if sweep and len(trials) > 1 else None
    return Group(root, Text(f"best so far: {best}", style="green")) if best else root


def find_best(sweep: Document, trials: list[TrialProgress]) -> str | None:
    """Describe the best Trial by the first objective, of those whose Sessions all completed."""
    objective = sweep["objective"]
    metric, aggregate = objective["metrics"][0], objective["aggregate"]
    values = {index: read_value(trial, metric, aggregate) for index, trial in enumerate(trials)}
    ranked = {index: value for index, value in values.items() if value is not None}
    if not ranked:
        return None
    index = (max if objective["directions"][0] == "maximize" else min)(ranked, key=lambda index: ranked[index])
    best = f"{title(trials[index])}: {aggregate} {metric} {format_number(ranked[index], metric)}"
    others = [trial for i, trial in enumerate(trials) if trial.state == "completed" and i not in ranked]
    known = [bool((trial.results or {}).get("metrics")) for trial in others]
    unread = [trial.directory.path.name for trial, read in zip(others, known, strict=True) if not read]
    without = [trial.directory.path.name for trial, read in zip(others, known, strict=True) if read]
    notes = [f"{', '.join(unread)}: trial.json lacks its metrics, and `report` makes it again"] if unread else []
    notes += [f"{', '.join(without)}: a Session has no {metric}"] if without else []
    return f"{best} ({'; '.join(notes)})" if notes else best


def read_value(trial: TrialProgress, metric: str, aggregate: str) -> float | None:
    """Return the objective of a Trial from its trial.json; None unless all of its Sessions completed with a value."""
    try:
        estimates = (trial.results or {}).get("metrics", {}).get(metric)
        if trial.state != "completed" or not estimates or estimates["n"] != len(trial.sessions):
            return None
        value: float | None = estimates["mean"]["low"] if aggregate == "lower" else estimates[aggregate]["value"]
        return value
    except LabError as error:
        warn_once(f"{error} `report` makes it again.")
        return None
