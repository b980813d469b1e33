"""The plot of a Session."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lab.analysis.plotting import (
    FAINT,
    RIGHT,
    SECOND,
    STRONG,
    THIRD,
    empty,
    heading,
    legend,
    over_frames,
    png,
    reference_lines,
    style,
)
from lab.analysis.session import POLICY_LOSSES, VALUE_LOSSES, WINDOW, Tables

MOST_POINTS = 5_000  # episodes drawn one by one; of more, evenly many are left out


@style()
def plot_session(tables: Tables) -> bytes:
    """Draw a Session's return, evaluation, losses, exploration and speed; return a PNG."""
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    axes = figure.subplots(2, 3)
    spec = tables.spec
    heading(figure, f"{spec['name']}, seed {spec['seed']}: {spec['env']['id']}, {tables.state}")
    _returns(axes[0, 0], tables)
    _evaluation(axes[0, 1], tables)
    _lengths(axes[0, 2], tables)
    _losses(axes[1, 0], tables.metrics)
    _exploration(axes[1, 1], tables.metrics)
    _speed(axes[1, 2], tables)
    for ax in axes.flat:
        over_frames(ax)
    return png(figure)


def _returns(ax: Axes, tables: Tables) -> None:
    episodes = tables.episodes
    ax.set_title("Return")
    ax.set_ylabel("return of an episode")
    if not len(episodes):
        return empty(ax, "no episode has ended")
    shown = episodes.iloc[:: max(1, len(episodes) // MOST_POINTS)]
    ax.scatter(shown["frame"], shown["return"], s=8, color=FAINT, alpha=0.6, linewidths=0, label="episodes")
    mean = episodes["return"].rolling(WINDOW, min_periods=1).mean()
    ax.plot(episodes["frame"], mean, color=STRONG, linewidth=2, label=f"mean of the last {WINDOW}")
    reference_lines(ax, tables.reference)
    legend(ax)
    return None


def _evaluation(ax: Axes, tables: Tables) -> None:
    ax.set_title("Evaluation, deterministic policy")
    ax.set_ylabel("mean return")
    rows = tables.metrics.dropna(subset="eval_return")
    if not len(rows):
        return empty(ax, "not evaluated")
    ax.plot(rows["frame"], rows["eval_return"], color=THIRD, marker="o", markersize=4)
    reference_lines(ax, tables.reference)
    legend(ax)
    return None


def _lengths(ax: Axes, tables: Tables) -> None:
    ax.set_title("Episode length")
    ax.set_ylabel(f"steps, mean of the last {WINDOW}")
    if not len(tables.episodes):
        return empty(ax, "no episode has ended")
    ax.plot(tables.episodes["frame"], tables.episodes["length"].rolling(WINDOW, min_periods=1).mean(), color=STRONG)
    return None


def _losses(ax: Axes, metrics: pd.DataFrame) -> None:
    ax.set_title("Losses")
    policy_loss, value_loss = (
        next((name for name in names if name in metrics and metrics[name].notna().any()), None)
        for names in (POLICY_LOSSES, VALUE_LOSSES)
    )
    if policy_loss is None and value_loss is None:
        return empty(ax, "nothing learned yet")
    if policy_loss is not None:
        ax.set_ylabel(policy_loss.replace("_", " "), color=STRONG)
        ax.plot(metrics["frame"], metrics[policy_loss], color=STRONG, linewidth=1)
    if value_loss is not None:
        right = ax.twinx()
        right.plot(metrics["frame"], metrics[value_loss], color=SECOND, linewidth=1)
        right.set_ylabel(value_loss.replace("_", " "), color=SECOND)
        positive = metrics[value_loss].dropna()
        if len(positive) and positive.min() > 0 and positive.max() > 100 * positive.min():
            right.set_yscale("log")
            right.minorticks_off()
        right.set_label(RIGHT)
    return None


def _exploration(ax: Axes, metrics: pd.DataFrame) -> None:
    ax.set_title("Entropy")
    if "entropy" not in metrics or not metrics["entropy"].notna().any():
        return empty(ax, "nothing learned yet")
    ax.set_ylabel("entropy, nats")
    ax.plot(metrics["frame"], metrics["entropy"], color=STRONG)
    return None


def _speed(ax: Axes, tables: Tables) -> None:
    ax.set_title("Speed")
    ax.set_ylabel("frames per second")
    if not len(tables.timing):
        return empty(ax, "nothing timed yet")
    ax.plot(tables.timing["frame"], tables.timing["frames_per_second"], color=FAINT, linewidth=1)
    frames = tables.timing["frame"].diff().fillna(tables.timing["frame"])
    overall = float(frames.sum() / tables.timing["seconds"].sum())
    ax.axhline(overall, color=STRONG, linestyle="--", label=f"{overall:,.0f} overall")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    legend(ax)
    return None
