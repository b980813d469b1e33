"""Sessions, Trials and Experiments side by side: may one be called better than another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lab.analysis.experiment import Experiment, read_experiment
from lab.analysis.plotting import band, heading, legend, line_style, literal, note, over_frames, png, style
from lab.analysis.session import WINDOW, read_session, read_spec
from lab.analysis.statistics import MIN_SEEDS, MIN_VALUES, Estimate, difference, probability_of_improvement
from lab.analysis.text import format_hyperparameter
from lab.analysis.trial import Trial, describe_unfinished, read_trial
from lab.common.text import canonical, plural
from lab.errors import LabError, require_one_of
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.schemas import LESS_IS_BETTER

MAX_REASONS = 3  # in an error
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

    @property
    def n(self) -> str:
        """Number of completed Sessions, as `4` or `3 of 4`."""
        planned, completed = len(self.trial.sessions), len(self.trial.completed)
        return str(planned) if completed == planned else f"{completed} of {planned}"


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
        improvement, by = _subtract_from(1, self.improvement), _subtract_from(0, self.difference)
        return replace(self, entry=self.other, other=self.entry, improvement=improvement, difference=by)


def _subtract_from(total: float, estimate: Estimate) -> Estimate:
    ends = {"value": estimate["value"], "low": estimate["high"], "high": estimate["low"]}
    return {end: None if value is None else total - value for end, value in ends.items()}


def read_entries(paths: Sequence[Path]) -> list[Entry]:
    """Read the sides of a comparison, and name them.

    Raises:
        LabError: there are fewer than two, one is named twice, is no run directory, or is an Experiment without a best
            Trial.
    """
    if len(paths) < 2:
        raise LabError(f"{', '.join(map(str, paths)) or 'nothing'} cannot be compared: name two directories or more.")
    resolved = [path.resolve() for path in paths]
    for path, absolute in zip(paths, resolved, strict=True):
        if resolved.count(absolute) > 1:
            raise LabError(f"{path} is named twice: name two different directories.")
    entries = [_read_entry(path) for path in paths]
    for entry, name in zip(entries, short_entry_names([entry.trial for entry in entries], resolved), strict=True):
        entry.name = name
    return entries


def _read_entry(path: Path) -> Entry:
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
        reasons = "; ".join(f"trial-{trial.number:03}: {reason}" for trial, reason in unranked)
        raise LabError(f"{path} has no ranked Trial to compare{f' ({reasons})' if reasons else ''}.")
    trial, objective = experiment.best.trial, experiment.objective
    text = (
        f"{path} stands for its best Trial by {objective.aggregate} {objective.metrics[0]}, {trial.directory.path.name}"
    )
    if len(experiment.ranking) > 1:
        text += f": the best of {len(experiment.ranking)} by these very seeds, so new seeds may well do worse"
    return Entry(path, trial, f"{text}.")


def short_entry_names(trials: Sequence[Trial], paths: Sequence[Path]) -> list[str]:
    """Return a name for each side: that of its spec, the only hyperparameter that differs, or part of its path."""
    keys = differing_keys(trials)
    candidates = [[str(trial.spec.get("name")) for trial in trials]]
    if len(keys) == 1:
        last = keys[0].rpartition(".")[2]
        candidates.append([f"{last}={format_hyperparameter(trial.spec.get(keys[0]))}" for trial in trials])
    distinct = [candidate for candidate in candidates if len(set(candidate)) == len(candidate)]
    return distinct[0] if distinct else _short_paths([path.parts for path in paths])


def _short_paths(paths: Sequence[Sequence[str]]) -> list[str]:
    while min(map(len, paths)) > 1 and len({parts[-1] for parts in paths}) == 1:
        paths = [parts[:-1] for parts in paths]
    length = 1
    while len({tuple(parts[-length:]) for parts in paths}) < len(paths):
        length += 1
    return ["/".join(parts[-length:]) for parts in paths]


def differing_keys(trials: Sequence[Trial]) -> list[str]:
    """Return the keys of the spec, except seed and name, in which some sides differ."""
    specs = [trial.spec for trial in trials]
    keys = dict.fromkeys(key for spec in specs for key in spec if key != "name")
    return [key for key in keys if len({canonical(spec.get(key)) for spec in specs}) > 1]


def compare(entry: Entry, other: Entry, metric: str) -> Comparison:
    """Compare two sides by a metric of their completed Sessions."""
    sign = -1 if metric in LESS_IS_BETTER else 1
    x, y = sign * entry.trial.values(metric), sign * other.trial.values(metric)
    comparison = Comparison(entry, other, metric, probability_of_improvement(x, y), difference(x, y), "", [])
    comparison = replace(comparison, obstacle=_obstacle(comparison, len(x), len(y)))
    return comparison if comparison.obstacle else replace(comparison, doubts=_doubts(comparison, len(x), len(y)))


def _obstacle(comparison: Comparison, n: int, m: int) -> str:
    """Return why two sides with n and m results cannot be compared; empty if they can."""
    sides = ((comparison.entry, n), (comparison.other, m))
    for side, count in sides:
        if not count:
            return f"no completed Session of {side.name} has any {comparison.metric}"
    one, other = comparison.entry.trial.environment, comparison.other.trial.environment
    if one != other:
        return f"{one} and {other} are different environments"
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


def list_notes(entries: Sequence[Entry]) -> list[str]:
    """Return sentences on what stands for an Experiment, is excluded, or differs in frames."""
    notes = [entry.note for entry in entries if entry.note]
    for entry in entries:
        unfinished = "; ".join(describe_unfinished(entry.trial.sessions))
        if unfinished:
            notes.append(f"In {entry.name}, {unfinished}: Sessions that did not complete are excluded.")
    first = entries[0]
    for entry in entries[1:]:
        one, other = (side.trial.spec.get("frames") for side in (first, entry))
        if isinstance(one, int) and isinstance(other, int) and one != other:
            notes.append(
                f"{first.name} was trained for {plural(one, 'frame')} and {entry.name} for {other:,}:"
                " that alone can make a difference."
            )
    return notes


@style()
def plot_compare(entries: Sequence[Entry], metric: str) -> bytes:
    """Draw the curves of all sides together, each the mean over Sessions with its 95 % interval; return a PNG."""
    column = CURVES.get(metric, "return")
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    ax = figure.subplots()
    title = " and ".join(dict.fromkeys(entry.trial.environment for entry in entries))
    heading(figure, title, ["mean over the completed sessions, with its 95 % bootstrap interval"])
    for index, entry in enumerate(entries):
        label = f"{literal(entry.name)} ({entry.n} {'session' if entry.n == '1' else 'sessions'})"
        frames, values = entry.trial.curve(column)
        if len(frames):
            band(ax, frames, values, label=label, **line_style(index))
        else:
            ax.plot([], [], label=label, **line_style(index))
    if not any(np.size(line.get_xdata()) for line in ax.lines):
        note(ax, f"no {column} was logged")
    ax.set_ylabel(LABELS[column])
    over_frames(ax)
    legend(ax)
    return png(figure)
