"""The plot of an environment in published results: learning curves of all algorithms, and their final returns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab.analysis import plotting
from lab.analysis.published import Publication, Result
from lab.analysis.session import WINDOW
from lab.analysis.trial import common_reference
from lab.common.text import format_number

Styles = dict[str, dict[str, Any]]  # of the curves, by key


@plotting.style()
def plot_environment(publication: Publication, env: str) -> bytes:
    """Draw the curves of all algorithms on an environment, and beside them their final returns; return a PNG."""
    results = publication.on(env)
    peer = " and ".join(dict.fromkeys(result.peer.name for result in results if result.peer))
    figure = Figure(figsize=(13, max(4.6, 1.9 + 0.34 * len(results))), layout="constrained")
    curves, finals = figure.subplots(1, 2, width_ratios=(1.75, 1))
    lines = [f"mean return of the last {WINDOW} episodes: mean over seeds, with its 95 % bootstrap interval"]
    other_frames: dict[tuple[str, int], list[str]] = {}
    for result in results:
        if result.peer and result.peer.frames != result.frames:
            other_frames.setdefault((result.peer.name, result.peer.frames), []).append(result.label)
    trained = [
        f"{name} trained {', '.join(algos)} for {frames:,} frames" for (name, frames), algos in other_frames.items()
    ]
    lines += ["; ".join(sorted(trained))] if trained else []
    evaluated = dict.fromkeys(result.peer.name for result in results if result.peer and result.peer.metric != "return")
    lines += [f"results of {' and '.join(evaluated)} are by evaluation"] if evaluated else []
    missing = [result.label for result in results if not result.has_sessions]
    lines += [f"no curve is kept of {', '.join(missing)}"] if missing else []
    plotting.heading(figure, results[0].trial.environment, lines)
    styles = {result.key: plotting.line_style(publication.keys.index(result.key)) for result in results}
    _curves(curves, results, styles)
    _finals(finals, results, styles, peer)
    return plotting.png(figure)


def _curves(ax: Axes, results: Sequence[Result], styles: Styles) -> None:
    """Draw return over frames, and the peer's final returns at the right edge."""
    ax.set(title="Learning curves", ylabel="return")
    last = 0.0
    for result in results:
        frames, values = result.trial.curve("return")
        if len(frames):
            plotting.band(ax, frames, values, linewidth=1.8, **styles[result.key])
            last = max(last, float(frames[-1]))
        if result.peer:
            edge: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False, "zorder": 3}
            ax.plot(1, result.peer.value, **edge, **_diamond(styles[result.key]["color"]))
    if not last:
        plotting.note(
            ax, "no Session has completed" if any(r.has_sessions for r in results) else "only metrics are kept"
        )
    plotting.reference_lines(ax, common_reference([session for result in results for session in result.trial.sessions]))
    plotting.legend(ax)
    plotting.over_frames(ax)
    if last:
        ax.set_xlim(0, last)


def _finals(ax: Axes, results: Sequence[Result], styles: Styles, peer: str) -> None:
    """Draw a row for each algorithm: its seeds, their mean with its interval, and the peer's return."""
    ax.set(title="Final return", xlabel="return")
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "center", "clip_on": False}
    for row, result in enumerate(results):
        color, values = styles[result.key]["color"], result.trial.values("return")
        ax.plot(values, np.full(len(values), row), "o", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        ax.text(1.16, row, format_number(result.mean["value"]), fontweight="bold", **beside)
        if result.mean["value"] is not None:
            ax.plot(result.mean["value"], row, "|", color=color, markersize=14, markeredgewidth=2.5)
        if result.mean["low"] is not None and result.mean["high"] is not None:
            ax.hlines(row, result.mean["low"], result.mean["high"], color=color, linewidth=3)
        if result.peer:
            ax.plot(result.peer.value, row, **_diamond(color))
            ax.text(1.33, row, format_number(result.peer.value), **beside)
    above: dict[str, Any] = {"transform": ax.transAxes, "ha": "right", "fontsize": "small", "color": "0.4"}
    ax.text(1.16, 1.02, "mean", **above)
    if any(result.peer for result in results):
        ax.text(1.33, 1.02, plotting.literal(textwrap.fill(peer, 9)), **above)
        ax.plot([], [], linestyle="none", label=plotting.literal(peer), **_diamond("0.3"))
    ax.plot([], [], "o", color="0.3", alpha=0.35, markersize=5, markeredgewidth=0, label="a seed")
    plotting.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    names = [r.label + ("" if r.trial.state == "completed" else f" ({r.trial.progress})") for r in results]
    ax.set_yticks(range(len(results)), map(plotting.literal, names))
    for label, result in zip(ax.get_yticklabels(), results, strict=True):
        label.set(color=styles[result.key]["color"], fontweight="bold")
    ax.set_ylim(len(results) - 0.5, -0.5)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.grid(alpha=0.3, axis="x")


def _diamond(color: str) -> dict[str, Any]:
    edge = {"markeredgecolor": color, "markeredgewidth": 1.6}
    return {"marker": "D", "markersize": 6.5, "markerfacecolor": "white", **edge}
