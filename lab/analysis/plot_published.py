"""The picture of an environment in published results: learning curves of all algorithms, and what they ended at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab.analysis.card import environment
from lab.analysis.plotting import (
    band,
    empty,
    heading,
    legend,
    over_frames,
    plain,
    png,
    reference_lines,
    reference_of,
    style,
    trial_curve,
)
from lab.analysis.published import Publication, Result
from lab.analysis.session import WINDOW
from lab.analysis.statistics import interval
from lab.analysis.wording import number

# After Okabe and Ito, told apart in any color vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5558f", "#c58a00", "#3a9bd9", "#4a525a", "#8a5a2b")
DASHES = ("-", "--", ":", "-.")  # curves after those of one palette
ROW = 0.34  # inches for each algorithm on the right
MOST_TICKS = 6  # intervals between ticks on the right, where numbers may be long


@style()
def plot_environment(publication: Publication, env: str) -> bytes:
    """Draw the curves of all algorithms on an environment, and beside them their final returns; return a PNG."""
    results = publication.of(env)
    height = max(4.6, 1.9 + ROW * len(results))
    figure = Figure(figsize=(13, height), layout="constrained")
    curves, finals = figure.subplots(1, 2, width_ratios=(1.75, 1))
    heading(
        figure,
        environment(results[0].trial.spec),
        [
            f"mean return of the last {WINDOW} episodes: mean over seeds, with its 95 % bootstrap interval",
            *_other_frames(results, publication.against.name if publication.against else ""),
        ],
    )
    looks = {result.algo: _look(publication.algorithms.index(result.algo)) for result in results}
    _curves(curves, results, looks)
    _finals(finals, results, looks, publication.against.name if publication.against else "")
    return png(figure)


def _other_frames(results: Sequence[Result], peer: str) -> list[str]:
    """Say which algorithms the peer trained for more frames, or fewer."""
    algos: dict[int, list[str]] = {}
    for result in results:
        if result.peer and result.peer.frames != result.frames:
            algos.setdefault(result.peer.frames, []).append(result.algo)
    said = [f"{peer} trained {', '.join(names)} for {frames:,} frames" for frames, names in sorted(algos.items())]
    return ["; ".join(said)] if said else []


def _look(index: int) -> dict[str, Any]:
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": DASHES[index // len(PALETTE) % len(DASHES)],
    }


def _curves(ax: Axes, results: Sequence[Result], looks: dict[str, dict[str, Any]]) -> None:
    """Draw return over frames, and at the right edge what the peer ended at."""
    ax.set(title="Learning curves", ylabel="return")
    furthest = 0.0
    for result in results:
        frames, values = trial_curve(result.trial, "return")
        if len(frames):
            band(ax, frames, values, "mean", linewidth=1.8, **looks[result.algo])
            furthest = max(furthest, float(frames[-1]))
        if result.peer:
            at_the_edge: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False, "zorder": 3}
            ax.plot(1, result.peer.value, **at_the_edge, **_hollow(looks[result.algo]["color"]))
    if not furthest:
        empty(ax, "no Session has completed")
    reference_lines(ax, reference_of([session for result in results for session in result.trial.sessions]))
    legend(ax)
    over_frames(ax)
    if furthest:
        ax.set_xlim(0, furthest)


def _finals(ax: Axes, results: Sequence[Result], looks: dict[str, dict[str, Any]], peer: str) -> None:
    """Draw a row for each algorithm: its seeds, their mean with its interval, and the peer's figure."""
    ax.set(title="Final return", xlabel="return")
    names = []
    for row, result in enumerate(results):
        color, values = looks[result.algo]["color"], result.trial.values("return")
        ax.plot(values, np.full(len(values), row), "o", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        if len(values) > 1:
            ax.hlines(row, *interval(values, "mean"), color=color, linewidth=3)
        if len(values):
            ax.plot(values.mean(), row, "|", color=color, markersize=14, markeredgewidth=2.5)
        if result.peer:
            ax.plot(result.peer.value, row, **_hollow(color))
        done = f" ({len(result.trial.completed)} of {len(result.trial.sessions)})" if result.incomplete else ""
        names.append(plain(f"{result.algo}{done}"))
        for x, value in enumerate((result.mean["value"], result.peer.value if result.peer else None)):
            if value is not None or not x:
                ax.text(1.16 + 0.17 * x, row, number(value), **_beside(ax), fontweight="normal" if x else "bold")
    above: dict[str, Any] = {
        "transform": ax.transAxes,
        "ha": "right",
        "va": "bottom",
        "fontsize": "small",
        "color": "0.4",
    }
    ax.text(1.16, 1.02, "mean", **above)
    if any(result.peer for result in results):
        ax.text(1.33, 1.02, "peer", **above)
        ax.plot([], [], linestyle="none", label=plain(peer), **_hollow("0.3"))
    ax.plot([], [], "o", color="0.3", alpha=0.35, markersize=5, markeredgewidth=0, label="a seed")
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    ax.set_yticks(range(len(results)), names)
    for label, result in zip(ax.get_yticklabels(), results, strict=True):
        label.set(color=looks[result.algo]["color"], fontweight="bold")
    ax.set_ylim(len(results) - 0.5, -0.5)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.grid(alpha=0.3, axis="x")


def _hollow(color: str) -> dict[str, Any]:
    return {
        "marker": "D", "markersize": 6.5, "markerfacecolor": "white", "markeredgecolor": color, "markeredgewidth": 1.6,
    }  # fmt: skip


def _beside(ax: Axes) -> dict[str, Any]:
    return {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "center", "clip_on": False}
