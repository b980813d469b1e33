"""The plot of a Trial."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lab.analysis import panels, plotting
from lab.analysis.session import Session
from lab.analysis.statistics import STATISTICS, interval
from lab.analysis.text import format_hyperparameter, shorten
from lab.analysis.trial import VARIES, Trial, unfinished_session
from lab.common.text import plural

UNFINISHED = "0.5"  # color of Sessions that did not complete
MARKERS = {"failed": "X", "pruned": "s", "interrupted": "D", "running": ">"}  # where their curves end
NAMES = {"mean": "mean", "iqm": "IQM", "median": "median"}
MAX_REASONS = 3  # that the heading gives for Sessions that did not complete
MAX_NAMED = 14  # seeds with a row of their own; more share one
FINAL = "final return"  # stands for the panel of final returns among the columns


@plotting.style()
def plot_trial(trial: Trial, statistic: str = "mean") -> bytes:
    """Draw a Trial's return, final returns and what its algorithm logged over its seeds; return a PNG.

    Args:
        trial: the Trial.
        statistic: over seeds: mean, median or iqm.
    """
    return plotting.png(trial_figure(trial, statistic))


def trial_figure(trial: Trial, statistic: str = "mean") -> Figure:
    """Return the figure of a Trial, with a panel for each column that was logged."""
    columns = panels.drawn_columns([session.tables for session in trial.sessions if session.tables])
    notes = _notes(trial) + ([] if columns else ["nothing has been logged yet"])
    if "return" in columns:
        columns.insert(1 + ("eval_return" in columns), FINAL)
    figure, axes = panels.panel_figure(len(columns), _title(trial), notes, _keys(trial, statistic) if columns else [])
    for ax, column in zip(axes, columns, strict=True):
        if column == FINAL:
            _final_returns(ax, trial, statistic)
        else:
            _curves(ax, trial, column, statistic)
    panels.share_frames([ax for ax, column in zip(axes, columns, strict=True) if column != FINAL])
    return figure


def _keys(trial: Trial, statistic: str) -> list[Line2D]:
    """Return the legend: the statistic with its band, and Sessions by state."""
    n, keys = len(trial.completed), []
    if n:
        label = f"{NAMES[statistic]} of {plural(n, 'Session')}{', 95 % interval' if n > 1 else ': no interval'}"
        keys.append(Line2D([], [], color=plotting.STRONG, linewidth=2, label=label))
    for state in dict.fromkeys(session.state for session in trial.sessions if session.tables):
        sessions = [session for session in trial.sessions if session.tables and session.state == state]
        label = "each Session" if state == "completed" else f"{state}: {_seeds(sessions)}"
        keys.append(Line2D([], [], label=label, **_line(state)))
    return keys


def _line(state: str) -> dict[str, Any]:
    """Return the style of the curves of Sessions in a state."""
    if state == "completed":
        return {"color": plotting.FAINT, "linewidth": 0.9}
    dashed = {"color": UNFINISHED, "linestyle": (0, (4, 2)), "linewidth": 0.9}
    return {**dashed, "marker": MARKERS[state], "markevery": [-1], "markersize": 5}


def _title(trial: Trial) -> str:
    parts = [trial.spec[key] for key in ("name", "env.id") if trial.spec.get(key, VARIES) != VARIES]
    name = ": ".join(parts) or trial.name
    number = "" if trial.number is None else f", {trial.name}"
    return f"{name}{number}, {len(trial.completed)} of {plural(len(trial.sessions), 'Session')} completed"


def _notes(trial: Trial) -> list[str]:
    """Return the lines below the title: hyperparameters, and which Sessions are excluded and why."""
    values = ", ".join(f"{key}={format_hyperparameter(value)}" for key, value in trial.hyperparameters.items())
    reasons: dict[str, list[Session]] = {}
    for session in trial.sessions:
        if session.state != "completed":
            error = unfinished_session(session)["error"]
            reason = f"{session.state} ({shorten(error, 60)})" if error else session.state
            reasons.setdefault(reason, []).append(session)
    named = [f"{_seeds(sessions)} {reason}" for reason, sessions in list(reasons.items())[:MAX_REASONS]]
    more = "; ..." if len(reasons) > MAX_REASONS else ""
    excluded = f"excluded from means: {'; '.join(named)}{more}" if reasons else ""
    early = [session for session in trial.completed if session.stopped]
    ends = "the mean ends where the first Session does"
    stopped = f"stopped on success: {_seeds(early)}; {ends}" if early else ""
    return [line for line in (shorten(values, 200), excluded, stopped) if line]


def _curves(ax: Axes, trial: Trial, column: str, statistic: str) -> None:
    """Draw a column of metrics.csv over frames: each Session, and a statistic over the completed ones on top."""
    panels.set_title(ax, panels.title(column))
    for session in trial.sessions:
        if session.tables:
            frames, values = session.tables.curve(column)
            alpha = float(np.clip(5 / len(trial.sessions), 0.2, 0.8))
            plotting.curve(ax, frames, values, **{"few": 2, "alpha": alpha, **_line(session.state)})
    frames, values = trial.curve(column)
    if len(frames):
        means = STATISTICS[statistic](values, axis=0)
        plotting.curve(ax, frames, means, few=panels.FEW_POINTS, color=plotting.STRONG, linewidth=2)
        if "return" in column and len(values) > 1:
            plotting.shade(ax, frames, *interval(values, statistic), color=plotting.STRONG)
    panels.finish(ax, column, trial.reference)


def _final_returns(ax: Axes, trial: Trial, statistic: str) -> None:
    """Draw the last return of each seed, and statistics over the completed Sessions on top."""
    finals = trial.values("return")
    ax.set(title="Final return by seed", xlabel=panels.title("return").lower())
    names = list(NAMES.values()) if len(finals) else []
    for y, name in enumerate(NAMES if len(finals) else ()):
        color = plotting.STRONG if name == statistic else UNFINISHED
        ax.hlines(y, *interval(finals, name), color=color, linewidth=2.5, alpha=0.6)
        ax.plot(STATISTICS[name](finals), y, "D", color=color, markersize=5)
    several = len(trial.sessions) > MAX_NAMED
    for place, session in enumerate(trial.sessions):
        y = len(names) if several else len(names) + place
        value = session.metric("return")
        if session.state == "completed" and value is not None:
            ax.plot(value, y, "o", color=plotting.FAINT, markersize=5, alpha=0.6 if several else 1.0)
        elif not several:
            why = "no episode ended" if session.state == "completed" else f"{session.state} at frame {session.frame:,}"
            ax.text(0.02, y, why, transform=ax.get_yaxis_transform(), va="center", color=UNFINISHED, fontsize="x-small")
    if len(finals):
        ax.axhline(len(names) - 0.5, color="0.8", linewidth=1)
    else:
        ax.set_xticks([])
    names += ["each seed"] if several else [f"seed {session.seed}" for session in trial.sessions]
    ax.set_yticks(range(len(names)), names, fontsize=min(9.0, 110 / len(names)))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=6)
    ax.grid(alpha=0.3, axis="x")


def _seeds(sessions: list[Session]) -> str:
    numbers = ", ".join(str(session.seed) for session in sessions)
    return f"{'seed' if len(sessions) == 1 else 'seeds'} {shorten(numbers, 30)}"
