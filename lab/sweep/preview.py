"""`plan=true`: what a sweep would run, what is complete, and about how long it would take."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from statistics import median

from rich.table import Table

from lab.common.terminal import Terminal
from lab.common.text import format_duration
from lab.errors import LabError
from lab.run.directory import RunDir, find_sessions
from lab.run.files import read_json
from lab.run.schemas import ENDED, PROVENANCE
from lab.spec import Spec
from lab.sweep.plan import SweepPlan
from lab.sweep.tree import value_of
from lab.trial import Trial

MOST_TRIALS = 40  # that are listed one by one
MOST_SESSIONS = 20  # earlier ones that an estimate is made from


def preview(plan: SweepPlan, spec: Spec, outputs: Path = Path("outputs")) -> None:
    """Print the plan; run and write nothing."""
    console = Terminal(soft_wrap=True)
    console.width = max(console.width, 140)
    begun = {trial.number: trial for trial in plan.started()}
    left = sum(len(trial.remaining()) for trial in begun.values()) + (plan.total - len(begun)) * len(plan.seeds)
    done = plan.total * len(plan.seeds) - left
    what = "a Trial" if plan.standalone else f"{plan.total} Trials"
    console.print(f"{spec.name}: {what} of {len(plan.seeds)} Sessions, {spec.frames:,} frames each", style="bold")
    console.print(f"in {plan.directory.path}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Trial", "Sessions", "hyperparameters"):
        table.add_column(column, no_wrap=True)
    for number in range(min(plan.total, MOST_TRIALS)):
        table.add_row(*row(plan, number, begun.get(number)))
    if not plan.standalone:
        console.print(table)
        if plan.total > MOST_TRIALS:
            console.print(f"and {plan.total - MOST_TRIALS} more")
    console.print(f"\n{left} Sessions to run, {done} have ended; {packing(plan)}.")
    console.print(estimate(plan, spec, left, outputs))


def row(plan: SweepPlan, number: int, trial: Trial | None) -> tuple[str, str, str]:
    """Return a Trial's name, how its Sessions stand, and its hyperparameters."""
    name = f"trial-{number:03}"
    if trial:
        states = Counter(trial.states().values())
        point, stand = trial.point, ", ".join(f"{n} {state}" for state, n in states.items())
    else:
        stand = f"{len(plan.seeds)} to run"
        if plan.points is None:
            return name, stand, "chosen by the search"
        point = plan.points[number]
    return name, stand, ", ".join(f"{key}={value_of(value)}" for key, value in point.hyperparameters.items())


def packing(plan: SweepPlan) -> str:
    """Say how Sessions go to jobs."""
    stacks = "one Session a job" if plan.stack == 1 else f"up to {plan.stack} Sessions of a Trial stacked in a job"
    return f"{stacks}, up to {plan.parallel} Trials at the same time"


def estimate(plan: SweepPlan, spec: Spec, left: int, outputs: Path) -> str:
    """Say about how long it would take, from Sessions of the same name that completed earlier."""
    runs = [plan.directory.path, *sorted((outputs / spec.name).glob("*/*/"))]  # by date and time
    found = [session for path in runs for session in find_sessions(path) if session.results.exists()]
    speeds = [speed for session in found[-MOST_SESSIONS:] if (speed := frames_per_second(session))]
    if not left:
        return "There is nothing to run."
    if not speeds:
        return "How long it would take is not known: there is no earlier Session of the same name."
    jobs = min(plan.parallel, -(-left // plan.stack))
    seconds = left * spec.frames / median(speeds) / jobs
    return (
        f"That would take about {format_duration(seconds)} and some seconds to start, with {jobs} jobs at the same"
        f" time at {median(speeds):,.0f} frames/s each, as {len(speeds)} earlier Sessions of the same name tell."
    )


def frames_per_second(directory: RunDir) -> float | None:
    """Return the speed of the job that a Session was trained in: its own, by all that were stacked with it."""
    status = directory.find_status()
    if not status or status["state"] not in ENDED or not directory.timing.exists():
        return None
    try:
        with directory.timing.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        seconds = sum(float(line["seconds"]) for line in rows)
        stacked = len(read_json(directory.provenance, PROVENANCE)["stack"]) if directory.provenance.exists() else 1
        return stacked * float(rows[-1]["frame"]) / seconds if seconds else None
    except (LabError, ValueError, KeyError, TypeError, IndexError, csv.Error):  # of a file that is damaged
        return None
