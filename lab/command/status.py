"""`python -m lab status DIR`: how far a run directory has come, from its status files."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree as Branches

from lab.common.terminal import Terminal
from lab.common.text import format_number
from lab.errors import LabError, warn_once
from lab.run.directory import SweepDir
from lab.run.files import Document
from lab.run.progress import TrialProgress, count_states, read_progress
from lab.sweep.tree import add_trial, title

USAGE = """Usage: python -m lab status DIR [--watch]

  DIR       the run directory of a Session, a Trial or an Experiment
  --watch   look again every two seconds, until nothing runs any more or Ctrl-C"""

PLAIN_WIDTH = 200  # columns, where the output is no terminal and says nothing of its width
SECONDS = 2.0  # between two looks


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: the directory is no run directory.
    """
    watch = "--watch" in words
    rest = [word for word in words if word != "--watch"]
    if len(rest) != 1 or rest[0] in ("-h", "--help"):
        print(USAGE)
        return
    path = Path(rest[0])
    trials = read_progress(path)
    console = Terminal()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    if not watch:
        console.print(draw(path, trials))
        return
    with Live(draw(path, trials), console=console, auto_refresh=False) as live:
        try:
            while SweepDir(path).lock.is_held() or any(
                goes_on(path, s.state) for trial in trials for s in trial.sessions
            ):
                time.sleep(SECONDS)
                trials = read_progress(path)
                live.update(draw(path, trials), refresh=True)
        except KeyboardInterrupt:
            return


def goes_on(path: Path, state: str) -> bool:
    """Say whether a Session runs, or is to without a process here: a cluster has its task."""
    return state == "running" or (state in ("pending", "interrupted") and any(SweepDir(path).jobs.glob("*.json")))


def draw(path: Path, trials: list[TrialProgress]) -> RenderableType:
    """Draw the tree of a run directory."""
    counts = count_states(trials)
    planned = planned_sessions(path, trials)
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    root = Branches(Text(f"{path}: {planned} Sessions planned, {states or 'none begun'}", style="bold"))
    for trial in trials:
        add_trial(root, trial)
    best = best_of(path, trials)
    return Group(root, Text(f"best so far: {best}", style="green")) if best else root


def planned_sessions(path: Path, trials: list[TrialProgress]) -> int:
    """Return how many Sessions there are to be in all."""
    begun = sum(len(trial.sessions) for trial in trials)
    sweep = read_sweep(path)
    return begun + (max(sweep["trials"] - len(trials), 0) * len(sweep["seeds"]) if sweep else 0)


def best_of(path: Path, trials: list[TrialProgress]) -> str | None:
    """Name the Trial that is best so far by the first objective, of those whose Sessions all completed."""
    sweep = read_sweep(path)
    if not sweep or len(trials) < 2:
        return None
    objective = sweep["objective"]
    metric, aggregate = objective["metrics"][0], objective["aggregate"]
    values = {}
    for index, trial in enumerate(trials):
        value = value_of(trial, metric, aggregate)
        if value is not None:
            values[index] = value
    if not values:
        return None
    choose = max if objective["directions"][0] == "maximize" else min
    index = choose(values, key=lambda key: values[key])
    best = f"{title(trials[index])}: {aggregate} {metric} {format_number(values[index])}"
    unknown = [trial.directory.path.name for trial in trials if trial.state == "completed"]
    unknown = [name for name in unknown if name not in {trials[known].directory.path.name for known in values}]
    return f"{best} ({', '.join(unknown)}: trial.json lacks it, and `report` makes it again)" if unknown else best


def value_of(trial: TrialProgress, metric: str, aggregate: str) -> float | None:
    """Return the objective of a Trial as its trial.json has it; null unless all of its Sessions completed with it."""
    try:
        figures = (trial.results or {}).get("figures", {}).get(metric)
        if trial.state != "completed" or not figures or figures["n"] != len(trial.sessions):
            return None
        value: float | None = figures["mean"]["low"] if aggregate == "lower" else figures[aggregate]["value"]
        return value
    except LabError as error:
        warn_once(f"{error} `report` makes it again.")
        return None


def read_sweep(path: Path) -> Document | None:
    """Read sweep.json; null where there is none, or one that is damaged."""
    if not SweepDir(path).sweep.exists() and not SweepDir(path).trials():
        return None
    try:
        sweep = SweepDir(path).read_sweep()
        for key in ("trials", "seeds", "objective"):
            sweep[key]
        return sweep
    except LabError as error:
        warn_once(f"{error} How many Sessions are planned, and which Trial is the best, is not known.")
        return None
