"""The plot of settings over several environments, as rliable draws them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import PercentFormatter

from lab.analysis import plotting
from lab.analysis.across import Across, Setting, describe_score
from lab.analysis.plot_hyperparameters import HIGHLIGHTED, color_of
from lab.analysis.statistics import Estimate
from lab.analysis.text import shorten

MAX_SETTINGS = 30  # in the ranking
MAX_LABEL = 56  # characters of a setting


def across_height(across: Across) -> float:
    """Return the height of the panels in inches."""
    return max(3.6, 1.3 + 0.21 * min(len(across.ranking), MAX_SETTINGS))


def draw_across(host: FigureBase, across: Across) -> None:
    """Draw the ranking of settings, their performance profiles, and whether the best is better than each other."""
    several = len(across.ranking) > 1
    host.suptitle("Settings over all environments, by normalized scores", fontweight="bold", fontsize="medium")
    axes = np.ravel(host.subplots(1, 3 if several else 2, width_ratios=[1, 1.2, *([0.9] if several else [])]))
    _ranking(axes[0], across)
    _profiles(axes[1], across)
    if several:
        _improvement(axes[2], across)


@plotting.style()
def plot_across(across: Across, form: str = "png") -> bytes:
    """Draw settings over several environments alone.

    Args:
        across: the settings.
        form: png, svg or pdf.
    """
    figure = Figure(figsize=(15, across_height(across)), layout="constrained")
    draw_across(figure, across)
    return plotting.save(figure, form)


def _ranking(ax: Axes, across: Across) -> None:
    ax.set_title(describe_score(across))
    top = across.ranking[:MAX_SETTINGS]
    _intervals(ax, [setting.estimate for setting in top])
    labels = [f"{rank}. {_label(setting)}" for rank, setting in enumerate(top, 1)]
    ax.set_yticks(range(len(top)), labels, fontsize="small")
    ax.set_xlabel("score (0: random or worst, 1: solved or best)")


def _improvement(ax: Axes, across: Across) -> None:
    ax.set_title("Probability that the best scores higher")
    best, *others = across.ranking[:MAX_SETTINGS]
    ax.axvline(0.5, color="0.4", linestyle=":", linewidth=1)
    _intervals(ax, [across.improvement(best, other) for other in others], first=1)
    ax.set_yticks(range(len(others)), [f"than {_label(other)}" for other in others], fontsize="small")
    ax.set_xlim(-0.02, 1.02)


def _intervals(ax: Axes, estimates: Sequence[Estimate], first: int = 0) -> None:
    for y, estimate in enumerate(estimates):
        value, low, high = (estimate[end] for end in ("value", "low", "high"))
        if low is not None and high is not None:
            ax.hlines(y, low, high, color=color_of(first + y), linewidth=2.5, alpha=0.6)
        ax.plot(value or 0.0, y, "o", color=color_of(first + y), markersize=6)
    ax.set_ylim(max(len(estimates), 3) - 0.5, -0.5)
    ax.grid(alpha=0.3, axis="x")


def _profiles(ax: Axes, across: Across) -> None:
    ax.set_title("Performance profile, 95 % intervals\ncolors as in the ranking")
    for place, setting in list(enumerate(across.ranking[:HIGHLIGHTED]))[::-1]:
        thresholds, value, low, high = across.profile(setting)
        ax.plot(thresholds, value, color=color_of(place), label=_label(setting))
        if np.isfinite(low).all():
            ax.fill_between(thresholds, low, high, color=color_of(place), alpha=0.15, linewidth=0)
    ax.set(xlabel="score", ylabel="Sessions above it", ylim=(0, 1.02))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(alpha=0.3)


def _label(setting: Setting) -> str:
    return plotting.literal(shorten(setting.name, MAX_LABEL))
