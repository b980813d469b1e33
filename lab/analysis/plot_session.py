"""The plot of a Session."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lab.analysis import plotting
from lab.analysis.session import POLICY_LOSSES, VALUE_LOSSES, WINDOW, Tables

MAX_EPISODES = 5_000  # drawn one by one; more are evenly thinned


@plotting.style()
def plot_session(tables: Tables) -> bytes:
    """Draw a Session's return, evaluation, episode length, losses, entropy and speed; return a PNG."""
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    spec, episodes, timing = tables.spec, tables.episodes, tables.timing
    plotting.heading(figure, f"{spec['name']}, seed {spec['seed']}: {spec['env']['id']}, {tables.state}")
    axes = figure.subplots(2, 3)
    returns, evaluation, lengths, losses, entropy, speed = axes.flat
    some = episodes.iloc[:: max(1, len(episodes) // MAX_EPISODES)]
    options: dict[str, Any] = {"color": plotting.FAINT, "alpha": 0.6, "linewidths": 0}
    returns.scatter(some["frame"], some["return"], s=8, label="episodes" if len(some) else None, **options)
    frames, window = episodes["frame"].to_numpy(), f"mean of the last {WINDOW}"
    means = {name: episodes[name].rolling(WINDOW, min_periods=1).mean().to_numpy() for name in ("return", "length")}
    _line(returns, frames, means["return"], "no episode has ended", linewidth=2, label=window)
    _line(evaluation, *tables.curve("eval_return"), "not evaluated", color=plotting.THIRD, marker="o", markersize=4)
    _line(lengths, frames, means["length"], "no episode has ended")
    _losses(losses, tables)
    _line(entropy, *tables.curve("entropy"), "nothing learned yet")
    rates = timing["frames_per_second"].to_numpy() if len(timing) else np.empty(0)
    _line(speed, timing["frame"].to_numpy(), rates, "nothing timed yet", color=plotting.FAINT, linewidth=1)
    if len(timing):
        overall = float(timing["frame"].iloc[-1] / timing["seconds"].sum())
        speed.axhline(overall, color=plotting.STRONG, linestyle="--", label=f"{overall:,.0f} overall")
        speed.set_ylim(bottom=0)
        speed.yaxis.set_major_formatter(EngFormatter(sep=""))
    for ax in (returns, evaluation):
        if ax.lines:
            plotting.reference_lines(ax, tables.reference)
    returns.set(title="Return", ylabel="return of an episode")
    evaluation.set(title="Evaluation, deterministic policy", ylabel="mean return")
    lengths.set(title="Episode length", ylabel=f"steps, {window}")
    losses.set(title="Losses")
    entropy.set(title="Entropy", ylabel="entropy, nats")
    speed.set(title="Speed", ylabel="frames per second")
    for ax in axes.flat:
        plotting.legend(ax)
        plotting.over_frames(ax)
    return plotting.png(figure)


def _line(ax: Axes, frames: np.ndarray, values: np.ndarray, empty: str, **line: Any) -> None:
    if len(values):
        ax.plot(frames, values, **{"color": plotting.STRONG, **line})
    else:
        plotting.note(ax, empty)


def _losses(ax: Axes, tables: Tables) -> None:
    """Draw the policy's loss on the left axis and the critic's on the right one."""
    right = ax.twinx()
    right.set_label(plotting.RIGHT)
    for side, names, color in ((ax, POLICY_LOSSES, plotting.STRONG), (right, VALUE_LOSSES, plotting.SECOND)):
        for name in names:
            frames, values = tables.curve(name)
            if len(frames):
                side.set_ylabel(name.replace("_", " "), color=color)
                side.plot(frames, values, color=color, linewidth=1)
                break
    right.set_visible(bool(right.lines))
    plotting.log_if_wide(right)
    if not (ax.lines or right.lines):
        plotting.note(ax, "nothing learned yet")
