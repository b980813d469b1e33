"""`plan=true`: what a sweep would run, the space that it would search, and about how long it would take."""

from __future__ import annotations

import csv
import heapq
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from lab.analysis.session import read_spec
from lab.common.parts import split_evenly
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import format_seeds, format_value, plural
from lab.errors import LabError
from lab.run.directory import RunDir, find_sessions, newest_runs
from lab.run.files import read_json
from lab.run.schemas import ENDED, PROVENANCE
from lab.spec import Spec
from lab.sweep.checks import EVALUATION, last_frame
from lab.sweep.overrides import parse_value
from lab.sweep.plan import SweepPlan, select
from lab.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_STEPS = 10_000  # of each environment, up to which time limits matter
MAX_TRIALS = 40  # that are listed
MAX_SESSIONS = 20  # earlier ones that an estimate is made from
MAX_READ = 200  # that are looked at for it
MIN_FRAMES = 10_000  # of an earlier Session; fewer are enough if no more are planned
MIN_FRACTION = 0.1  # of the planned frames that an earlier Session has done: the first ones learn nothing yet
SAME = ("algo._target_", "env.id", "net._target_", "device")  # what Sessions of about the same speed have in common


def preview(plan: SweepPlan, spec: Spec, outputs: Path = Path("outputs")) -> None:
    """Print a plan; run and write nothing."""
    console = Terminal(soft_wrap=True, width=UNCUT)
    trials = "a Trial" if plan.standalone else plural(plan.total, "Trial")
    if plan.settings.only_trial is not None:
        trials = f"trial-{plan.settings.only_trial:03}"
    sessions = f"{plural(len(plan.seeds), 'Session')} ({format_seeds(plan.seeds)})"
    each = " each" if plan.total * len(plan.seeds) > 1 else ""
    console.print(f"{spec.name}: {trials} of {sessions}, {plural(spec.frames, 'frame')}{each}", style="bold")
    console.print(f"in {plan.directory.path}")
    if plan.settings.search:
        console.print(f"\n{describe_search(plan)}")
        console.print(list_space(plan.overrides.space))
    if not plan.standalone:
        listed = list_trials(plan)
        console.print()
        if listed.row_count:
            console.print(listed)
        if more := plan.total - listed.row_count:
            suggested = "" if plan.points else ", at points that the search suggests"
            noun = "more Trial" if listed.row_count else "Trial"
            console.print(f"{'and ' if listed.row_count else ''}{plural(more, noun)}{suggested}")
    states = count_states(plan)
    console.print(f"\n{plural(sum(states.values()), 'Session')}: {_list_counts(states)}.")
    console.print(describe_jobs(plan))
    console.print(estimate_time(plan, spec, outputs))
    if short := describe_short(plan, spec):
        console.print(f"Note: {short}", style="yellow")


def describe_short(plan: SweepPlan, spec: Spec) -> str:
    """Return a sentence if no episode can reach its time limit, so that there may be nothing to rank by."""
    from lab.env.vector import find_time_limit

    metrics = [metric for metric in plan.objective.metrics if not metric.startswith(EVALUATION)]
    steps = last_frame(spec) // spec.env.num_envs
    limit = find_time_limit(spec.env) if metrics and steps < MAX_STEPS else None
    if limit is None or steps >= limit:
        return ""
    return (
        f"Each environment takes {steps:,} steps, and an episode of {spec.env.id} up to {limit:,}: a Session in which"
        f" none ends has no {' and no '.join(metrics)}, and its Trial cannot be ranked."
    )


def describe_search(plan: SweepPlan) -> str:
    """Return a line that introduces the search space: sampler, pruner, objective."""
    choices = plan.composer.config.hydra.runtime.choices
    sampler, pruner = (choices.get(f"hydra/sweeper/{part}") or "default" for part in ("sampler", "pruner"))
    goals = (
        f"{direction} the {plan.objective.aggregate} {metric} over seeds"
        for metric, direction in zip(plan.objective.metrics, plan.objective.directions, strict=True)
    )
    prunes = f", pruner {pruner} after each of {plan.settings.rungs} parts" if plan.prune else ""
    custom = plan.settings.search.custom if plan.settings.search else None
    more = f"; {custom} suggests more" if custom else ""
    return f"Search space (sampler {sampler}{prunes}, to {' and '.join(goals)}{more}):"


def list_space(space: dict[str, BaseDistribution]) -> Table:
    """Return a table of the searched keys and their ranges or choices."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    for key, distribution in space.items():
        table.add_row(f"  {key.lstrip('+')}", describe_distribution(distribution))
    return table


def describe_distribution(distribution: Any) -> str:
    """Return the range of a distribution, or its choices."""
    if hasattr(distribution, "choices"):
        return f"one of {', '.join(format_value(parse_value(text)) for text in distribution.choices)}"
    step = distribution.step if distribution.step not in (None, 1) else None
    ends = (format_value(end, digits=4) for end in (distribution.low, distribution.high))
    kind = ", whole numbers" if isinstance(distribution.low, int) else ""
    log = ", on a logarithmic scale" if distribution.log else ""
    return f"from {' to '.join(ends)}{kind}{f', in steps of {format_value(step)}' if step else ''}{log}"


def list_trials(plan: SweepPlan) -> Table:
    """Return a table of the first Trials whose points are known: what is to be run, and their hyperparameters."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Trial", "Sessions", "hyperparameters"):
        table.add_column(column, no_wrap=True)
    started = plan.started()
    rows = [(trial.number, trial.point, trial_states(trial)) for trial in started]
    known = plan.points or ([plan.default_point] if plan.default_point else [])  # a search suggests the defaults first
    new = enumerate(known[len(started) :], len(started))
    rows += [(number, point, Counter({"to run": len(plan.seeds)})) for number, point in new]
    for number, point, states in rows[:MAX_TRIALS]:
        values = ", ".join(f"{key}={format_value(value, digits=4)}" for key, value in point.hyperparameters.items())
        table.add_row(f"trial-{number:03}", _list_counts(states), values)
    return table


def trial_states(trial: Trial) -> Counter[str]:
    """Count the Sessions of a Trial: "to run", or how they ended; none of a pruned Trial is started any more."""
    remaining = trial.remaining()
    states = trial.states().items()
    return Counter(
        "to run" if seed in remaining else state if state in ENDED else "pruned" for seed, state in sorted(states)
    )


def count_states(plan: SweepPlan) -> Counter[str]:
    """Count the Sessions of a plan: those to be run, and how the others ended."""
    started = plan.started()
    new = Counter({"to run": (plan.total - len(started)) * len(plan.seeds)})
    return sum(map(trial_states, started), new)


def describe_jobs(plan: SweepPlan) -> str:
    """Return how Sessions are packed into jobs, and how many run at the same time."""
    of = "of Trials that differ in numbers alone" if plan.mixes_trials and plan.stack > 1 else "of a Trial"
    stacks = "one Session a job" if plan.stack == 1 else f"up to {plan.stack} Sessions {of} in a job"
    return f"{stacks[0].upper()}{stacks[1:]}; up to {plural(jobs_at_once(plan), 'job')} at the same time."


def jobs_at_once(plan: SweepPlan) -> int:
    """Return how many jobs run at the same time at most."""
    slots, seeds = plan.composer.launcher.slots, len(plan.seeds)
    jobs = -(-plan.parallel * seeds // plan.stack) if plan.mixes_trials else plan.parallel * -(-seeds // plan.stack)
    return max(1, min(slots, jobs))


def estimate_time(plan: SweepPlan, spec: Spec, outputs: Path) -> str:
    """Estimate how long a plan would take, from earlier Sessions that are like its own."""
    jobs = list_jobs(plan, spec)
    if not jobs:
        return "There is nothing to run."
    speeds: dict[str, float] = {}  # frames per second of a job, all Sessions of its stack together
    sources = []
    for kind, like in {_kind(like): like for like, _ in jobs}.items():
        measured = measure_speeds(plan, like, outputs)
        if not measured:
            return (
                f"How long it would take is not known: no earlier Session of {kind} with"
                f" {plural(min_frames(like), 'frame')} or more lies in {plan.directory.path} or {outputs};"
                " runs with mode=dev do not count."
            )
        speeds[kind] = median(speed for _, _, speed in measured)
        sources.append(f"{speeds[kind]:,.0f} frames/s for {kind}, as in {_describe_sample(measured)}")
    loads = [0.0] * min(jobs_at_once(plan), len(jobs))
    for like, frames in jobs:
        heapq.heapreplace(loads, loads[0] + frames / speeds[_kind(like)])
    less = ", less if Trials are pruned" if plan.prune else ""
    return (
        f"It would take about {_round_duration(max(loads))}{less}: {plural(len(jobs), 'job')} at"
        f" {' and '.join(sources)}."
    )


def _round_duration(seconds: float) -> str:
    """Return a time in the unit that suits an estimate."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def list_jobs(plan: SweepPlan, spec: Spec) -> list[tuple[Spec, int]]:
    """Return for each job a spec and the frames that its Sessions still have to do together."""
    started = plan.started()
    new = [plan.trial(number, point) for number, point in enumerate(plan.points or ()) if number >= len(started)]
    groups: dict[Hashable, list[tuple[Spec, int]]] = {}
    for trial in (*started, *new):
        like = plan.composer.specs(trial.overrides, plan.seeds)[0]
        frames = [(like, _frames_left(trial.directory.session(seed), like.frames)) for seed in trial.remaining()]
        groups.setdefault(plan.group(trial), []).extend(frames)
    for number in range(len(started) + len(new), plan.total):  # at points that the search suggests
        sessions = [(spec, spec.frames)] * len(plan.seeds)
        groups.setdefault("suggested" if plan.mixes_trials else number, []).extend(sessions)
    parts = [part for sessions in groups.values() for part in split_evenly(sessions, plan.stack)]
    return [(part[0][0], sum(frames for _, frames in part)) for part in parts]


def _frames_left(session: RunDir, frames: int) -> int:
    status = session.find_status()
    return max(frames - status["frame"], 0) if status and status["state"] not in ENDED else frames


def _kind(spec: Spec) -> str:
    return f"{spec.algo.name} on {spec.env.id} ({spec.device})"


def measure_speeds(plan: SweepPlan, spec: Spec, outputs: Path) -> list[tuple[RunDir, int, float]]:
    """Return Sessions like a spec: of the sweep itself, or else the latest ones below `outputs`.

    Returns:
        Each with its stack size and the frames per second of its job. Those of the plan's stack size are preferred.
    """
    plain = spec.to_dict()
    others = sorted(newest_runs(outputs), key=lambda run: spec.algo.name not in run.parent.parent.name)  # stays stable
    for folders in ([plan.directory.path], others):
        sessions = islice((session for folder in folders for session in find_sessions(folder)), MAX_READ)
        measured = [(session, *speed) for session in sessions if (speed := job_speed(session, plain, min_frames(spec)))]
        if measured:
            return ([entry for entry in measured if entry[1] == plan.stack] or measured)[:MAX_SESSIONS]
    return []


def _describe_sample(measured: Sequence[tuple[RunDir, int, float]]) -> str:
    session, stack, _ = measured[0]
    stacked = f", of {plural(stack, 'Session')} a job" if {entry[1] for entry in measured} == {stack} else ""
    if len(measured) == 1:
        return f"the earlier Session {session.path}{stacked}"
    return f"{len(measured)} earlier Sessions{stacked}, the first {session.path}"


def min_frames(spec: Spec) -> int:
    """Return the minimum number of frames for an earlier Session to predict the speed of a spec."""
    return int(max(min(spec.frames, MIN_FRAMES), MIN_FRACTION * spec.frames))


def job_speed(directory: RunDir, spec: dict[str, Any], least: int) -> tuple[int, float] | None:
    """Return the stack size and the frames per second of the job that a Session was trained in.

    None for a Session that runs, has fewer frames than `least`, or is unlike the spec, as one with mode=dev is: its
    learning steps are slow, because each is checked.
    """
    try:
        status = directory.find_status()
        if not status or status["state"] not in ENDED or not directory.timing.exists():
            return None
        recorded = read_spec(directory)
        if recorded["mode"] == "dev" or any(select(recorded, key) != select(spec, key) for key in SAME):
            return None
        with directory.timing.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        seconds, frames = sum(float(row["seconds"]) for row in rows), float(rows[-1]["frame"])
        stack = len(read_json(directory.provenance, PROVENANCE)["stack"]) if directory.provenance.exists() else 1
        return (stack, stack * frames / seconds) if seconds and frames >= least else None
    except (LabError, OSError, ValueError, KeyError, TypeError, IndexError, csv.Error):  # a file is damaged
        return None


def _list_counts(states: Counter[str]) -> str:
    order = sorted(states, key=lambda state: (state != "to run", state))
    return ", ".join(f"{states[state]:,} {state}" for state in order if states[state] or state == "to run")
