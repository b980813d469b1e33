"""The plot of an Experiment: in each environment curves, the ranking, and what its hyperparameters do."""

from __future__ import annotations

from collections import Counter
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, FigureBase

from lab.analysis import plotting
from lab.analysis.across import Across
from lab.analysis.experiment import Experiment
from lab.analysis.plot_across import across_height, draw_across
from lab.analysis.plot_hyperparameters import (
    HIGHLIGHTED,
    OTHERS,
    Panel,
    color_of,
    hyperparameter_panels,
    label_objective,
)
from lab.analysis.session import WINDOW
from lab.analysis.statistics import STATISTICS
from lab.analysis.text import format_hyperparameter, short_names, shorten
from lab.analysis.trial import Trial, common_reference
from lab.common.text import plural

BANDS = 4  # Trials up to which each has an interval around its curve; of more, the best three have
MAX_RANKED = 30  # Trials in the ranking
MAX_ENVIRONMENTS = 6
COUNTS = 36  # characters of a line of the heading of a ranking, as wide as its panel at least
MAX_LABEL = 56  # characters of a Trial in the ranking


@plotting.style()
def plot_experiment(experiment: Experiment, across: Across | None = None) -> bytes:
    """Draw an Experiment's curves, ranking, hyperparameters and their importance; return a PNG.

    Args:
        experiment: the Experiment.
        across: its settings over several environments, which are drawn first.
    """
    return plotting.png(experiment_figure(experiment, across if across and across.ranking else None))


def experiment_figure(experiment: Experiment, across: Across | None = None) -> Figure:
    """Return the figure of an Experiment, with a part for each environment: their returns have no common axis."""
    parts = list(experiment.by_environment.items())
    rows = [_rows(part) for _, part in parts[:MAX_ENVIRONMENTS]]
    heights = [sum(height for height, _ in part) + 0.4 * (len(rows) > 1) for part in rows]
    heights = [*([across_height(across)] if across else []), *heights]
    figure = Figure(figsize=(15, 0.8 + sum(heights)), layout="constrained")
    hosts: Any = [figure] if len(heights) == 1 else figure.subfigures(len(heights), 1, height_ratios=heights)
    if across:
        draw_across(hosts[0], across)
        hosts = hosts[1:]
    for host, (name, part), part_rows in zip(hosts, parts, rows, strict=False):
        if len(rows) > 1:
            host.suptitle(plotting.literal(name), fontweight="bold", fontsize="medium")
        _draw_rows(host, part, part_rows)
    plotting.heading(figure, _title(experiment), _notes(experiment))
    return figure


def _rows(experiment: Experiment) -> list[tuple[float, list[tuple[float, Panel]]]]:
    """Return the rows of an environment: the height in inches, and the relative width of each panel."""
    ranked = min(len(experiment.ranking), MAX_RANKED)
    keys = sorted(experiment.hyperparameters, key=lambda key: -experiment.importance.get(key, -1.0))
    ranking = _front if len(experiment.objective.metrics) > 1 else partial(_ranking, keys=keys)
    top: list[tuple[float, Panel]] = [(1.2, _curves), (1.0, ranking)]
    return [(max(3.6, 1.3 + 0.21 * ranked), top), *hyperparameter_panels(experiment, keys)]


def _draw_rows(host: FigureBase, experiment: Experiment, rows: list[tuple[float, list[tuple[float, Panel]]]]) -> None:
    grid = host.add_gridspec(len(rows), 1, height_ratios=[height for height, _ in rows])
    for index, (_, row) in enumerate(rows):
        cells = grid[index].subgridspec(1, len(row), width_ratios=[width for width, _ in row])
        for column, (_, panel) in enumerate(row):
            # In a grid of its own, the legend below the curves takes no room from the ranking.
            cell = cells[column] if index else cells[column].subgridspec(1, 1)[0]
            panel(host.add_subplot(cell), experiment)


def _title(experiment: Experiment) -> str:
    sessions = [session for trial in experiment.trials for session in trial.sessions]
    environments = sorted({session.tables.spec["env"]["id"] for session in sessions if session.tables})
    where = f": {shorten(', '.join(environments), 60)}" if environments else ""
    trials = plural(len(experiment.trials), "Trial")
    return f"{experiment.name}{where}, {trials}, {plural(len(sessions), 'Session')}"


def _notes(experiment: Experiment) -> list[str]:
    """Return the lines below the title: what ranks the Trials, and what is missing."""
    directions = experiment.objective.directions
    goals = [f"{label_objective(experiment, index)}, {direction}d" for index, direction in enumerate(directions)]
    one_seed = all(len(trial.sessions) < 2 for trial in experiment.trials)
    lines = [f"objective: {'; '.join(goals)}{'. One seed each: no intervals' if one_seed else ''}"]
    environments, trials = experiment.by_environment, experiment.trials
    if len(environments) > 1:
        lines[0] += ". Trials are ranked within each environment, settings over all of them by normalized scores"
        left_out = len(trials) - sum(len(part.trials) for part in [*environments.values()][:MAX_ENVIRONMENTS])
        lines += [f"{plural(left_out, 'Trial')} left out: not started, or of other environments"] if left_out else []
    return lines if experiment.hyperparameters else [*lines, "no hyperparameter differs between the Trials"]


def _counts(experiment: Experiment) -> str:
    """Return how many Trials are ranked, and how many are not, by state."""
    states = [trial.state for trial, _ in experiment.unranked]
    counts = sorted(Counter("without a value" if state == "completed" else state for state in states).items())
    named = ", ".join(f"{count}\N{NO-BREAK SPACE}{state}" for state, count in counts)
    unranked = f"; {named}: excluded from means" if named else ""
    return fill(f"{len(experiment.ranking)} ranked{unranked}", COUNTS)


def _label(experiment: Experiment, trial: Trial, keys: list[str]) -> str:
    """Return what distinguishes a Trial, as `lr=0.001, horizon=16 (trial-003)`; the least important values are cut."""
    names = short_names(experiment.hyperparameters)
    values = [(key, trial.value(key)) for key in keys]
    parts = [f"{names[key]}={shorten(format_hyperparameter(value), 20)}" for key, value in values if value is not None]
    point = ", ".join(parts)
    if len(point) > MAX_LABEL:
        point = f"{point[:MAX_LABEL].rpartition(', ')[0] or point[:MAX_LABEL]}, …"
    return plotting.literal(f"{point} ({trial.name})" if point else trial.name)


def _curves(ax: Axes, experiment: Experiment) -> None:
    """Draw the return of each ranked Trial, and each Session of the other Trials."""
    statistic = experiment.objective.statistic
    curves = [ranked.trial.curve("return") for ranked in experiment.ranking]
    banded = len(curves) if len(curves) <= BANDS else BANDS - 1
    several = any(len(values) > 1 for _, values in curves)
    of = "" if banded == len(curves) else f" of the best {banded}"
    over = f"{statistic.replace('iqm', 'IQM')} over seeds, 95 % interval{of}" if several else "one seed, no interval"
    colors = "ranking" if len(experiment.objective.metrics) == 1 else "Pareto front"
    below = f"\ncolors as in the {colors}" if len(curves) > 1 else ""
    ax.set_title(f"Return: {over}{below}" if curves else "Return")
    ax.set_ylabel(f"mean return of the last {WINDOW} episodes")
    tables = [session.tables for trial, _ in experiment.unranked for session in trial.sessions if session.tables]
    unranked = [table.curve("return") for table in tables]
    if not any(len(frames) for frames, _ in curves + unranked):
        return plotting.note(ax, "no episode has ended", hide_axes=True)
    for place, (frames, values) in list(enumerate(curves[:HIGHLIGHTED]))[::-1]:
        line: dict[str, Any] = {"color": plotting.rank_color(place), "zorder": 3 - place / 100}
        if place < banded:
            plotting.band(ax, frames, values, statistic, **line)
        else:
            plotting.curve(ax, frames, STATISTICS[statistic](values, axis=0), **line)
    _faint_curves(ax, unranked, "Trials not ranked: each Session", linestyle=(0, (3, 2)))
    others = curves[HIGHLIGHTED:]
    _faint_curves(ax, [(frames, STATISTICS[statistic](values, axis=0)) for frames, values in others], "other Trials")
    sessions = [session for trial in experiment.trials for session in trial.sessions]
    plotting.over_frames(ax)
    plotting.reference_lines(ax, common_reference(sessions))
    return plotting.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)


def _faint_curves(ax: Axes, curves: list[tuple[np.ndarray, np.ndarray]], label: str, **line: Any) -> None:
    """Draw many curves with one label, the fainter the more there are."""
    segments = [np.column_stack(curve) for curve in curves if len(curve[0])]
    if segments:
        alpha = float(np.clip(20 / len(segments), 0.2, 0.8))
        faint = LineCollection(segments, colors=OTHERS, linewidths=0.8, alpha=alpha, zorder=1, **line)
        faint.set_in_layout(False)
        ax.add_collection(faint)
        points = [segment for segment in segments if len(segment) == 1]
        if points:  # a curve of one point is no line
            x, y = np.concatenate(points).T
            ax.scatter(x, y, s=9, color=OTHERS, alpha=alpha, zorder=1)
        ax.autoscale_view()
        ax.plot([], [], color=OTHERS, label=label, **line)


def _ranking(ax: Axes, experiment: Experiment, keys: list[str]) -> None:
    """Draw the objective of the best Trials with its interval, the best on top, in the colors of their curves."""
    top = experiment.ranking[:MAX_RANKED]
    some = f": best {len(top)} of {len(experiment.ranking)} Trials" if len(experiment.ranking) > len(top) else ""
    ax.set_title(f"Ranking{some}\n{_counts(experiment)}")
    if not top:
        return plotting.note(ax, "no Trial completed with a value: none is ranked", hide_axes=True)
    for y, ranked in enumerate(top):
        color = color_of(y)
        ax.hlines(y, *ranked.ends(), color=color, linewidth=2.5, alpha=0.6)
        ax.plot(ranked.values[0], y, "o", color=color, markersize=6)
    labels = [f"{ranked.rank}. {_label(experiment, ranked.trial, keys)}" for ranked in top]
    ax.set_yticks(range(len(top)), labels, fontsize="small")
    ax.set_ylim(max(len(top), 3) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(label_objective(experiment))
    return ax.grid(alpha=0.3, axis="x")


def _front(ax: Axes, experiment: Experiment) -> None:
    """Draw the first two objectives against each other, those of the Pareto front with their intervals."""
    several = len(experiment.objective.metrics)
    ax.set_title(f"Pareto front{', objectives 1 and 2 of {several}' if several > 2 else ''}\n{_counts(experiment)}")
    front, others = experiment.front, experiment.ranking[len(experiment.front) :]
    if not front:
        return plotting.note(ax, "no Trial completed with values: none is ranked", hide_axes=True)
    if others:
        x, y = np.array([ranked.values[:2] for ranked in others]).T
        ax.scatter(x, y, s=18, color=OTHERS, alpha=0.6, linewidths=0, label="other Trials")
    ax.plot([], [], "o", color="0.2", label="front, by number of the Trial")
    for place, ranked in enumerate(front):
        color = color_of(place)
        x, y = ranked.values[:2]
        ax.hlines(y, *ranked.ends(0), color=color, linewidth=1.2, alpha=0.5)
        ax.vlines(x, *ranked.ends(1), color=color, linewidth=1.2, alpha=0.5)
        ax.plot(x, y, "o", color=color, markersize=7)
        if place < MAX_RANKED:
            ax.annotate(str(ranked.trial.number), (x, y), (4, 4), textcoords="offset points", fontsize="x-small")
    ax.set(xlabel=label_objective(experiment, 0), ylabel=label_objective(experiment, 1))
    ax.grid(alpha=0.3)
    return plotting.legend(ax)
