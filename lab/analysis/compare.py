"""Sessions, Trials and Experiments side by side: may one be called better than another?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lab.analysis.experiment import Experiment, read_experiment
from lab.analysis.plotting import band, heading, legend, line_style, literal, note, over_frames, save, style
from lab.analysis.session import WINDOW, Session, read_session, read_spec, session_results
from lab.analysis.statistics import (
    MIN_SEEDS,
    MIN_VALUES,
    Estimate,
    difference,
    probability_of_improvement,
    subtract_from,
)
from lab.analysis.text import format_hyperparameter, short_names, shorten
from lab.analysis.trial import Trial, describe_unfinished, read_trial
from lab.common.text import canonical, format_value, plural
from lab.errors import LabError, require_one_of
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.schemas import LESS_IS_BETTER, METRICS, meaning

IDENTITY = re.compile(r"(name|init_from\.weights)$|tuning\.")  # keys that decide no numbers
MAX_REASONS = 3  # in an error
MAX_KEYS = 4  # hyperparameters in a label of the picture
MAX_LABEL = 90  # characters
CURVES = {"eval_return": "eval_return", "eval_best": "eval_return", "length": "length"}  # of other metrics: return
LABELS = {
    "return": f"mean return of the last {WINDOW} episodes",
    "eval_return": "mean return of an evaluation",
    "length": f"mean steps of the last {WINDOW} episodes",
}


@dataclass
class Entry:
    """One side of a comparison: the directory that the user named, and its Sessions; a Session is a Trial of one."""

    path: Path
    trial: Trial
    note: str = ""  # a sentence on which Trial stands for an Experiment
    name: str = field(default="", init=False)  # the shortest that distinguishes it from the other sides
    label: str = field(default="", init=False)  # in the picture: the name, and what differs in the spec
    until: int | None = field(default=None, init=False)  # frame after which it is compared; None for the end
    same_budget: bool = field(default=True, init=False)  # whether all sides were to be trained for as many frames

    @property
    def n(self) -> str:
        """Number of completed Sessions, as `4` or `3 of 4`."""
        planned, completed = len(self.trial.sessions), len(self.trial.completed)
        return str(planned) if completed == planned else f"{completed} of {planned}"

    @cached_property
    def trial_until(self) -> Trial:
        """The completed Sessions as they were after frame `until`."""
        if self.until is None:
            return self.trial
        return replace(self.trial, sessions=[_until(session, self.until) for session in self.trial.completed])

    def trial_for(self, metric: str) -> Trial:
        """Return the Sessions as they were after the frame of `until_for`."""
        return self.trial if self.until_for(metric) is None else self.trial_until

    def values(self, metric: str) -> np.ndarray:
        """Return a metric of each completed Session that has it [n], as it was after the frame of `until_for`."""
        return self.trial_for(metric).values(metric)

    def until_for(self, metric: str) -> int | None:
        """Return the frame after which a metric is compared: the end for numbers of frames until success."""
        return None if metric == "frames" or (self.same_budget and metric in LESS_IS_BETTER) else self.until

    @property
    def goal(self) -> object:
        """The return at which its Sessions stop; None if they train for all frames."""
        return self.trial.spec.get("stop_at")


def _until(session: Session, frame: int) -> Session:
    assert session.tables is not None
    tables = session.tables.until(frame)
    return replace(session, tables=tables, metrics=session_results(tables))


@dataclass(frozen=True)
class Comparison:
    """Comparison of one side with another by a metric of session.json."""

    entry: Entry
    other: Entry
    metric: str
    improvement: Estimate  # probability that a Session of `entry` does better than one of `other`
    difference: Estimate  # by how much the IQM of `entry` is better (so less, where less is better)
    obstacle: str  # why the two cannot be compared; empty if they can
    doubts: list[str]  # why nothing can be concluded; empty if one is better

    def reversed(self) -> Comparison:
        """Return the comparison of the other with the one."""
        improvement, by = subtract_from(1, self.improvement), subtract_from(0, self.difference)
        return replace(self, entry=self.other, other=self.entry, improvement=improvement, difference=by)


def read_entries(paths: Sequence[Path], labels: Sequence[str] = ()) -> list[Entry]:
    """Read the sides of a comparison, and name them; sides of different budgets are compared at the smallest.

    Args:
        paths: run directories.
        labels: a name for each; empty to name them by what differs.

    Raises:
        LabError: there are fewer than two, one is named twice, is no run directory, or is an Experiment without a best
            Trial; or the labels are not one different label for each.
    """
    if len(paths) < 2:
        raise LabError(f"{', '.join(map(str, paths)) or 'nothing'} cannot be compared: name two directories or more.")
    resolved = [path.resolve() for path in paths]
    for path, absolute in zip(paths, resolved, strict=True):
        if resolved.count(absolute) > 1:
            raise LabError(f"{path} is named twice: name two different directories.")
    if labels and (len(labels) != len(paths) or len({*labels} - {""}) != len(labels)):
        raise LabError(
            f"labels={','.join(labels)} is not allowed: labels must be {len(paths)} different names, separated by"
            " commas, in the order of the directories."
        )
    entries = [read_entry(path) for path in paths]
    trials = [entry.trial for entry in entries]
    names, until = labels or short_entry_names(trials, resolved), common_frame(entries)
    same = len({session.frames for trial in trials for session in trial.completed}) < 2
    for entry, name, point in zip(entries, names, describe_points(trials), strict=True):
        entry.name, entry.until, entry.same_budget = name, until, same
        whole = point if point.startswith(f"{name} ") else f"{name}: {point}"
        entry.label = name if labels or point in name else whole
    return entries


def common_frame(entries: Sequence[Entry]) -> int | None:
    """Return the last frame that every completed Session has trained for; None if all have done the same budget."""
    sessions = [session for entry in entries for session in entry.trial.completed]
    same = len({session.frames for session in sessions}) < 2 and not any(session.stopped for session in sessions)
    return None if same else min(session.frame for session in sessions)


def read_entry(path: Path) -> Entry:
    """Read one side; an Experiment stands for its best Trial."""
    kind = find_level(path)
    if kind == "session":
        session = read_session(RunDir(path), read_spec(RunDir(path))["seed"])
        return Entry(path, Trial(TrialDir(path), None, {}, [session]))
    return (
        Entry(path, read_trial(TrialDir(path))) if kind == "trial" else _best_of(path, read_experiment(SweepDir(path)))
    )


def _best_of(path: Path, experiment: Experiment) -> Entry:
    if experiment.best is None:
        if experiment.ranking:
            front = ", ".join(str(ranked.trial.directory.path) for ranked in experiment.front)
            if len(experiment.by_environment) > 1:
                raise LabError(f"{path} has no best Trial of all, as it has several environments. Name one of {front}.")
            raise LabError(
                f"{path} has several objectives, and so no single best Trial. Name one of its Pareto front: {front}."
            )
        unranked = experiment.unranked[:MAX_REASONS]
        reasons = "; ".join(f"{trial.name}: {reason}" for trial, reason in unranked)
        raise LabError(f"{path} has no ranked Trial to compare{f' ({reasons})' if reasons else ''}.")
    trial, objective = experiment.best.trial, experiment.objective
    text = f"{path} stands for its best Trial by {objective.aggregate} {objective.metrics[0]}, {trial.name}"
    if len(experiment.ranking) > 1:
        text += f": the best of {len(experiment.ranking)} by these very seeds, so new seeds may well do worse"
    return Entry(path, trial, f"{text}.")


def short_entry_names(trials: Sequence[Trial], paths: Sequence[Path]) -> list[str]:
    """Return a name for each side: what alone differs, its algorithm, the name of its spec, or part of its path."""
    candidates = [describe_points(trials)] if len(differing_keys(trials)) == 1 else []
    candidates.append([f"algo={trial.spec.get('algo.name')}" for trial in trials])
    candidates.append([str(trial.spec.get("name")) for trial in trials])
    distinct = [candidate for candidate in candidates if len(set(candidate)) == len(candidate)]
    return distinct[0] if distinct else _short_paths([path.parts for path in paths])


def _short_paths(paths: Sequence[Sequence[str]]) -> list[str]:
    while min(map(len, paths)) > 1 and len({parts[-1] for parts in paths}) == 1:
        paths = [parts[:-1] for parts in paths]
    length = 1
    while len({tuple(parts[-length:]) for parts in paths}) < len(paths):
        length += 1
    return ["/".join(parts[-length:]) for parts in paths]


def describe_points(trials: Sequence[Trial]) -> list[str]:
    """Return for each side the hyperparameters that differ, as `lr=0.01 epochs=4`; the algorithm alone if it does."""
    names = short_names(differing_keys(trials))
    if "algo.name" in names:
        names = {key: name for key, name in (("algo.name", "algo"), ("frames", "frames")) if key in names}
    more = " …" if len(names) > MAX_KEYS else ""
    shown = list(names.items())[:MAX_KEYS]
    return [
        " ".join(f"{name}={format_hyperparameter(trial.spec.get(key))}" for key, name in shown) + more
        for trial in trials
    ]


def differing_keys(trials: Sequence[Trial]) -> list[str]:
    """Return the keys in which some sides differ, except seed, name, digests and how settings were found."""
    specs = [trial.spec for trial in trials]
    keys = dict.fromkeys(key for spec in specs for key in spec if not IDENTITY.match(key))
    return [key for key in keys if len({canonical(spec.get(key)) for spec in specs}) > 1]


def compare(entry: Entry, other: Entry, metric: str) -> Comparison:
    """Compare two sides by a metric of their completed Sessions."""
    sign = -1 if metric in LESS_IS_BETTER else 1
    x, y = sign * entry.values(metric), sign * other.values(metric)
    comparison = Comparison(entry, other, metric, probability_of_improvement(x, y), difference(x, y), "", [])
    comparison = replace(comparison, obstacle=_obstacle(comparison, len(x), len(y)))
    return comparison if comparison.obstacle else replace(comparison, doubts=_doubts(comparison, len(x), len(y)))


def _obstacle(comparison: Comparison, n: int, m: int) -> str:
    """Return why two sides with n and m results cannot be compared; empty if they can."""
    sides = ((comparison.entry, n), (comparison.other, m))
    for side, count in sides:
        if not count:
            until = side.until_for(comparison.metric)
            at = f" at frame {until:,}" if until is not None else ""
            return f"no completed Session of {side.name} has any {comparison.metric}{at}"
    one, other = comparison.entry.trial.environment, comparison.other.trial.environment
    if one != other:
        return f"{one} and {other} are different environments"
    goals = [side.goal for side, _ in sides]
    if comparison.metric == "frames" and (None in goals or goals[0] != goals[1]):
        each = " and ".join(f"{side.name} has stop_at={format_value(side.goal)}" for side, _ in sides)
        return f"frames are those until the return has reached stop_at, and {each}; metric=frames_to_solve may do"
    if max(n, m) < MIN_VALUES:
        return "one seed each says nothing about another seed"
    for side, count in sides:
        if count < MIN_VALUES:
            return f"the one seed of {side.name} says nothing about another seed"
    return ""


def _doubts(comparison: Comparison, n: int, m: int) -> list[str]:
    """Return why neither side is shown to be better."""
    doubts = [f"it takes {MIN_SEEDS} seeds each"] if min(n, m) < MIN_SEEDS else []
    improvement, by = comparison.improvement, comparison.difference
    inside = [chance for chance, each in ((0.5, improvement), (0, by)) if _contains(each, chance)]
    if inside:
        doubts.append(f"the interval{'s contain' if len(inside) > 1 else ' contains'} {' and '.join(map(str, inside))}")
    elif ((improvement["value"] or 0) > 0.5) != ((by["value"] or 0) > 0):
        doubts.append("the two point to different sides")
    for side, count in ((comparison.entry, n), (comparison.other, m)):
        completed = len(side.trial.completed)
        unstopped = sum(not session.stopped for session in side.trial.completed)
        if comparison.metric == "frames" and unstopped and not side.same_budget:
            doubts.append(f"{unstopped} of {plural(completed, 'Session')} of {side.name} never reached stop_at")
        if count < completed:
            some = f"{count} of {plural(completed, 'Session')} of {side.name} {'has' if count == 1 else 'have'}"
            doubts.append(f"only {some} {comparison.metric}, which flatters it")
    return doubts


def _contains(estimate: Estimate, value: float) -> bool:
    low, high = estimate["low"], estimate["high"]
    return low is not None and high is not None and low <= value <= high


def require_metric(entries: Sequence[Entry], metric: str) -> None:
    """Raise LabError unless some completed Session has the metric."""
    known = {name for entry in entries for session in entry.trial.completed for name in session.metrics}
    if not known:
        raise LabError("None of the Sessions completed, so there is nothing to compare.")
    require_one_of("metric", metric, known)


def list_notes(entries: Sequence[Entry], metric: str = "return") -> list[str]:
    """Return sentences on what stands for an Experiment, is excluded, or differs in frames."""
    notes = [entry.note for entry in entries if entry.note]
    for entry in entries:
        unfinished = "; ".join(describe_unfinished(entry.trial.sessions))
        if unfinished:
            notes.append(f"In {entry.name}, {unfinished}: Sessions that did not complete are excluded.")
    until = entries[0].until_for(metric)
    if until is not None and entries[0].same_budget:
        goals = {entry.goal for entry in entries}
        hint = " metric=frames compares how many they took." if len(goals) == 1 and None not in goals else ""
        notes.append(
            f"Sessions were stopped on success at different frames, so all are compared as they were at frame {until:,}"
            f", where the first of them ended.{hint}"
        )
    elif until is not None:
        frames = [f"{entry.name}: {entry.trial.completed[0].frames:,}" for entry in entries if entry.trial.completed]
        differ, stopped = f"The budgets of frames differ ({', '.join(frames)})", describe_stopped_first(entries)
        cut = f"{stopped}, so all are compared as they were there. {differ} too." if stopped else ""
        notes.append(
            f"{cut or f'{differ}, so all are compared as they were at frame {until:,}.'} A schedule over the whole"
            " training, as of the learning rate or of exploration, was less far there in a longer one."
        )
    return notes


def describe_stopped_first(entries: Sequence[Entry]) -> str:
    """Return which side `stop_at` ended at the frame where all are compared; empty if none."""
    for entry in entries:
        if any(session.stopped and session.frame == entry.until for session in entry.trial.completed):
            return f"{entry.name} stopped at frame {entry.until:,} (stop_at={format_value(entry.goal)})"
    return ""


@style()
def plot_compare(entries: Sequence[Entry], metric: str, form: str = "png") -> bytes:
    """Draw the curves of all sides together, each the mean over Sessions with its 95 % interval.

    Args:
        entries: the sides.
        metric: what is compared.
        form: png, svg or pdf.
    """
    column = CURVES.get(metric, "return" if metric in METRICS else metric)
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    ax = figure.subplots()
    title = " and ".join(dict.fromkeys(entry.trial.environment for entry in entries))
    heading(figure, title, ["mean over the completed Sessions, with its 95 % bootstrap interval"])
    for index, entry in enumerate(entries):
        label = f"{literal(shorten(entry.label, MAX_LABEL))} ({entry.n} {'Session' if entry.n == '1' else 'Sessions'})"
        frames, values = entry.trial.curve(column)
        if len(frames):
            band(ax, frames, values, label=label, **line_style(index))
        else:
            ax.plot([], [], label=label, **line_style(index))
    if not any(np.size(line.get_xdata()) for line in ax.lines):
        note(ax, f"no {column} was logged")
    until = entries[0].until
    if until is not None:
        ax.axvline(until, color="0.4", linestyle=":", linewidth=1, label=f"compared here (frame {until:,})")
    ax.set_ylabel(LABELS.get(column) or meaning(column))
    over_frames(ax)
    legend(ax)
    return save(figure, form)
