"""Which columns of metrics.csv a picture shows, and the grid of panels that it shows them in."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lab.analysis import plotting
from lab.analysis.session import WINDOW, Tables
from lab.analysis.text import capitalize
from lab.run.schemas import add_evaluation

# In the order of their panels. Columns of a user's own algorithm follow.
TITLES = {
    "return": f"Return, mean of {WINDOW} episodes",
    "eval_return": "Evaluation return, deterministic policy",
    "length": f"Episode length, mean of {WINDOW}",
    "policy_loss": "Policy loss",
    "actor_loss": "Actor loss",
    "value_loss": "Value loss",
    "critic_loss": "Critic loss",
    "q_loss": "Q loss",
    "entropy": "Entropy, nats",
    "exploration_rate": "Exploration rate",
    "q_values": "Q-values",
    "ent_coef": "Entropy coefficient",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "sil_policy_loss": "Self-imitation policy loss",
    "sil_value_loss": "Self-imitation value loss",
}
SCHEDULED = ("exploration_rate", "ent_coef", "learning_rate")  # not drawn if constant: the spec has the value
POSITIVE = ("value_loss", "critic_loss", "q_loss", "grad_norm", "ent_coef")  # logarithmic where they span decades
# Left to TensorBoard. The entropy loss is the entropy with another weight and sign.
NOT_DRAWN = {
    "frame", "optimizer_steps", "episodes", "eval_length", "entropy_loss", "approx_kl", "clip_fraction", "td_error",
    "explained_variance", "actor_grad_norm", "replay_frames", "sil_better_fraction",
}  # fmt: skip
FIRST = ("return", "eval_return", "length")  # before those of env.metrics
MAX_COLUMNS = 11  # drawn; with speed or final returns they fill three rows
FEW_POINTS = 30  # of a curve, up to which each is marked
MAX_ACROSS = 4  # panels side by side
WIDTH, HEIGHT = 15.0, 2.8  # of a picture and of a row of panels, in inches
LEFT, RIGHT, BETWEEN = 0.75, 0.15, 0.75  # space beside panels, in inches
ABOVE, BELOW = 0.35, 0.6  # space for the title and the frames of a panel, in inches


def drawn_columns(tables: Sequence[Tables]) -> list[str]:
    """Return the columns of metrics.csv that some Session has logged values of, in the order of their panels."""
    own = add_evaluation(dict.fromkeys(name for table in tables for name in table.env_metrics))
    logged = dict.fromkeys([*FIRST, *own, *TITLES, *(str(column) for table in tables for column in table.metrics)])
    drawn = []
    for column in logged.keys() - NOT_DRAWN:
        values = np.concatenate([np.empty(0), *(table.curve(column)[1] for table in tables)])
        # A mean of equal numbers in float32 may differ from them in its last digits.
        if len(values) and not (column in SCHEDULED and np.allclose(values, values[0], rtol=1e-5, atol=0.0)):
            drawn.append(column)
    return sorted(drawn, key=[*logged].index)[:MAX_COLUMNS]


def title(column: str) -> str:
    """Return the title of the panel of a column."""
    return TITLES.get(column) or plotting.literal(capitalize(column.replace("_", " ")))


def set_title(ax: Axes, text: str) -> None:
    """Write the title of a panel.

    Its place is fixed, as matplotlib measures all tick labels to find one: a quarter of the drawing.
    """
    ax.set_title(text, y=1.0)


def panel_figure(
    count: int, heading: str, notes: Sequence[str], keys: Sequence[Artist], reuse: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a heading, a legend and a grid of panels without a gap.

    Places are fixed, as matplotlib's own layouts take as long as the drawing.

    Args:
        count: number of panels.
        heading: the title.
        notes: lines below it.
        keys: labeled artists of the legend, which holds for all panels.
        reuse: whether the figure may be one that was drawn before, emptied, which saves a third of the time. Nothing
            may be set on its axes but curves, titles, limits, and the scale, ticks' format and label of an axis.
    """
    top = 0.4 + 0.2 * len(notes) + 0.3 * bool(keys)
    figure, axes = (_empty_grid if reuse else _grid)(count, top)
    height = figure.get_figheight()
    figure.text(0.5, 1 - 0.08 / height, plotting.literal(heading), va="top", ha="center", size="large", weight="bold")
    lines = plotting.literal("\n".join(notes))
    figure.text(0.5, 1 - 0.34 / height, lines, ha="center", va="top", size="small", color="0.3")
    if keys:
        above = 1 - (top - 0.3) / height
        figure.legend(
            handles=keys, loc="upper center", bbox_to_anchor=(0.5, above), ncols=len(keys), fontsize="small",
            frameon=False, borderaxespad=0,
        )  # fmt: skip
    return figure, axes


def _grid(count: int, top: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of panels below some inches of space."""
    rows = [len(row) for row in np.array_split(range(count), -(-count // MAX_ACROSS))] if count else []
    height = top + HEIGHT * max(len(rows), 0.2)
    figure = Figure(figsize=(WIDTH, height))
    axes = []
    for row, across in enumerate(rows):
        bottom = height - top - HEIGHT * (row + 1) + BELOW
        width = (WIDTH - LEFT - RIGHT - BETWEEN * (across - 1)) / across
        for column in range(across):
            left = LEFT + column * (width + BETWEEN)
            place = (left / WIDTH, bottom / height, width / WIDTH, (HEIGHT - ABOVE - BELOW) / height)
            axes.append(figure.add_axes(place))
    return figure, axes


_known_grid = functools.cache(_grid)


def _empty_grid(count: int, top: float) -> tuple[Figure, list[Axes]]:
    """Return the same figure each time, without what was drawn in it; its axes keep the objects of their ticks."""
    figure, axes = _known_grid(count, top)
    for drawn in (*figure.texts, *figure.legends):
        drawn.remove()
    for ax in axes:
        for artist in (*ax.lines, *ax.collections, *ax.texts):
            artist.remove()
        ax.set_yscale("linear")  # which renews the format of the ticks
        ax.dataLim = Bbox.null()
        ax.ignore_existing_data_limits = True
        ax.autoscale(True)
    return figure, axes


def share_frames(axes: Iterable[Axes]) -> None:
    """Give axes whose x is frames the same range."""
    axes = list(axes)
    ends = [ax.dataLim.x1 for ax in axes if np.isfinite(ax.dataLim.x1)]
    for ax in axes:
        plotting.over_frames(ax, max(ends, default=0.0))


def finish(ax: Axes, column: str, reference: dict[str, Any]) -> None:
    """Finish the axes of a column: its scale, tick labels of bounded width, and reference returns."""
    if column in POSITIVE:
        plotting.log_if_wide(ax)
    if ax.get_yscale() == "linear":
        ax.ticklabel_format(axis="y", scilimits=(-3, 5))
    if column in ("return", "eval_return"):
        plotting.reference_lines(ax, reference)
