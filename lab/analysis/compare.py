"""Sessions, Trials and Experiments side by side: may one be called better than another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import seaborn as sns
from matplotlib.figure import Figure

from lab.analysis.experiment import Experiment, read_experiment
from lab.analysis.plotting import band, empty, heading, legend, over_frames, plain, png, style, trial_curve, written
from lab.analysis.session import WINDOW, read_session, read_spec
from lab.analysis.statistics import LEAST, difference, probability_of_improvement
from lab.analysis.trial import Trial, read_trial, standing
from lab.common.text import canonical
from lab.errors import LabError, require_one_of
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.schemas import LESS_IS_BETTER

# Seeds on either side below which nothing is concluded. Of two equal agents one is called better, by both intervals, in
# 31 % of comparisons of 2 and 2 seeds, 17 % of 3 and 3, 15 % of 2 and 8; but in 5 % of 4 and 4, and of any more that
# are as many on both sides (1,500 comparisons of normal draws each). Of 4 and 16 it is 8 %.
FEWEST_SEEDS = 4
MOST_KEYS = 4  # hyperparameters in which sides differ that are shown
MOST_REASONS = 3  # reasons that an error gives
CURVES = {"eval_return": "eval_return", "eval_best": "eval_return", "length": "length"}  # of other figures: return
LABELS = {
    "return": f"mean return of the last {WINDOW} episodes",
    "eval_return": "mean return of an evaluation",
    "length": f"mean steps of the last {WINDOW} episodes",
}
DASHES = ("-", "--", ":", "-.")  # curves after those of one palette


@dataclass
class Entry:
    """One of the sides of a comparison.

    Attributes:
        path: the directory that was named.
        trial: the Sessions it stands for; a Session that was named itself is a Trial of one.
        note: a sentence on what it stands for, if that is not what was named.
        name: the shortest that tells it from the other sides.
    """

    path: Path
    trial: Trial
    note: str = ""
    name: str = field(default="", init=False)

    @property
    def n(self) -> str:
        """How many of its Sessions completed, in words."""
        planned, completed = len(self.trial.sessions), len(self.trial.completed)
        return str(planned) if completed == planned else f"{completed} of {planned}"


@dataclass(frozen=True)
class Comparison:
    """How one side did against another.

    Attributes:
        entry: the one.
        other: the other.
        metric: a figure of session.json.
        improvement: probability that a Session of the one does better than one of the other, with its interval.
        difference: by how much the one's IQM is better (so less, where less is better), with its interval.
        obstacle: why the two cannot be compared at all; empty if they can.
        doubts: why nothing can be concluded; empty if one is better.
    """

    entry: Entry
    other: Entry
    metric: str
    improvement: dict[str, float | None]
    difference: dict[str, float | None]
    obstacle: str
    doubts: list[str]

    def turned(self) -> Comparison:
        """Return the same, seen from the other side."""
        improvement, by = _less(1, self.improvement), _less(0, self.difference)
        return replace(self, entry=self.other, other=self.entry, improvement=improvement, difference=by)


def read_entries(paths: Sequence[Path]) -> list[Entry]:
    """Read the sides of a comparison, and name them.

    Raises:
        LabError: there are fewer than two, one is named twice, is no run directory, or is an Experiment that has no one
            best Trial.
    """
    if len(paths) < 2:
        raise LabError(f"{', '.join(map(str, paths)) or 'nothing'} cannot be compared: name two directories or more.")
    resolved = [path.resolve() for path in paths]
    for path, found in zip(paths, resolved, strict=True):
        if resolved.count(found) > 1:
            raise LabError(f"{path} is named twice: there is nothing to tell it from.")
    entries = [_read(path) for path in paths]
    for entry, name in zip(entries, names([entry.trial for entry in entries], resolved), strict=True):
        entry.name = name
    return entries


def names(trials: Sequence[Trial], paths: Sequence[Path]) -> list[str]:
    """Return a name for each side: that of its spec, or else the one hyperparameter that differs, or part of its path.

    Args:
        trials: of each side.
        paths: of each side, absolute and all different.
    """
    keys = differing(trials)
    candidates = [[str(trial.spec.get("name")) for trial in trials]]
    if len(keys) == 1:
        last = keys[0].rpartition(".")[2]
        candidates.append([f"{last}={written(trial.spec.get(keys[0]))}" for trial in trials])
    distinct = [candidate for candidate in candidates if len(set(candidate)) == len(candidate)]
    return distinct[0] if distinct else _short_paths([path.parts for path in paths])


def differing(trials: Sequence[Trial]) -> list[str]:
    """Return the keys of the spec in which some sides differ, without the seed and the name."""
    specs = [trial.spec for trial in trials]
    keys = dict.fromkeys(key for spec in specs for key in spec if key != "name")
    return [key for key in keys if len({canonical(spec.get(key)) for spec in specs}) > 1]


def compare(entry: Entry, other: Entry, metric: str) -> Comparison:
    """Compare two sides by a figure of their completed Sessions."""
    sign = -1 if metric in LESS_IS_BETTER else 1
    x, y = sign * entry.trial.values(metric), sign * other.trial.values(metric)
    improvement, by = probability_of_improvement(x, y), difference(x, y)
    obstacle = _obstacle(entry, other, metric, len(x), len(y))
    doubts = [] if obstacle else _doubts(entry, other, metric, (len(x), len(y)), improvement, by)
    return Comparison(entry, other, metric, improvement, by, obstacle, doubts)


def require_metric(entries: Sequence[Entry], metric: str) -> None:
    """Raise LabError unless the metric is a figure of some completed Session."""
    known = {figure for entry in entries for session in entry.trial.completed for figure in session.figures}
    if not known:
        raise LabError("None of the Sessions completed, so there is nothing to compare.")
    require_one_of("metric", metric, known)


def notes(entries: Sequence[Entry]) -> list[str]:
    """Return sentences on what a reader of the comparison should know."""
    found = [entry.note for entry in entries if entry.note]
    first = entries[0]
    for entry in entries:
        rest = "; ".join(standing(entry.trial.sessions))
        if rest:
            found.append(f"In {entry.name}, {rest}: what did not complete counts for nothing.")
    for entry in entries[1:]:
        frames = [side.trial.spec.get("frames") for side in (first, entry)]
        if all(isinstance(count, int) for count in frames) and frames[0] != frames[1]:
            found.append(
                f"{first.name} was trained for {frames[0]:,} frames and {entry.name} for {frames[1]:,}:"
                " that alone can make a difference."
            )
    return found


@style()
def plot_compare(entries: Sequence[Entry], metric: str) -> bytes:
    """Draw the curves of all sides together, each the mean over Sessions with its 95 % interval; return a PNG."""
    column = CURVES.get(metric, "return")
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    ax = figure.subplots()
    title = " and ".join(dict.fromkeys(_environment(entry) for entry in entries))
    heading(figure, title, ["mean over the completed sessions, with its 95 % bootstrap interval"])
    palette = sns.color_palette("colorblind")
    drawn = False
    for index, entry in enumerate(entries):
        frames, values = trial_curve(entry.trial, column)
        line = {
            "color": palette[index % len(palette)],
            "linestyle": DASHES[index // len(palette) % len(DASHES)],
            "label": f"{plain(entry.name)} ({entry.n} {'session' if entry.n == '1' else 'sessions'})",
        }
        if len(frames):
            band(ax, frames, values, "mean", **line)
            drawn = True
        else:
            ax.plot([], [], **line)
    if not drawn:
        empty(ax, f"no {column} was logged")
    ax.set_ylabel(LABELS[column])
    over_frames(ax)
    legend(ax)
    return png(figure)


def _read(path: Path) -> Entry:
    kind = find_level(path)
    if kind == "session":
        session = read_session(RunDir(path), read_spec(RunDir(path))["seed"])
        return Entry(path, Trial(TrialDir(path), None, {}, [session]))
    if kind == "trial":
        return Entry(path, read_trial(TrialDir(path)))
    return _best(path, read_experiment(SweepDir(path)))


def _best(path: Path, experiment: Experiment) -> Entry:
    if experiment.ranking and experiment.best is None:
        front = [ranked.trial.directory.path for ranked in experiment.ranking if ranked.rank == 1]
        raise LabError(
            f"{path} has several objectives, and so no one best Trial. Name one of its Pareto front:"
            f" {', '.join(map(str, front))}."
        )
    if experiment.best is None:
        reasons = "; ".join(
            f"trial-{trial.number:03}: {reason}" for trial, reason in experiment.unranked[:MOST_REASONS]
        )
        raise LabError(f"{path} has no ranked Trial to stand for it{f' ({reasons})' if reasons else ''}.")
    trial, objective = experiment.best.trial, experiment.objective
    by = f"{objective.aggregate} {objective.metrics[0]}"
    note = f"{path} stands for its best Trial by {by}, {trial.directory.path.name}"
    if len(experiment.ranking) > 1:
        note += f": the best of {len(experiment.ranking)} by these very seeds, so new seeds may well do worse"
    return Entry(path, trial, f"{note}.")


def _short_paths(paths: Sequence[Sequence[str]]) -> list[str]:
    while min(map(len, paths)) > 1 and len({parts[-1] for parts in paths}) == 1:
        paths = [parts[:-1] for parts in paths]
    length = 1
    while len({tuple(parts[-length:]) for parts in paths}) < len(paths):
        length += 1
    return ["/".join(parts[-length:]) for parts in paths]


def _environment(entry: Entry) -> str:
    spec = entry.trial.spec
    given = "env.kwargs."
    settings = [f"{key.removeprefix(given)}={written(value)}" for key, value in spec.items() if key.startswith(given)]
    return " ".join([str(spec.get("env.id", "unknown")), *settings])


def _obstacle(entry: Entry, other: Entry, metric: str, n: int, m: int) -> str:
    """Return why two sides with n and m results cannot be compared; nothing if they can."""
    for side, count in ((entry, n), (other, m)):
        if not count:
            return f"no completed Session of {side.name} has any {metric}"
    if _environment(entry) != _environment(other):
        return f"{_environment(entry)} and {_environment(other)} are different environments"
    if n < LEAST and m < LEAST:
        return "one seed each says nothing about another seed"
    for side, count in ((entry, n), (other, m)):
        if count < LEAST:
            return f"the one seed of {side.name} says nothing about another seed"
    return ""


def _doubts(
    entry: Entry, other: Entry, metric: str, counts: tuple[int, int], improvement: dict[str, Any], by: dict[str, Any]
) -> list[str]:
    """Return why neither side is shown to be better."""
    doubts = []
    if min(counts) < FEWEST_SEEDS:
        doubts.append(f"it takes {FEWEST_SEEDS} seeds each")
    chance = {"0.5": improvement["low"] <= 0.5 <= improvement["high"], "0": by["low"] <= 0 <= by["high"]}
    held = [value for value, holds in chance.items() if holds]
    if held:
        doubts.append(f"the interval{'s hold' if len(held) > 1 else ' holds'} {' and '.join(held)}")
    elif (improvement["value"] > 0.5) != (by["value"] > 0):
        doubts.append("the two point to different sides")
    for side, count in zip((entry, other), counts, strict=True):
        completed = len(side.trial.completed)
        if count < completed:
            doubts.append(
                f"{side.name} has {metric} of {count} in {completed} Sessions, and these alone would flatter it"
            )
    return doubts


def _less(whole: float, estimate: dict[str, Any]) -> dict[str, float | None]:
    """Return what is left of a whole, with its interval."""
    ends = {"value": "value", "low": "high", "high": "low"}
    return {end: None if estimate[of] is None else whole - estimate[of] for end, of in ends.items()}
