"""The plot of a Session."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lab.analysis.plotting import (
    FAINT,
    RIGHT,
    SECOND,
    STRONG,
    THIRD,
    heading,
    legend,
    log_if_wide,
    note,
    over_frames,
    png,
    reference_lines,
    style,
)
from lab.analysis.session import POLICY_LOSSES, VALUE_LOSSES, WINDOW, Tables

MAX_EPISODES = 5_000  # drawn one by one; more are evenly thinned


@style()
def plot_session(tables: Tables) -> bytes:
    """Draw a Session's return, evaluation, episode length, losses, entropy and speed; return a PNG."""
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    spec = tables.spec
    heading(figure, f"{spec['name']}, seed {spec['seed']}: {spec['env']['id']}, {tables.state}")
    panels = (_returns, _evaluation, _lengths, _losses, _entropy, _speed)
    for panel, ax in zip(panels, figure.subplots(2, 3).flat, strict=True):
        panel(ax, tables)
        legend(ax)
        over_frames(ax)
    return png(figure)


def _returns(ax: Axes, tables: Tables) -> None:
    ax.set(title="Return", ylabel="return of an episode")
    episodes = tables.episodes
    if not len(episodes):
        return note(ax, "no episode has ended")
    some = episodes.iloc[:: max(1, len(episodes) // MAX_EPISODES)]
    ax.scatter(some["frame"], some["return"], s=8, color=FAINT, alpha=0.6, linewidths=0, label="episodes")
    mean = episodes["return"].rolling(WINDOW, min_periods=1).mean()
    ax.plot(episodes["frame"], mean, color=STRONG, linewidth=2, label=f"mean of the last {WINDOW}")
    return reference_lines(ax, tables.reference)


def _evaluation(ax: Axes, tables: Tables) -> None:
    ax.set(title="Evaluation, deterministic policy", ylabel="mean return")
    rows = tables.metrics.dropna(subset="eval_return")
    if not len(rows):
        return note(ax, "not evaluated")
    ax.plot(rows["frame"], rows["eval_return"], color=THIRD, marker="o", markersize=4)
    return reference_lines(ax, tables.reference)


def _lengths(ax: Axes, tables: Tables) -> None:
    ax.set(title="Episode length", ylabel=f"steps, mean of the last {WINDOW}")
    if not len(tables.episodes):
        return note(ax, "no episode has ended")
    ax.plot(tables.episodes["frame"], tables.episodes["length"].rolling(WINDOW, min_periods=1).mean(), color=STRONG)
    return None


def _losses(ax: Axes, tables: Tables) -> None:
    ax.set_title("Losses")
    right = ax.twinx()
    right.set_label(RIGHT)
    for side, names, color in ((ax, POLICY_LOSSES, STRONG), (right, VALUE_LOSSES, SECOND)):
        for name in names:
            frames, values = tables.curve(name)
            if len(frames):
                side.set_ylabel(name.replace("_", " "), color=color)
                side.plot(frames, values, color=color, linewidth=1)
                break
    right.set_visible(bool(right.lines))
    log_if_wide(right)
    if not (ax.lines or right.lines):
        note(ax, "nothing learned yet")


def _entropy(ax: Axes, tables: Tables) -> None:
    ax.set(title="Entropy", ylabel="entropy, nats")
    frames, values = tables.curve("entropy")
    if not len(frames):
        return note(ax, "nothing learned yet")
    ax.plot(frames, values, color=STRONG)
    return None


def _speed(ax: Axes, tables: Tables) -> None:
    ax.set(title="Speed", ylabel="frames per second")
    timing = tables.timing
    if not len(timing):
        return note(ax, "nothing timed yet")
    ax.plot(timing["frame"], timing["frames_per_second"], color=FAINT, linewidth=1)
    overall = float(timing["frame"].iloc[-1] / timing["seconds"].sum())
    ax.axhline(overall, color=STRONG, linestyle="--", label=f"{overall:,.0f} overall")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    return None
