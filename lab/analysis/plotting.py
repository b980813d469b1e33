"""What the plots share: their style, how values are written, and curves over seeds."""

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
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image

from lab.analysis.session import Session, Tables
from lab.analysis.statistics import STATISTICS, interval
from lab.analysis.trial import Trial
from lab.common.text import format_value

FAINT, STRONG, SECOND, THIRD = "#85a8cb", "#1f5f9e", "#d1662c", "#3b8f5a"
RIGHT = "right axis"  # label of axes that keep their right edge
MOST_POINTS = 500  # points of a curve; of more, evenly many are left out


@contextmanager
def style() -> Iterator[None]:
    """Give figures made in this context the project's look, whatever the user's own settings are."""
    seaborn = {**sns.axes_style("ticks"), **sns.plotting_context("notebook", font_scale=0.85)}
    with matplotlib.style.context(["default", seaborn]):
        yield


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG; no date and no version, so that the same figure gives the same bytes."""
    sns.despine(figure)
    for ax in figure.axes:
        ax.spines["right"].set_visible(ax.get_label() == RIGHT)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names and error messages may hold any letter; one that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph")
        # What savefig does, but it would lay out all texts twice.
        figure.set_dpi(110)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, "png")
    return buffer.getvalue()


def heading(figure: Figure, title: str, lines: Sequence[str] = ()) -> None:
    """Write a bold title above a figure, and smaller lines below it."""
    bold = figure.suptitle(plain(title) + "\n" * len(lines), fontweight="bold")
    below = 1 - (0.08 + 1.4 * float(bold.get_fontsize()) / 72) / figure.get_figheight()
    figure.text(0.5, below, plain("\n".join(lines)), ha="center", va="top", fontsize="small", color="0.3")


def over_frames(ax: Axes) -> None:
    """Finish axes whose x is frames."""
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("frames")
    ax.set_xlim(left=0)
    ax.grid(alpha=0.3)


def legend(ax: Axes, **where: Any) -> None:
    """Add a legend, if there is anything to name."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(**{"framealpha": 0.8, "edgecolor": "none", "fontsize": "small", **where})


def empty(ax: Axes, why: str) -> None:
    """Say in axes why there is nothing in them."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color="0.5")


def blank(ax: Axes, why: str) -> None:
    """Say why there is nothing to draw, in place of the axes."""
    ax.set_axis_off()
    empty(ax, why)


def reference_lines(ax: Axes, reference: dict[str, Any]) -> None:
    """Draw the return that counts as solved, and that of random actions, where they are known."""
    for key, label, line in (("solved", "solved", "--"), ("random_return", "random actions", ":")):
        value = reference.get(key)
        if value is not None:
            ax.axhline(value, color="0.4", linestyle=line, linewidth=1, label=f"{label} ({np.round(value, 1):g})")


def reference_of(sessions: Sequence[Session]) -> dict[str, Any]:
    """Return what is known of the environment of Sessions; nothing if there are several."""
    known = [session.tables.reference for session in sessions if session.tables]
    return known[0] if known and all(reference == known[0] for reference in known) else {}


def session_curve(tables: Tables, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames [T] at which a Session has a finite value in a column of metrics.csv, and the values [T]."""
    if column not in tables.metrics:
        return np.empty(0), np.empty(0)
    frames, values = tables.metrics["frame"].to_numpy(float), tables.metrics[column].to_numpy(float)
    return _thin(frames, values, np.isfinite(values))


def trial_curve(trial: Trial, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames [T] at which every completed Session has a finite value, and the values [n, T].

    A mean of them is over the same Sessions at each frame, and never over one that did not complete.
    """
    frames, values = trial.curve(column)
    return _thin(frames, values, np.isfinite(values).all(axis=0))


def _thin(frames: np.ndarray, values: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = np.flatnonzero(kept)
    # From the end, so that the last value stays.
    places = places[::-1][:: -(-max(len(places), 1) // MOST_POINTS)][::-1]
    return frames[places], values[..., places]


def band(ax: Axes, frames: np.ndarray, values: np.ndarray, statistic: str, **line: Any) -> None:
    """Draw a statistic over seeds, and its 95 % bootstrap interval if there are two seeds or more.

    Args:
        ax: where.
        frames: [T].
        values: by seed, [n, T].
        statistic: one of lab.analysis.statistics.STATISTICS.
        line: how the curve is drawn.
    """
    (curve,) = ax.plot(frames, STATISTICS[statistic](values, axis=0), **line)
    if len(values) > 1:
        ax.fill_between(frames, *interval(values, statistic), color=curve.get_color(), alpha=0.2, linewidth=0)


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is, dollars too."""
    return text.replace("$", r"\$")


def log_if_wide(ax: Axes) -> None:
    """Make y logarithmic if what is drawn is positive and spans two decades."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    if len(values) and values.min() > 0 and values.max() > 100 * values.min():
        ax.set_yscale("log")
        ax.minorticks_off()


def written(value: Any) -> str:
    """Return a value of a hyperparameter as its config would say it, numbers to three digits."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return format_value(value)


def _number(value: float) -> str:
    """Write a number to three digits; one just below 1 by how far it is from 1, as discounts and decays are."""
    if not np.isfinite(value) or not value:
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if 0.99 < value < 1:
        return f"{value:.{1 - int(np.floor(np.log10(1 - value)))}g}"
    return f"{value:.{max(3, int(np.log10(abs(value))) + 1)}g}"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key the fewest of its last words that no other key ends with."""

    def name(key: str) -> str:
        words = key.split(".")
        endings = (".".join(words[place:]) for place in reversed(range(len(words))))
        return next((end for end in endings if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)

    return {key: name(key) for key in keys}


def brief(text: str, width: int) -> str:
    """Return text on one line, the middle of which is left out where it is too long."""
    text = " ".join(text.split())
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - half]}…{text[-half:]}"
