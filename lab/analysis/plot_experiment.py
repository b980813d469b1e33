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
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lab.analysis import plotting
from lab.analysis.experiment import Experiment
from lab.analysis.scale import Scale
from lab.analysis.session import WINDOW
from lab.analysis.text import format_hyperparameter, short_names, shorten
from lab.analysis.trial import common_reference
from lab.common.text import plural

Panel = Callable[[Axes, Experiment], None]

HIGHLIGHTED = 6  # Trials with a curve of their own
BEST, OTHERS = plotting.rank_color(0), "0.6"
MAX_RANKED = 15  # Trials in the ranking
MAX_HYPERPARAMETERS = 8  # with a panel and an axis of their own, by importance
MAX_BARS = 10  # hyperparameters whose importance is drawn
MAX_COLUMNS = 5  # panels side by side
MAX_LABEL = 116  # characters of a Trial in the legend; half as many leave room for two columns


@plotting.style()
def plot_experiment(experiment: Experiment) -> bytes:
    """Draw an Experiment's curves, ranking, hyperparameters and their importance; return a PNG."""
    keys = sorted(experiment.hyperparameters, key=lambda key: -experiment.importance.get(key, -1.0))
    labels = _trial_labels(experiment, keys)
    columns = 1 if max(map(len, labels), default=0) > MAX_LABEL // 2 else 2
    several = len(experiment.objective.metrics) > 1
    top: list[Panel] = [partial(_curves, labels=labels, columns=columns), _front if several else _ranking]
    rows = [(4.6 + 0.2 * len(labels) / columns, top)]  # height in inches, and panels
    if keys:
        panels: list[Panel] = [partial(_hyperparameter, key=key) for key in keys[:MAX_HYPERPARAMETERS]]
        panels.append(partial(_importance, keys=keys))
        across = -(-len(panels) // -(-len(panels) // MAX_COLUMNS))
        rows += [(3.2, panels[first : first + across]) for first in range(0, len(panels), across)]
        if experiment.ranking:
            rows.append((4.2, [partial(_parallel_coordinates, keys=keys[:MAX_HYPERPARAMETERS])]))
    figure = Figure(figsize=(15, 0.8 + sum(height for height, _ in rows)), layout="constrained")
    grid = figure.add_gridspec(len(rows), 1, height_ratios=[height for height, _ in rows])
    for index, (_, row) in enumerate(rows):
        cells = grid[index].subgridspec(1, len(row), width_ratios=(1.7, 1) if row is top else None)
        for column, panel in enumerate(row):
            # In a grid of its own, the legend below the curves takes no room from the ranking.
            cell = cells[column].subgridspec(1, 1)[0] if row is top else cells[column]
            panel(figure.add_subplot(cell), experiment)
    plotting.heading(figure, _title(experiment), _notes(experiment))
    return plotting.png(figure)


def _title(experiment: Experiment) -> str:
    sessions = [session for trial in experiment.trials for session in trial.sessions]
    environments = sorted({session.tables.spec["env"]["id"] for session in sessions if session.tables})
    where = f": {shorten(', '.join(environments), 60)}" if environments else ""
    trials = plural(len(experiment.trials), "trial")
    return f"{experiment.name}{where}, {trials}, {plural(len(sessions), 'session')}"


def _notes(experiment: Experiment) -> list[str]:
    """Return the lines below the title: what ranks the Trials, and what is missing."""
    directions = experiment.objective.directions
    goals = [f"{_label(experiment, index)}, {direction}d" for index, direction in enumerate(directions)]
    one_seed = all(len(trial.sessions) < 2 for trial in experiment.trials)
    lines = [f"objective: {'; '.join(goals)}{'. One seed each: no intervals' if one_seed else ''}"]
    return lines if experiment.hyperparameters else [*lines, "no hyperparameter differs between the trials"]


def _label(experiment: Experiment, index: int = 0) -> str:
    how = experiment.objective.aggregate
    name = {"lower": "lower end of the mean's 95 % interval", "iqm": "IQM"}.get(how, how)
    return f"{experiment.objective.metrics[index]}, {name} over seeds"


def _counts(experiment: Experiment) -> str:
    """Return how many Trials are ranked, and how many are not, by state."""
    states = [trial.state for trial, _ in experiment.unranked]
    counts = sorted(Counter("without a value" if state == "completed" else state for state in states).items())
    named = ", ".join(f"{count}\N{NO-BREAK SPACE}{state}" for state, count in counts)
    unranked = f"; {named}: excluded from means" if named else ""
    return fill(f"{len(experiment.ranking)} ranked{unranked}", 52)


def _trial_labels(experiment: Experiment, keys: list[str]) -> list[str]:
    """Return the labels of the best Trials in the legend."""
    names = short_names(experiment.hyperparameters)
    labels = []
    for ranked in experiment.ranking[:HIGHLIGHTED]:
        values = [f"{names[key]}={shorten(format_hyperparameter(ranked.trial.value(key)), 24)}" for key in keys]
        label = f"{ranked.rank}. trial {ranked.trial.number}{': ' if values else ''}{', '.join(values)}"
        labels.append(
            plotting.literal(label if len(label) <= MAX_LABEL else f"{label[:MAX_LABEL].rpartition(', ')[0]}, ...")
        )
    return labels


def _curves(ax: Axes, experiment: Experiment, labels: list[str], columns: int) -> None:
    """Draw the mean return of each ranked Trial, and each Session of the other Trials."""
    means = [ranked.trial.curve("return") for ranked in experiment.ranking]
    one_seed = all(len(values) < 2 for _, values in means)
    ax.set_title(f"Return: {'one seed, no' if one_seed else 'mean over seeds, 95 %'} interval" if means else "Return")
    ax.set_ylabel(f"mean return of the last {WINDOW} episodes")
    tables = [session.tables for trial, _ in experiment.unranked for session in trial.sessions if session.tables]
    unranked = [table.curve("return") for table in tables]
    if not any(len(frames) for frames, _ in means + unranked):
        return plotting.note(ax, "no episode has ended", hide_axes=True)
    for index, label in enumerate(labels):
        line: dict[str, Any] = {"linestyle": "-" if index < HIGHLIGHTED // 2 else (0, (5, 1))}
        plotting.band(
            ax, *means[index], color=plotting.rank_color(index), label=label, zorder=3 - index / HIGHLIGHTED, **line
        )
    _faint_curves(ax, unranked, "trials not ranked: each session", linestyle=(0, (3, 2)))
    _faint_curves(ax, [(frames, values.mean(axis=0)) for frames, values in means[HIGHLIGHTED:]], "other trials")
    plotting.reference_lines(
        ax, common_reference([session for trial in experiment.trials for session in trial.sessions])
    )
    plotting.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False)
    return plotting.over_frames(ax)


def _faint_curves(ax: Axes, curves: list[tuple[np.ndarray, np.ndarray]], label: str, **line: Any) -> None:
    """Draw many curves with one label, the fainter the more there are."""
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
    top = experiment.ranking[:MAX_RANKED]
    some = f": best {len(top)} of {len(experiment.ranking)} trials" if len(experiment.ranking) > len(top) else ""
    ax.set_title(f"Ranking{some}\n{_counts(experiment)}")
    if not top:
        return plotting.note(ax, "no trial completed with a value: none is ranked", hide_axes=True)
    for y, ranked in enumerate(top):
        color = plotting.rank_color(y) if y < HIGHLIGHTED else OTHERS
        ax.hlines(y, *ranked.ends(), color=color, linewidth=2.5, alpha=0.6)
        ax.plot(ranked.values[0], y, "o", color=color, markersize=6)
    ax.set_yticks(range(len(top)), [f"{ranked.rank}. trial {ranked.trial.number}" for ranked in top])
    ax.set_ylim(max(len(top), 5) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(_label(experiment))
    return ax.grid(alpha=0.3, axis="x")


def _front(ax: Axes, experiment: Experiment) -> None:
    """Draw the first two objectives against each other, those of the Pareto front with their intervals."""
    several = len(experiment.objective.metrics)
    ax.set_title(f"Pareto front{', objectives 1 and 2 of {several}' if several > 2 else ''}\n{_counts(experiment)}")
    front, others = experiment.front, experiment.ranking[len(experiment.front) :]
    if not front:
        return plotting.note(ax, "no trial completed with values: none is ranked", hide_axes=True)
    if others:
        x, y = np.array([ranked.values[:2] for ranked in others]).T
        ax.scatter(x, y, s=18, color=OTHERS, alpha=0.6, linewidths=0, label="other trials")
    ax.plot([], [], "o", color="0.2", label="front, by number of the trial")
    for index, ranked in enumerate(front):
        color = plotting.rank_color(index) if index < HIGHLIGHTED else plotting.STRONG
        x, y = ranked.values[:2]
        ax.hlines(y, *ranked.ends(0), color=color, linewidth=1.2, alpha=0.5)
        ax.vlines(x, *ranked.ends(1), color=color, linewidth=1.2, alpha=0.5)
        ax.plot(x, y, "o", color=color, markersize=7)
        if index < MAX_RANKED:
            ax.annotate(str(ranked.trial.number), (x, y), (4, 4), textcoords="offset points", fontsize="x-small")
    ax.set(xlabel=_label(experiment, 0), ylabel=_label(experiment, 1))
    ax.grid(alpha=0.3)
    return plotting.legend(ax)


def _hyperparameter(ax: Axes, experiment: Experiment, key: str) -> None:
    """Draw the objective of each Trial against a hyperparameter, and the unranked Trials along the bottom."""
    values = np.array([ranked.values[0] for ranked in experiment.ranking])
    n, unranked = len(values), [trial for trial, _ in experiment.unranked]
    scale = Scale.of([trial.value(key) for trial in [*(ranked.trial for ranked in experiment.ranking), *unranked]])
    x = scale.spread(np.append(values * experiment.objective.signs[0], np.full(len(unranked), -np.inf)))
    ends = np.array([ranked.ends() for ranked in experiment.ranking]).reshape(-1, 2)
    ax.vlines(x[:n], *ends.T, color=OTHERS, linewidth=1, alpha=0.45)
    ax.scatter(x[:n], values, s=14, color=OTHERS, alpha=0.7, linewidths=0)
    best = len(experiment.front)
    ax.plot(x[:best], values[:best], "*", color=BEST, markersize=13, markeredgecolor="white")
    bottom = ax.get_xaxis_transform()
    ax.plot(x[n:], np.full(len(unranked), 0.02), "x", color="0.4", markersize=4, transform=bottom)
    marks = [f"★ {_best_name(experiment)}"] * bool(n) + ["x not ranked"] * bool(unranked)
    ax.set_title(", ".join(marks), loc="left", fontsize="small")
    ax.margins(y=0.1)
    if scale.labels:
        labels = list(map(plotting.literal, scale.named.values()))
        crowded = sum(map(len, labels)) > 32
        ax.set_xticks([*scale.named], labels, rotation=30 * crowded, ha="right" if crowded else "center")
        ax.set_xlim(-0.5, len(scale.labels) - 0.5)
    elif scale.log:
        ax.set_xscale("log")
    else:
        ax.locator_params(axis="x", nbins=4)
    ax.set(xlabel=plotting.literal(shorten(key, 36)), ylabel=experiment.objective.metrics[0])
    if not n:
        ax.set_yticks([])
        plotting.note(ax, "no trial is ranked")
    ax.grid(alpha=0.3)


def _best_name(experiment: Experiment) -> str:
    return "best" if len(experiment.objective.metrics) == 1 else "Pareto front"


def _parallel_coordinates(ax: Axes, experiment: Experiment, keys: list[str]) -> None:
    """Draw each ranked Trial as a line through its hyperparameters to its objectives, the best on top."""
    count = len(experiment.hyperparameters)
    more = f", the {len(keys)} most important of {count} hyperparameters" if count > len(keys) else ""
    ax.set_title(f"Parallel coordinates of the ranked trials{more}, the {_best_name(experiment)} in blue")
    objectives = np.array([ranked.values for ranked in experiment.ranking])
    values, sign = objectives[:, 0], experiment.objective.signs[0]
    scales = [Scale.of([ranked.trial.value(key) for ranked in experiment.ranking]) for key in keys]
    scales += [Scale(column) for column in objectives.T]
    y = np.stack([scale.to_unit(scale.spread(sign * values)) for scale in scales], axis=1)
    lines = np.stack([np.broadcast_to(np.arange(len(scales)), y.shape), y], axis=2)  # [trial, axis, 2]
    colors = sns.color_palette("light:0.3" if sign > 0 else "light:0.3_r", as_cmap=True)
    order = np.argsort(sign * values, kind="stable")
    style = {"cmap": colors, "norm": Normalize(values.min(), values.max()), "linewidths": 1.2}
    alpha = float(np.clip(60 / len(order), 0.35, 0.9))
    ax.add_collection(LineCollection(list(lines[order]), array=values[order], alpha=alpha, **style))
    ax.add_collection(LineCollection(list(lines[: len(experiment.front)]), colors=[BEST], linewidths=2.2))
    ax.vlines(range(len(scales)), 0, 1, color="0.2", linewidth=1, zorder=3)
    for place, scale in enumerate(scales):
        for at, label in scale.ticks().items():
            text = ax.annotate(
                plotting.literal(label), (place, at), (6, 0), textcoords="offset points", va="center", zorder=4
            )
            text.set(fontsize="small", path_effects=[withStroke(linewidth=2.5, foreground="white")], in_layout=False)
    short = short_names(experiment.hyperparameters)
    names = [shorten(name, 22) for name in (*(short[key] for key in keys), *experiment.objective.metrics)]
    ax.set_xticks(range(len(scales)), map(plotting.literal, names))
    ax.set_yticks([])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_color("none")
    margin = max(0.3, (4 - len(scales)) / 2)  # few axes are no wider apart than four
    ax.set(xlim=(-margin, len(scales) - 1 + margin), ylim=(-0.05, 1.05))


def _importance(ax: Axes, experiment: Experiment, keys: list[str]) -> None:
    """Draw the importance of hyperparameters, the greatest on top."""
    ax.set_title(f"Importance: {MAX_BARS} greatest of {len(keys)}" if len(keys) > MAX_BARS else "Importance")
    bars = {key: experiment.importance[key] for key in keys[:MAX_BARS] if key in experiment.importance}
    if not bars:
        return plotting.note(ax, "no importance: too few trials ranked,\nor none better than another", hide_axes=True)
    names = short_names(experiment.hyperparameters)
    ax.barh(range(len(bars)), list(bars.values()), color=plotting.STRONG, height=0.6)
    ax.set_yticks(range(len(bars)), [plotting.literal(shorten(names[key], 22)) for key in bars])
    ax.set_ylim(max(len(bars), 3) - 0.5, -0.5)
    ax.set_xlabel("PED-ANOVA importance")
    return ax.grid(alpha=0.3, axis="x")
