"""What the plots share: style, headings, legends, and curves with bands over seeds."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.style
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from lab.analysis.statistics import STATISTICS, interval

FAINT, STRONG, SECOND, THIRD = "#85a8cb", "#1f5f9e", "#d1662c", "#3b8f5a"
# After Okabe and Ito, distinguishable in any color vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5558f", "#c58a00", "#3a9bd9", "#4a525a", "#8a5a2b")
DASHES = ("-", "--", ":", "-.")
END, TALL = 0.3, 0.12  # room of the name of a reference line, as shares of the axes


def rank_color(place: int) -> str:
    """Return the color of the Trial at a place in the ranking, from 0 for the best, in pictures and pages alike.

    Beyond the palette its colors come again, each time closer to gray.
    """
    color, weight = PALETTE[place % len(PALETTE)], 0.6 ** (place // len(PALETTE))
    parts = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(weight * part + (1 - weight) * 128):02x}" for part in parts)


def line_style(index: int) -> dict[str, Any]:
    """Return color and dashes of the curve with this index, different for the first 32."""
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": DASHES[index // len(PALETTE) % len(DASHES)]}


@contextmanager
def style() -> Iterator[None]:
    """Apply the project's style to figures created in this context, whatever the user's own settings are."""
    seaborn = {**sns.axes_style("ticks"), **sns.plotting_context("notebook", font_scale=0.85)}
    with matplotlib.style.context(["default", seaborn]):
        yield


DPI = 110
UNDATED = {"png": ("Software",), "svg": ("Date",), "pdf": ("CreationDate", "Creator", "Producer")}


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    return save(figure, "png")


def save(figure: Figure, form: str) -> bytes:
    """Return a figure as a png, svg or pdf without date or version, so the same figure gives the same bytes."""
    sns.despine(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a character that the font lacks is drawn as a box
        _fix_layout(figure)
        with matplotlib.rc_context({"svg.hashsalt": "lab"}):
            figure.savefig(buffer, dpi=DPI, format=form, metadata=dict.fromkeys(UNDATED[form]))
    return buffer.getvalue()


def _fix_layout(figure: Figure) -> None:
    """Round the places that a layout gives to axes, as their last bits differ from one call to the next."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine("none")
        for ax in figure.axes:
            ax.set_position(np.round(ax.get_position(original=True).bounds, 5).tolist())


def heading(figure: Figure, title: str, lines: Sequence[str] = ()) -> None:
    """Add a bold title to a figure, and smaller lines below it."""
    bold = figure.suptitle(literal(title) + "\n" * len(lines), fontweight="bold")
    below = 1 - (0.08 + 1.4 * float(bold.get_fontsize()) / 72) / figure.get_figheight()
    figure.text(0.5, below, literal("\n".join(lines)), ha="center", va="top", fontsize="small", color="0.3")


def literal(text: str) -> str:
    """Return text that matplotlib shows literally, dollar signs too."""
    return text.replace("$", r"\$")


def over_frames(ax: Axes, end: float = 0.0) -> None:
    """Finish axes whose x is frames, up to `end` if it is known."""
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    ax.set_xlabel("frames")
    ax.set_xlim(0, 1.02 * end or None)
    ax.grid(alpha=0.3)


def legend(ax: Axes, **options: Any) -> None:
    """Add a legend if any artist has a label."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(**{"framealpha": 0.8, "edgecolor": "none", "fontsize": "small", **options})


def note(ax: Axes, text: str, hide_axes: bool = False) -> None:
    """Write in the middle of axes why they are empty."""
    if hide_axes:
        ax.set_axis_off()
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="0.5")


# Behind labels that curves may cross, which must stay legible.
HALO = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.8}
NAMES: dict[str, Any] = {"size": "x-small", "color": "0.35", "zorder": 6, "bbox": HALO}  # of reference lines


def reference_lines(ax: Axes, reference: dict[str, Any]) -> None:
    """Draw the return that counts as solved and that of random actions, where they are known.

    A line that would squash what is drawn to less than half of the axis is replaced by a note on where it lies.
    """
    low, high = ax.dataLim.y0, ax.dataLim.y1
    room = high - low if low < high else np.inf  # one value is not squashed
    for key, label, line, x in (("solved", "solved", "--", 0.01), ("random_return", "random actions", ":", 0.99)):
        value = reference.get(key)
        if value is None or not np.isfinite([low, high]).all():
            continue
        text: dict[str, Any] = {"ha": "left" if x < 0.5 else "right", **NAMES}
        name = f"{label} {np.round(value, 1):g}"
        if low - room <= value <= high + room:
            ax.axhline(value, color="0.4", linestyle=line, linewidth=1, zorder=1)
            x, above = _free_end(ax, value, x)
            text = {**text, "ha": "left" if x < 0.5 else "right", "va": "bottom" if above else "top"}
            place: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
            ax.annotate(name, (x, value), (0, 2 if above else -2), **place, **text)
        elif value > high:
            ax.text(x, 0.98, f"\N{UPWARDS ARROW} {name}", transform=ax.transAxes, va="top", **text)
        else:
            ax.text(x, 0.02, f"\N{DOWNWARDS ARROW} {name}", transform=ax.transAxes, va="bottom", **text)


def _free_end(ax: Axes, value: float, x: float) -> tuple[float, bool]:
    """Return at which end of a line, and whether above it, its name meets the fewest curves; first at the end `x`."""
    (bottom, top), end = ax.get_ylim(), ax.dataLim.x1
    room = TALL * (top - bottom)
    drawn = [
        (np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float), line.get_linestyle() != "None")
        for line in ax.lines
        if line.get_transform() == ax.transData  # other reference lines are not
    ]
    for lines in ax.collections:
        drawn += [(*segment.T, True) for segment in lines.get_segments()] if isinstance(lines, LineCollection) else []

    def crowd(place: tuple[float, bool]) -> int:
        at, above = place
        left, right = (0.0, END * end) if at < 0.5 else ((1 - END) * end, end)
        low, high = (value, value + room) if above else (value - room, value)
        met = 0
        for frames, values, joined in drawn:
            if joined and len(frames) > 1:
                grid = np.linspace(left, right, 30)
                frames, values = grid, np.interp(grid, frames, values, left=np.nan, right=np.nan)
            met += int(((frames >= left) & (frames <= right) & (values >= low) & (values <= high)).sum())
        return met

    # Curves lie above the return of random actions, so its name is below if there is room.
    places = [(at, above) for at in (x, 1 - x) for above in ((True, False) if x < 0.5 else (False, True))]
    inside = [(at, above) for at, above in places if (top - value if above else value - bottom) > room]
    return min(inside or places, key=crowd)


def curve(ax: Axes, frames: np.ndarray, values: np.ndarray, few: int = 1, **line: Any) -> None:
    """Draw a curve, with its points marked if they lie at few frames: those at a single one would not be seen."""
    marker = "o" if len(np.unique(frames)) <= few else None
    ax.plot(frames, values, **{"marker": marker, "markersize": 3 if few > 1 else 4, **line})


def shade(ax: Axes, frames: np.ndarray, low: np.ndarray, high: np.ndarray, color: Any) -> None:
    """Draw an interval around a curve; around a single point as a bar."""
    if len(frames) == 1:
        ax.vlines(frames, low, high, color=color, alpha=0.4, linewidth=3)
    else:
        ax.fill_between(frames, low, high, color=color, alpha=0.2, linewidth=0)


def band(ax: Axes, frames: np.ndarray, values: np.ndarray, statistic: str = "mean", **line: Any) -> None:
    """Draw a statistic of values [n, T] over n seeds, and its 95 % bootstrap interval if n > 1."""
    curve(ax, frames, STATISTICS[statistic](values, axis=0), **line)
    if len(values) > 1:
        shade(ax, frames, *interval(values, statistic), color=ax.lines[-1].get_color())


def log_if_wide(ax: Axes) -> None:
    """Set a logarithmic y axis if what is drawn is positive and spans two decades."""
    values = np.concatenate([np.empty(0), *(np.asarray(line.get_ydata(), float) for line in ax.lines)])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 100 * values.min():
        ax.set_yscale("log")
        ax.minorticks_off()
