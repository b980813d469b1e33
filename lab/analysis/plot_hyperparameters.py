"""Panels on what the hyperparameters of an Experiment do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from lab.analysis import plotting
from lab.analysis.experiment import MIN_TRIALS, Experiment
from lab.analysis.scale import Scale
from lab.analysis.text import importance_caveat, short_names, shorten

Panel = Callable[[Axes, Experiment], None]

HIGHLIGHTED = len(plotting.PALETTE)  # best Trials, each with a color of its own
OTHERS = "0.6"  # color of the other Trials

MAX_HYPERPARAMETERS = 8  # with a panel and an axis of their own, by importance
MAX_BARS = 10  # hyperparameters whose importance is drawn
MAX_COLUMNS = 5  # panels side by side


def hyperparameter_panels(experiment: Experiment, keys: list[str]) -> list[tuple[float, list[tuple[float, Panel]]]]:
    """Return rows of panels without a gap: the height in inches, and the relative width of each panel."""
    if not keys or not experiment.ranking:
        return []
    drawn = keys[:MAX_HYPERPARAMETERS]
    panels: list[tuple[float, Panel]] = [(1.0, partial(_hyperparameter, key=key)) for key in drawn]
    panels.append((1.0 if experiment.importance else 0.6, partial(_importance, keys=keys)))
    if len(experiment.ranking) > 1:
        axes = len(drawn) + len(experiment.objective.metrics)
        parallel: tuple[float, Panel] = (0.75 * axes, partial(_parallel_coordinates, keys=drawn))
        if sum(width for width, _ in [*panels, parallel]) <= MAX_COLUMNS:
            return [(3.4, [*panels, parallel])]
    across = -(-len(panels) // -(-len(panels) // MAX_COLUMNS))
    rows = [(3.2, panels[first : first + across]) for first in range(0, len(panels), across)]
    return [*rows, (4.2, [parallel])] if len(experiment.ranking) > 1 else rows


def color_of(place: int) -> str:
    """Return the color of the Trial at a place in the ranking, from 0 for the best."""
    return plotting.rank_color(place) if place < HIGHLIGHTED else OTHERS


def label_objective(experiment: Experiment, index: int = 0) -> str:
    """Return what a metric of the objective is: `return, mean over seeds`."""
    how = experiment.objective.aggregate
    name = {"lower": "lower end of the mean's 95 % interval", "iqm": "IQM"}.get(how, how)
    return f"{experiment.objective.metrics[index]}, {name} over seeds"


def _hyperparameter(ax: Axes, experiment: Experiment, key: str) -> None:
    """Draw the objective of each Trial against a hyperparameter, and the unranked Trials along the bottom."""
    values = np.array([ranked.values[0] for ranked in experiment.ranking])
    n, unranked = len(values), [trial for trial, _ in experiment.unranked]
    trials = [*(ranked.trial for ranked in experiment.ranking), *unranked]
    scale = Scale.of([trial.value(key) for trial in trials], experiment.space(key))
    x = scale.spread(np.append(values * experiment.objective.signs[0], np.full(len(unranked), -np.inf)))
    ends = np.array([ranked.ends() for ranked in experiment.ranking]).reshape(-1, 2)
    colors = [color_of(place) for place in range(n)]
    ax.vlines(x[:n], *ends.T, color=colors, linewidth=1, alpha=0.45)
    best = len(experiment.front)
    ax.scatter(x[best:n], values[best:], s=16, color=colors[best:], alpha=0.8, linewidths=0)
    ax.scatter(x[:best], values[:best], s=110, color=colors[:best], marker="*", edgecolors="white", zorder=3)
    ax.plot(x[n:], np.full(len(unranked), 0.02), "x", color="0.4", markersize=4, transform=ax.get_xaxis_transform())
    best_name = "best" if len(experiment.objective.metrics) == 1 else "Pareto front"
    marks = [f"★ {best_name}", *["x not ranked"] * bool(unranked)]
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
    ax.grid(alpha=0.3)


def _importance(ax: Axes, experiment: Experiment, keys: list[str]) -> None:
    """Draw the importance of hyperparameters, the greatest on top, or say why there is none."""
    bars = {key: experiment.importance[key] for key in keys[:MAX_BARS] if key in experiment.importance}
    n = len(experiment.ranking)
    if not bars:
        few = f"Importance needs {MIN_TRIALS} ranked Trials; {n} {'is' if n == 1 else 'are'} ranked."
        why = few if n < MIN_TRIALS else "No importance: no ranked Trial is better than another."
        return plotting.note(ax, fill(why, 20), hide_axes=True)
    title = f"Importance: {MAX_BARS} greatest of {len(keys)}" if len(keys) > MAX_BARS else "Importance"
    ax.set_title("\n".join(filter(None, (title, importance_caveat(n)))))
    names = short_names(experiment.hyperparameters)
    ax.barh(range(len(bars)), list(bars.values()), color=plotting.STRONG, height=0.6)
    ax.set_yticks(range(len(bars)), [plotting.literal(shorten(names[key], 22)) for key in bars])
    ax.set_ylim(max(len(bars), 3) - 0.5, -0.5)
    ax.set_xlabel("PED-ANOVA importance")
    return ax.grid(alpha=0.3, axis="x")


def _parallel_coordinates(ax: Axes, experiment: Experiment, keys: list[str]) -> None:
    """Draw each ranked Trial as a line through its hyperparameters to its objectives, in the color of its rank."""
    count, metrics = len(experiment.hyperparameters), experiment.objective.metrics
    more = f", the {len(keys)} most important of {count} hyperparameters" if count > len(keys) else ""
    ax.set_title(f"Parallel coordinates of the ranked Trials{more}")
    trials = [ranked.trial for ranked in experiment.ranking]
    objectives = np.array([ranked.values for ranked in experiment.ranking])
    goodness = objectives[:, 0] * experiment.objective.signs[0]
    scales = [Scale.of([trial.value(key) for trial in trials], experiment.space(key)) for key in keys]
    scales += [Scale(column, is_log=False) for column in objectives.T]
    y = np.stack([scale.to_unit(scale.spread(goodness)) for scale in scales], axis=1)
    lines = np.stack([np.broadcast_to(np.arange(len(scales)), y.shape), y], axis=2)  # [trial, axis, 2]
    n = len(lines)
    alpha = float(np.clip(30 / n, 0.3, 0.8))
    ax.add_collection(LineCollection(list(lines[HIGHLIGHTED:]), colors=OTHERS, linewidths=1, alpha=alpha))
    for place in reversed(range(min(HIGHLIGHTED, n))):
        best = place < len(experiment.front)
        ax.plot(*lines[place].T, color=plotting.rank_color(place), linewidth=2.5 if best else 1.3, zorder=2 + best)
    ax.vlines(range(len(scales)), 0, 1, color="0.2", linewidth=1, zorder=3)
    for place, scale in enumerate(scales):
        for at, label in scale.ticks().items():
            text = ax.annotate(
                plotting.literal(label), (place, at), (6, 0), textcoords="offset points", va="center", zorder=4
            )
            text.set(fontsize="small", in_layout=False)
            text.set_bbox(plotting.HALO)
    short = short_names(experiment.hyperparameters)
    names = [shorten(name, 22) for name in (*(short[key] for key in keys), *metrics)]
    ax.set_xticks(range(len(scales)), map(plotting.literal, names))
    ax.set_yticks([])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_color("none")
    ax.set(xlim=(-0.3, len(scales) - 0.6), ylim=(-0.05, 1.05))
