"""The plot of an Experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lab.analysis.experiment import Experiment, Ranked
from lab.analysis.plotting import (
    STRONG,
    band,
    blank,
    brief,
    empty,
    heading,
    legend,
    over_frames,
    plain,
    png,
    reference_lines,
    reference_of,
    session_curve,
    short_names,
    style,
    trial_curve,
    written,
)
from lab.analysis.scale import MOST_LABELS, Scale, offsets
from lab.analysis.session import WINDOW
from lab.analysis.trial import Trial

Panel = Callable[[Axes, Experiment], None]

STRONGEST = 6  # Trials whose curves are drawn strong
# Colors of the best Trials in order: those of seaborn's color-blind palette that show on white and are not gray.
RANKS = [sns.color_palette("colorblind")[place] for place in (3, 0, 2, 4, 9, 1)]
BEST, OTHERS = RANKS[0], "0.6"
MOST_RANKED = 15  # Trials in the ranking
MOST_HYPERPARAMETERS = 8  # with a panel and an axis of their own, by importance
MOST_BARS = 10  # hyperparameters whose importance is drawn
MOST_ACROSS = 5  # panels side by side
MOST_LETTERS = 116  # of what the legend says of a Trial; half as many leave room for two columns


@style()
def plot_experiment(experiment: Experiment) -> bytes:
    """Draw an Experiment's curves, ranking, hyperparameters and their importance; return a PNG."""
    keys = sorted(experiment.hyperparameters, key=lambda key: -experiment.importance.get(key, -1.0))
    entries = _entries(experiment, keys)
    columns = 1 if max(map(len, entries), default=0) > MOST_LETTERS // 2 else 2
    several = len(experiment.objective.metrics) > 1
    top: list[Panel] = [partial(_curves, entries=entries, columns=columns), _front if several else _ranking]
    rows = [(4.6 + 0.2 * len(entries) / columns, top)]
    if keys:
        shown = keys[:MOST_HYPERPARAMETERS]
        panels: list[Panel] = [partial(_hyperparameter, key=key) for key in shown]
        panels.append(partial(_importance, keys=keys))
        across = -(-len(panels) // -(-len(panels) // MOST_ACROSS))
        rows += [(3.2, panels[first : first + across]) for first in range(0, len(panels), across)]
        if experiment.ranking:
            rows.append((4.2, [partial(_parallel_coordinates, keys=shown)]))
    figure = Figure(figsize=(15, 0.8 + sum(height for height, _ in rows)), layout="constrained")
    grid = figure.add_gridspec(len(rows), 1, height_ratios=[height for height, _ in rows])
    for place, (_, row) in enumerate(rows):
        split = grid[place].subgridspec(1, len(row), width_ratios=(1.7, 1) if row is top else None)
        cells = [split[column] for column in range(len(row))]
        # Within a cell of its own, the legend below the curves takes no room from the ranking.
        spots = [cell.subgridspec(1, 1)[0] for cell in cells] if row is top else cells
        for spot, panel in zip(spots, row, strict=True):
            panel(figure.add_subplot(spot), experiment)
    heading(figure, _title(experiment), _notes(experiment))
    return png(figure)


def _title(experiment: Experiment) -> str:
    sessions = [session for trial in experiment.trials for session in trial.sessions]
    environments = sorted({session.tables.spec["env"]["id"] for session in sessions if session.tables})
    name = experiment.sweep.get("name") or experiment.directory.path.name
    where = f": {brief(', '.join(environments), 60)}" if environments else ""
    return f"{name}{where}, {_plural(len(experiment.trials), 'trial')}, {_plural(len(sessions), 'session')}"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _notes(experiment: Experiment) -> list[str]:
    """Return the lines below the title: what ranks the Trials, and what there is nothing of."""
    goals = [f"{_label(experiment, place)}, {way}d" for place, way in enumerate(experiment.objective.directions)]
    alone = all(len(trial.sessions) < 2 for trial in experiment.trials)
    lines = [f"objective: {'; '.join(goals)}{'. One seed each: no intervals' if alone else ''}"]
    return lines if experiment.hyperparameters else [*lines, "no hyperparameter differs between the trials"]


def _label(experiment: Experiment, objective: int = 0) -> str:
    how = experiment.objective.aggregate
    named = {"lower": "lower end of the mean's 95 % interval", "iqm": "IQM"}.get(how, how)
    return f"{experiment.objective.metrics[objective]}, {named} over seeds"


def _counts(experiment: Experiment) -> str:
    """Return how many Trials are ranked, and how many are not, by state."""
    states = Counter(
        "without a value" if trial.state == "completed" else trial.state for trial, _ in experiment.unranked
    )
    named = ", ".join(f"{count}\N{NO-BREAK SPACE}{state}" for state, count in sorted(states.items()))
    return fill(f"{len(experiment.ranking)} ranked{f'; {named}: not in any mean' if named else ''}", 52)


def _entries(experiment: Experiment, keys: list[str]) -> list[str]:
    """Return what the legend says of each of the best Trials."""
    names = short_names(experiment.hyperparameters)
    entries = []
    for ranked in experiment.ranking[:STRONGEST]:
        entry = f"{ranked.rank}. trial {ranked.trial.number}"
        for place, key in enumerate(keys):
            more = f"{', ' if place else ': '}{names[key]}={brief(written(ranked.trial.value(key)), 24)}"
            if len(entry + more) > MOST_LETTERS:
                entry += ", ..."
                break
            entry += more
        entries.append(plain(entry))
    return entries


def _curves(ax: Axes, experiment: Experiment, entries: list[str], columns: int) -> None:
    """Draw the mean return of each ranked Trial, and the Sessions of the others one by one to where they ended."""
    means = [trial_curve(trial, "return") for trial in _ranked(experiment)]
    alone = all(len(values) < 2 for _, values in means)
    ax.set_title("Return" if not means else f"Return: {'one seed, no' if alone else 'mean over seeds, 95 %'} interval")
    ax.set_ylabel(f"mean return of the last {WINDOW} episodes")
    tables = [session.tables for trial, _ in experiment.unranked for session in trial.sessions if session.tables]
    cut = [session_curve(table, "return") for table in tables]
    if not any(len(frames) for frames, _ in means + cut):
        return blank(ax, "no episode has ended")
    for place, entry in enumerate(entries):
        line = "-" if place < STRONGEST // 2 else (0, (5, 1))
        band(ax, *means[place], "mean", color=RANKS[place], linestyle=line, label=entry, zorder=3 - place / STRONGEST)
    _faint(ax, cut, "trials not ranked: each session", linestyle=(0, (3, 2)))
    _faint(ax, [(frames, values.mean(axis=0)) for frames, values in means[STRONGEST:]], "other trials")
    reference_lines(ax, reference_of([session for trial in experiment.trials for session in trial.sessions]))
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False)
    over_frames(ax)
    return None


def _faint(ax: Axes, curves: list[tuple[np.ndarray, np.ndarray]], label: str, **line: Any) -> None:
    """Draw many curves as one, so faint that all of them can be seen."""
    segments = [np.column_stack(curve) for curve in curves if len(curve[0])]
    if segments:
        alpha = float(np.clip(20 / len(segments), 0.2, 0.8))
        faint = LineCollection(segments, colors=OTHERS, linewidths=0.8, alpha=alpha, zorder=1, **line)
        faint.set_in_layout(False)
        ax.add_collection(faint)
        ax.autoscale_view()
        ax.plot([], [], color=OTHERS, label=label, **line)


def _ranking(ax: Axes, experiment: Experiment) -> None:
    """Draw the objective of the best Trials with its interval, the best on top."""
    top = experiment.ranking[:MOST_RANKED]
    which = f": best {len(top)} of {len(experiment.ranking)} trials" if len(experiment.ranking) > len(top) else ""
    ax.set_title(f"Ranking{which}\n{_counts(experiment)}")
    if not top:
        return blank(ax, "no trial completed with a value: none is ranked")
    for y, ranked in enumerate(top):
        color = RANKS[y] if y < STRONGEST else OTHERS
        ax.hlines(y, *_interval(ranked), color=color, linewidth=2.5, alpha=0.6)
        ax.plot(ranked.values[0], y, "o", color=color, markersize=6)
    ax.set_yticks(range(len(top)), [f"{ranked.rank}. trial {ranked.trial.number}" for ranked in top])
    ax.set_ylim(max(len(top), 5) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(_label(experiment))
    ax.grid(alpha=0.3, axis="x")
    return None


def _front(ax: Axes, experiment: Experiment) -> None:
    """Draw the first two objectives against each other, those of the Pareto front with their intervals."""
    several = len(experiment.objective.metrics)
    which = f", objectives 1 and 2 of {several}" if several > 2 else ""
    ax.set_title(f"Pareto front{which}\n{_counts(experiment)}")
    if not experiment.ranking:
        return blank(ax, "no trial completed with values: none is ranked")
    front = [experiment.ranking[place] for place in _best(experiment)]
    behind = np.array([ranked.values for ranked in experiment.ranking[len(front) :]]).reshape(-1, several)
    if len(behind):
        ax.scatter(behind[:, 0], behind[:, 1], s=18, color=OTHERS, alpha=0.6, linewidths=0, label="other trials")
    ax.plot([], [], "o", color="0.2", label="front, by number of the trial")
    for place, ranked in enumerate(front):
        color = RANKS[place] if place < STRONGEST else STRONG
        x, y = ranked.values[:2]
        ax.hlines(y, *_interval(ranked, 0), color=color, linewidth=1.2, alpha=0.5)
        ax.vlines(x, *_interval(ranked, 1), color=color, linewidth=1.2, alpha=0.5)
        ax.plot(x, y, "o", color=color, markersize=7)
        if place < MOST_RANKED:
            ax.annotate(str(ranked.trial.number), (x, y), (4, 4), textcoords="offset points", fontsize="x-small")
    ax.set(xlabel=_label(experiment, 0), ylabel=_label(experiment, 1))
    ax.grid(alpha=0.3)
    legend(ax)
    return None


def _hyperparameter(ax: Axes, experiment: Experiment, key: str) -> None:
    """Draw the objective of each Trial against a hyperparameter, and along the bottom where the unranked ones are."""
    values = _objective(experiment)
    n = len(values)
    trials = _ranked(experiment) + [trial for trial, _ in experiment.unranked]
    scale = Scale.of([trial.value(key) for trial in trials])
    x = scale.places.copy()
    if scale.labels:
        x[:n] += 0.7 * offsets(x[:n], values * experiment.objective.signs[0])
        x[n:] += 0.7 * offsets(x[n:], np.zeros(len(x) - n))
    ends = np.array([_interval(ranked) for ranked in experiment.ranking]).reshape(-1, 2)
    ax.vlines(x[:n], *ends.T, color=STRONG, linewidth=1, alpha=0.45)
    ax.scatter(x[:n], values, s=14, color=STRONG, alpha=0.7, linewidths=0)
    best = _best(experiment)
    ax.plot(x[best], values[best], "*", color=BEST, markersize=13, markeredgecolor="white")
    bottom = ax.get_xaxis_transform()
    ax.plot(x[n:], np.full(len(x) - n, 0.02), "x", color="0.4", markersize=4, transform=bottom)
    signs = [f"★ {_best_name(experiment)}"] * bool(n) + ["x not ranked"] * (n < len(x))
    ax.set_title(", ".join(signs), loc="left", fontsize="small")
    ax.margins(y=0.1)
    if scale.labels:
        shown = np.arange(0, len(scale.labels), -(-len(scale.labels) // MOST_LABELS))
        labels = [plain(brief(scale.labels[place], 16)) for place in shown]
        crowded = sum(map(len, labels)) > 32
        ax.set_xticks(shown, labels, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        ax.set_xlim(-0.5, len(scale.labels) - 0.5)
    elif scale.log:
        ax.set_xscale("log")
    else:
        ax.locator_params(axis="x", nbins=4)
    missing = np.isnan(x).sum()
    ax.set_xlabel(plain(brief(key, 36)) + (f" ({written(None)} in {_plural(missing, 'trial')})" if missing else ""))
    ax.set_ylabel(experiment.objective.metrics[0])
    if not n:
        ax.set_yticks([])
        empty(ax, "no trial is ranked")
    ax.grid(alpha=0.3)


def _best_name(experiment: Experiment) -> str:
    return "best" if len(experiment.objective.metrics) == 1 else "Pareto front"


def _parallel_coordinates(ax: Axes, experiment: Experiment, keys: list[str]) -> None:
    """Draw each ranked Trial as a line through its hyperparameters to its objectives, the best on top."""
    left_out = len(experiment.hyperparameters) - len(keys)
    more = f", the {len(keys)} most important of {len(keys) + left_out} hyperparameters" if left_out else ""
    ax.set_title(f"Parallel coordinates of the ranked trials{more}, the {_best_name(experiment)} in orange")
    values, sign = _objective(experiment), experiment.objective.signs[0]
    scales = [Scale.of([trial.value(key) for trial in _ranked(experiment)]) for key in keys]
    columns = zip(*(ranked.values for ranked in experiment.ranking), strict=True)
    scales += [Scale.of_numbers(np.array(column)) for column in columns]
    moved = [0.6 * offsets(scale.places, sign * values) if scale.labels else 0.0 for scale in scales]
    y = np.stack([scale.unit(scale.places + by) for scale, by in zip(scales, moved, strict=True)], axis=1)
    lines = np.stack([np.broadcast_to(np.arange(len(scales)), y.shape), y], axis=2)  # [trial, axis, 2]
    colors = sns.color_palette("crest" if sign > 0 else "crest_r", as_cmap=True)
    norm = Normalize(values.min(), values.max())
    order = np.argsort(sign * values, kind="stable")
    alpha = float(np.clip(60 / len(order), 0.35, 0.9))
    faint = LineCollection(list(lines[order]), array=values[order], cmap=colors, norm=norm, linewidths=1.2, alpha=alpha)
    ax.add_collection(faint)
    ax.add_collection(LineCollection(list(lines[_best(experiment)]), colors=[BEST], linewidths=2.2))
    ax.vlines(range(len(scales)), 0, 1, color="0.2", linewidth=1, zorder=3)
    if values.min() < values.max():
        _gradient(ax, len(keys), colors)
    for place, scale in enumerate(scales):
        for at, label in scale.ticks().items():
            text = ax.annotate(plain(label), (place, at), (6, 0), textcoords="offset points", va="center", zorder=4)
            text.set(fontsize="small", path_effects=[withStroke(linewidth=2.5, foreground="white")], in_layout=False)
    short = short_names(experiment.hyperparameters)
    names = [brief(name, 22) for name in (*(short[key] for key in keys), *experiment.objective.metrics)]
    ax.set_xticks(range(len(scales)), [plain(name) for name in names])
    ax.set_yticks([])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_color("none")
    # With few axes, no wider apart than with four.
    margin = max(0.3, (4 - len(scales)) / 2)
    ax.set(xlim=(-margin, len(scales) - 1 + margin), ylim=(-0.2 if (y < 0).any() else -0.05, 1.05))


def _gradient(ax: Axes, x: float, colors: Colormap) -> None:
    """Color a vertical axis from 0 to 1 as the lines that end there."""
    low = np.linspace(0, 1, 64, endpoint=False)
    # A little over each other, so that no white shows between them.
    high = np.minimum(low + 1 / 40, 1)
    ax.vlines(np.full(64, x), low, high, colors=list(colors(low)), linewidth=6, zorder=3)


def _importance(ax: Axes, experiment: Experiment, keys: list[str]) -> None:
    """Draw the importance of hyperparameters, the greatest on top."""
    ax.set_title(f"Importance: {MOST_BARS} greatest of {len(keys)}" if len(keys) > MOST_BARS else "Importance")
    shares = {key: experiment.importance[key] for key in keys[:MOST_BARS] if key in experiment.importance}
    if not shares:
        return blank(ax, "no importance: too few trials ranked,\nor none better than another")
    names = short_names(experiment.hyperparameters)
    ax.barh(range(len(shares)), list(shares.values()), color=STRONG, height=0.6)
    ax.set_yticks(range(len(shares)), [plain(brief(names[key], 22)) for key in shares])
    ax.set_ylim(max(len(shares), 3) - 0.5, -0.5)
    ax.set_xlabel("share (PED-ANOVA)")
    ax.grid(alpha=0.3, axis="x")
    return None


def _objective(experiment: Experiment) -> np.ndarray:
    """Return the first objective by rank [n]."""
    return np.array([ranked.values[0] for ranked in experiment.ranking], float)


def _ranked(experiment: Experiment) -> list[Trial]:
    return [ranked.trial for ranked in experiment.ranking]


def _interval(ranked: Ranked, objective: int = 0) -> tuple[float, float]:
    """Return the ends of the interval of an objective; of one seed, which has none, both are its value."""
    low, high = ranked.lows[objective], ranked.highs[objective]
    value = ranked.values[objective]
    return (value, value) if low is None or high is None else (low, high)


def _best(experiment: Experiment) -> list[int]:
    """Return the places in the ranking of the best Trial, of all that tie with it, or of the Pareto front."""
    return [place for place, ranked in enumerate(experiment.ranking) if ranked.rank == 1]
