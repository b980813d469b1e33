"""The plot of a Session."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from lab.analysis import panels, plotting
from lab.analysis.session import WINDOW, Tables

MAX_EPISODES = 5_000  # drawn one by one; more are evenly thinned
EPISODES: dict[str, Any] = {
    "color": plotting.FAINT,
    "alpha": 0.6,
    "linestyle": "none",
    "marker": "o",
    "markersize": 2.5,
}


@plotting.style()
def plot_session(tables: Tables) -> bytes:
    """Draw a Session's return, what its algorithm logged, and its speed; return a PNG."""
    return plotting.png(session_figure(tables))


def session_figure(tables: Tables) -> Figure:
    """Return the figure of a Session, with a panel for each column that was logged."""
    spec, timing = tables.spec, tables.timing
    columns = panels.drawn_columns([tables])
    notes = [] if len(tables.episodes) else ["no episode has ended"]
    if not columns:
        notes = ["nothing has been logged yet"]
    heading = f"{spec['name']}, seed {spec['seed']}: {spec['env']['id']}, {tables.state}"
    keys = [Line2D([], [], label="one episode", **EPISODES)] if "return" in columns else []
    figure, axes = panels.panel_figure(len(columns) + bool(len(timing)), heading, notes, keys, reuse=True)
    for ax, column in zip(axes, columns, strict=False):
        _column(ax, tables, column)
    if len(timing):
        _speed(axes[-1], tables)
    panels.share_frames(axes)
    return figure


def _column(ax: Axes, tables: Tables, column: str) -> None:
    panels.set_title(ax, panels.title(column))
    if column in ("return", "length", *tables.env_metrics):
        rows = tables.episodes
        some = rows.iloc[:: max(1, len(rows) // MAX_EPISODES)]
        if column == "return":
            ax.plot(some["frame"], some["return"], **EPISODES)
        means = rows[column].rolling(WINDOW, min_periods=1).mean()
        plotting.curve(ax, rows["frame"].to_numpy(), means.to_numpy(), color=plotting.STRONG, linewidth=2)
    else:
        plotting.curve(ax, *tables.curve(column), few=panels.FEW_POINTS, color=plotting.STRONG)
    panels.finish(ax, column, tables.reference)


def _speed(ax: Axes, tables: Tables) -> None:
    timing = tables.timing
    overall = float(timing["frame"].iloc[-1] / timing["seconds"].sum())
    panels.set_title(ax, f"Frames per second, {overall:,.0f} overall")
    frames, speed = timing["frame"].to_numpy(), timing["frames_per_second"].to_numpy()
    plotting.curve(ax, frames, speed, few=panels.FEW_POINTS, color=plotting.FAINT)
    ax.axhline(overall, color=plotting.STRONG, linestyle="--", linewidth=1)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
