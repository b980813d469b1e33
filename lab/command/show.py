"""`python -m lab show DIR`: one run on a page: figures, curve, settings, where it came from, what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from lab.analysis.runs import Run, read_run
from lab.analysis.settings import find_differences
from lab.command.options import NoOptions, command
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import format_duration, format_number, format_seeds
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.schemas import METRICS, meaning
from lab.sweep.summary import count_sessions, print_experiment, print_trial, quote_path
from lab.sweep.tree import STYLES
from lab.training.display import describe_special_settings, describe_stopped, print_next_steps

if TYPE_CHECKING:
    from lab.analysis.session import Session

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60  # characters
LEVEL_NAMES = {"session": "Session", "trial": "Trial", "experiment": "Experiment"}
NOTES = """Nothing is written or executed. `status` shows how far a run is, session by session; `report` draws it, and
writes the model card of a Trial and the page of an Experiment."""


@command("the run directory of a Session, a Trial or an Experiment, finished or not", notes=NOTES)
def main(path: Path, options: NoOptions) -> None:
    """Print what is known of a run.

    Raises:
        LabError: it is no run directory, or a file that is needed cannot be read.
    """
    run = read_run(path, find_level(path))
    console = Terminal(soft_wrap=True, width=UNCUT)
    sessions, title, print_figures, curve = read_figures(run)
    heading = Text.assemble((title, "bold"), f": {LEVEL_NAMES[run.level]}, ", (run.state, STYLES.get(run.state, "")))
    if run.level != "session":
        heading.append(
            f", {count_sessions({'planned': run.planned, **run.sessions, 'completed': run.sessions['completed']})}"
        )
    console.print(heading)
    console.print(f"{path}{'  tags: ' if run.tags else ''}{' '.join(run.tags)}\n")
    commands = print_figures(console)
    if line := draw_curve(*curve):
        console.print(f"\nreturn  {line}")
    console.print()
    names = [(_name(session, run), session.directory.find_status() or {}) for session in sessions]
    origins = [fact for fact in describe_origins(sessions) if not (run.rerun_of and "command" in fact)]
    print_facts(console, [*describe_settings(run), *describe_plan(run, sessions), *origins])
    for line in describe_stopped(names):
        console.print(line)
    for problem in run.problems:
        console.print(f"Note: {problem}", style="yellow")
    for warning in dict.fromkeys(text for session in sessions for text in read_warnings(session)):
        console.print(f"Warning: {warning}", style="yellow")
    console.print()
    if run.state in ("running", "interrupted"):
        resume = run.state == "interrupted"
        next_step = "resume" if resume else "status"
        commands = {f"python -m lab {next_step} {quote_path(path)}": "go on" if resume else "how far it is", **commands}
    print_next_steps(console, commands)


def read_figures(run: Run) -> tuple[list[Session], str, Any, tuple[np.ndarray, np.ndarray]]:
    """Return the Sessions of a run, its title, a function that prints its figures, and the curve [T] of its return."""
    from lab.analysis.experiment import experiment_results, read_experiment
    from lab.analysis.session import read_session
    from lab.analysis.text import display_name
    from lab.analysis.trial import read_trial, trial_results

    if run.level == "session":
        session = read_session(RunDir(run.path), run.seeds[0] if run.seeds else 0)
        title = " on ".join(filter(None, ("".join(map(display_name, run.algos)), "".join(run.envs)))) or str(run.path)
        curve = session.tables.curve("return") if session.tables else (np.empty(0), np.empty(0))
        return [session], f"{title}, seed {session.seed}", lambda console: print_session(console, session), curve
    if run.level == "trial":
        trial = read_trial(TrialDir(run.path))
        frames, values = trial.curve()
        results = trial_results(trial)
        mean = frames, values.mean(axis=0) if len(values) else values
        return trial.sessions, trial.title, lambda console: print_trial(console, run.path, results), mean
    experiment = read_experiment(SweepDir(run.path))
    frames, values = experiment.best.trial.curve() if experiment.best else (np.empty(0), np.empty((0, 0)))
    results = experiment_results(experiment)
    sessions = [session for trial in experiment.trials for session in trial.sessions]
    mean = frames, values.mean(axis=0) if len(values) else values
    return sessions, experiment.name, lambda console: print_experiment(console, run.path, results), mean


def print_session(console: Terminal, session: Session) -> dict[str, str]:
    """Print the metrics of a Session; return the commands to type next, with their purposes."""
    done = "" if session.frame >= session.frames else f" of {session.frames:,}"
    console.print(f"frames {session.frame:,}{done}")
    names = [name for name in (*METRICS, *session.metrics) if session.metric(name) is not None and name != "frames"]
    shown = {name: format_number(session.metric(name), name) for name in dict.fromkeys(names)}
    width, digits = max(map(len, shown), default=0), max(map(len, shown.values()), default=0)
    for name, value in shown.items():
        console.print(Text.assemble(f"{name.ljust(width)}  {value.rjust(digits)}", (f"  {meaning(name)}", "dim")))
    if session.error:
        console.print(f"\n{session.state}: {session.error.strip().splitlines()[-1]}", style="red")
    here = quote_path(session.directory.path)
    play = (
        {f"python -m lab enjoy {here}": "play the best agent"} if session.directory.checkpoint("best").exists() else {}
    )
    return {**play, f"python -m lab report {here}": "draw it"}


def draw_curve(frames: np.ndarray, values: np.ndarray) -> str:
    """Return a curve [T] as a line of text, with its ends and range; empty without two points."""
    if len(frames) < 2:
        return ""
    places = np.linspace(frames[0], frames[-1], min(CURVE_WIDTH, len(frames)))
    heights = np.interp(places, frames, values)
    low, high = float(heights.min()), float(heights.max())
    steps = (heights - low) / (high - low or 1.0) * (len(BLOCKS) - 1)
    line = "".join(BLOCKS[round(step)] for step in steps.tolist())
    return f"{line}  {format_number(low)} to {format_number(high)}, frames {frames[0]:,.0f} to {frames[-1]:,.0f}"


def describe_settings(run: Run) -> list[tuple[str, str]]:
    """Return what was set of the spec."""
    (settings,) = find_differences([run])
    text = " ".join(f"{key}={value}" for key, value in settings.items())
    default = f"those of {run.rerun_of}" if run.rerun_of else "defaults"
    seeds = [("seeds", format_seeds(run.seeds).partition(" ")[2])] if run.seeds else []
    return [*seeds, ("settings", text or default)]


def describe_plan(run: Run, sessions: Sequence[Session]) -> list[tuple[str, str]]:
    """Return what else decides a run: what it repeats, where it starts, when it ends."""
    rows = [("rerun of", run.rerun_of)] if run.rerun_of else []
    if len(run.specs) == 1 and sessions and (tables := sessions[0].tables):
        rows += [
            (key, text) for key, _, text in (line.partition("=") for line in describe_special_settings(tables.spec))
        ]
    return rows


def _name(session: Session, run: Run) -> str:
    folder = session.directory.path.parent.name if run.level == "experiment" else ""
    return f"{folder} seed {session.seed}".strip()


def describe_origins(sessions: Sequence[Session]) -> list[tuple[str, str]]:
    """Return code, machine, command and times of some Sessions, and which differ from the first in these."""
    from lab.analysis.card import origins, read_provenance

    known = [facts for session in sessions if (facts := read_provenance(session)) and "damaged" not in facts]
    rows = _times(known)
    groups = origins(sessions, private=True)
    for number, (seeds, facts) in enumerate(groups):
        if number == 0:
            rows += facts.items()
        else:
            first = groups[0][1]
            other = ", ".join(f"{key}: {value}" for key, value in facts.items() if first.get(key) != value)
            rows.append((f"but {format_seeds(sorted(set(seeds)))}", other))
    return rows


def _times(known: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    starts = [datetime.fromisoformat(facts["start"]) for facts in known if facts.get("start")]
    ends = [datetime.fromisoformat(facts["end"]) for facts in known if facts.get("end")]
    if not starts:
        return []
    started = f"{min(starts).astimezone():%Y-%m-%d %H:%M}"
    took = f", took {format_duration((max(ends) - min(starts)).total_seconds())}" if len(ends) == len(known) else ""
    return [("started", f"{started}{took}")]


def read_warnings(session: Session) -> list[str]:
    """Return the warnings in the status of a Session."""
    return list((session.directory.find_status() or {}).get("warnings", []))


def print_facts(console: Terminal, facts: Sequence[tuple[str, str]]) -> None:
    """Print named facts below each other."""
    width = max(len(name) for name, _ in facts)
    for name, text in facts:
        console.print(Text.assemble((name.ljust(width), "dim"), f"  {text}"), hang=width + 2)
