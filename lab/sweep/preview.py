"""`plan=true`: what a sweep would run, and about how long it would take."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from statistics import median

from rich.table import Table

from lab.common.terminal import Terminal
from lab.common.text import format_duration, format_value
from lab.errors import LabError
from lab.run.directory import RunDir, find_sessions
from lab.run.files import read_json
from lab.run.schemas import ENDED, PROVENANCE
from lab.spec import Spec
from lab.sweep.plan import SweepPlan

MAX_TRIALS = 40  # that are listed
MAX_SESSIONS = 20  # earlier ones that an estimate is made from


def preview(plan: SweepPlan, spec: Spec, outputs: Path = Path("outputs")) -> None:
    """Print a plan; run and write nothing."""
    console = Terminal(soft_wrap=True)
    console.width = max(console.width, 140)
    remaining = plan.count_remaining()
    trials = "a Trial" if plan.standalone else f"{plan.total} Trials"
    console.print(f"{spec.name}: {trials} of {len(plan.seeds)} Sessions, {spec.frames:,} frames each", style="bold")
    console.print(f"in {plan.directory.path}")
    if not plan.standalone:
        console.print(list_trials(plan))
        if plan.total > MAX_TRIALS:
            console.print(f"and {plan.total - MAX_TRIALS} more")
    stacks = "one Session a job" if plan.stack == 1 else f"up to {plan.stack} Sessions of a Trial stacked in a job"
    ended = plan.total * len(plan.seeds) - remaining
    console.print(
        f"\n{remaining} Sessions to run, {ended} have ended; {stacks}, up to {plan.parallel} Trials at the same time."
    )
    console.print(estimate_time(plan, spec, remaining, outputs))


def list_trials(plan: SweepPlan) -> Table:
    """Return a table of the Trials, the states of their Sessions and their hyperparameters."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Trial", "Sessions", "hyperparameters"):
        table.add_column(column, no_wrap=True)
    started = {trial.number: trial for trial in plan.started()}
    for number in range(min(plan.total, MAX_TRIALS)):
        trial, states = started.get(number), f"{len(plan.seeds)} to run"
        if trial:
            states = ", ".join(f"{n} {state}" for state, n in Counter(trial.states().values()).items())
        point = trial.point if trial else plan.points[number] if plan.points else None
        pairs = point.hyperparameters.items() if point else ()
        values = ", ".join(f"{key}={format_value(value, digits=4)}" for key, value in pairs)
        table.add_row(f"trial-{number:03}", states, values if point else "chosen by the search")
    return table


def estimate_time(plan: SweepPlan, spec: Spec, remaining: int, outputs: Path) -> str:
    """Estimate how long a plan would take, from earlier Sessions of the same name."""
    if not remaining:
        return "There is nothing to run."
    folders = [plan.directory.path, *sorted((outputs / spec.name).glob("*/*/"))]  # by date and time
    sessions = [session for folder in folders for session in find_sessions(folder) if session.results.exists()]
    speeds = [speed for session in sessions[-MAX_SESSIONS:] if (speed := frames_per_second(session))]
    if not speeds:
        return "How long it would take is not known: there is no earlier Session of the same name."
    jobs = min(plan.parallel, -(-remaining // plan.stack))
    seconds = remaining * spec.frames / median(speeds) / jobs
    return (
        f"It would take about {format_duration(seconds)} and some seconds to start: {jobs} jobs at the same time, at"
        f" {median(speeds):,.0f} frames/s each, as in {len(speeds)} earlier Sessions of the same name."
    )


def frames_per_second(directory: RunDir) -> float | None:
    """Return the speed of the job that a Session was trained in: of all Sessions in the stack together."""
    status = directory.find_status()
    if not status or status["state"] not in ENDED or not directory.timing.exists():
        return None
    try:
        with directory.timing.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        seconds = sum(float(row["seconds"]) for row in rows)
        stack = len(read_json(directory.provenance, PROVENANCE)["stack"]) if directory.provenance.exists() else 1
        return stack * float(rows[-1]["frame"]) / seconds if seconds else None
    except (LabError, ValueError, KeyError, TypeError, IndexError, csv.Error):  # the file is damaged
        return None
