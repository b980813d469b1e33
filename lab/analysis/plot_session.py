"""Plots of a Session."""

from __future__ import annotations

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from lab.analysis.results import WINDOW, Tables

matplotlib.use("Agg")

FAINT, STRONG, SECOND, THIRD = "#85a8cb", "#1f5f9e", "#d1662c", "#3b8f5a"
RIGHT = "right axis"  # label of axes that keep their right edge
MOST_POINTS = 5_000  # episodes drawn one by one; of more, evenly many are left out


def plot_session(tables: Tables) -> bytes:
    """Draw a Session's return, evaluation, losses, exploration and speed; return a PNG."""
    sns.set_theme(style="ticks", context="notebook", font_scale=0.85)
    figure, axes = plt.subplots(2, 3, figsize=(15, 7.5), layout="constrained")
    try:
        spec = tables.spec
        figure.suptitle(f"{spec['name']}, seed {spec['seed']}: {spec['env']['id']}, {tables.state}", fontweight="bold")
        _returns(axes[0, 0], tables)
        _evaluation(axes[0, 1], tables)
        _lengths(axes[0, 2], tables)
        _losses(axes[1, 0], tables.metrics)
        _exploration(axes[1, 1], tables.metrics)
        _speed(axes[1, 2], tables)
        for ax in axes.flat:
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
            ax.set_xlabel("frames")
            ax.set_xlim(left=0)
            ax.grid(alpha=0.3)
        sns.despine(figure)
        for ax in figure.axes:
            ax.spines["right"].set_visible(ax.get_label() == RIGHT)
        # No date and no version: the same files give the same picture.
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()
    finally:
        plt.close(figure)


def _returns(ax: Axes, tables: Tables) -> None:
    episodes = tables.episodes
    ax.set_title("Return")
    ax.set_ylabel("return of an episode")
    if not len(episodes):
        return _empty(ax, "no episode has ended")
    shown = episodes.iloc[:: max(1, len(episodes) // MOST_POINTS)]
    ax.scatter(shown["frame"], shown["return"], s=8, color=FAINT, alpha=0.6, linewidths=0, label="episodes")
    mean = episodes["return"].rolling(WINDOW, min_periods=1).mean()
    ax.plot(episodes["frame"], mean, color=STRONG, linewidth=2, label=f"mean of the last {WINDOW}")
    _reference_lines(ax, tables)
    ax.legend(framealpha=0.8, edgecolor="none", fontsize="small")
    return None


def _evaluation(ax: Axes, tables: Tables) -> None:
    ax.set_title("Evaluation, deterministic policy")
    ax.set_ylabel("mean return")
    rows = tables.metrics.dropna(subset="eval_return")
    if not len(rows):
        return _empty(ax, "not evaluated")
    ax.plot(rows["frame"], rows["eval_return"], color=THIRD, marker="o", markersize=4)
    _reference_lines(ax, tables)
    if len(ax.get_legend_handles_labels()[0]):
        ax.legend(framealpha=0.8, edgecolor="none", fontsize="small")
    return None


def _lengths(ax: Axes, tables: Tables) -> None:
    ax.set_title("Episode length")
    ax.set_ylabel(f"steps, mean of the last {WINDOW}")
    if not len(tables.episodes):
        return _empty(ax, "no episode has ended")
    ax.plot(tables.episodes["frame"], tables.episodes["length"].rolling(WINDOW, min_periods=1).mean(), color=STRONG)
    return None


def _losses(ax: Axes, metrics: pd.DataFrame) -> None:
    ax.set_title("Losses")
    losses = [name for name in ("policy_loss", "value_loss") if name in metrics and metrics[name].notna().any()]
    if not losses:
        return _empty(ax, "nothing learned yet")
    ax.set_ylabel("policy loss", color=STRONG)
    ax.plot(metrics["frame"], metrics["policy_loss"], color=STRONG, linewidth=1)
    if "value_loss" in losses:
        right = ax.twinx()
        right.plot(metrics["frame"], metrics["value_loss"], color=SECOND, linewidth=1)
        right.set_ylabel("value loss", color=SECOND)
        positive = metrics["value_loss"].dropna()
        if len(positive) and positive.min() > 0 and positive.max() > 100 * positive.min():
            right.set_yscale("log")
            right.minorticks_off()
        right.set_label(RIGHT)
    return None


def _exploration(ax: Axes, metrics: pd.DataFrame) -> None:
    ax.set_title("Entropy")
    if "entropy" not in metrics or not metrics["entropy"].notna().any():
        return _empty(ax, "nothing learned yet")
    ax.set_ylabel("entropy, nats")
    ax.plot(metrics["frame"], metrics["entropy"], color=STRONG)
    return None


def _speed(ax: Axes, tables: Tables) -> None:
    ax.set_title("Speed")
    ax.set_ylabel("frames per second")
    if not len(tables.timing):
        return _empty(ax, "nothing timed yet")
    ax.plot(tables.timing["frame"], tables.timing["frames_per_second"], color=FAINT, linewidth=1)
    frames = tables.timing["frame"].diff().fillna(tables.timing["frame"])
    overall = float(frames.sum() / tables.timing["seconds"].sum())
    ax.axhline(overall, color=STRONG, linestyle="--", label=f"{overall:,.0f} overall")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    ax.legend(framealpha=0.8, edgecolor="none", fontsize="small")
    return None


def _reference_lines(ax: Axes, tables: Tables) -> None:
    for key, label, style in (("solved", "solved", "--"), ("random_return", "random actions", ":")):
        value = tables.reference[key]
        if value is not None:
            ax.axhline(value, color="0.4", linestyle=style, linewidth=1, label=f"{label} ({np.round(value, 1):g})")


def _empty(ax: Axes, why: str) -> None:
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color="0.5")
