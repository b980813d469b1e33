"""The plot of a Trial."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.analysis import plotting
from lab.analysis.session import POLICY_LOSSES, VALUE_LOSSES, WINDOW, Session
from lab.analysis.statistics import STATISTICS, interval
from lab.analysis.text import format_hyperparameter, shorten
from lab.analysis.trial import VARIES, Trial, unfinished_session
from lab.common.text import plural

UNFINISHED = "0.5"  # color of Sessions that did not complete
MARKERS = {"failed": "X", "pruned": "s", "interrupted": "D", "running": ">"}  # where their curves end
FEW_POINTS = 30  # of a curve, up to which each is marked
COLORS = {"mean": plotting.STRONG, "iqm": plotting.SECOND, "median": "0.3"}
MAX_REASONS = 3  # that the heading gives for Sessions that did not complete


@plotting.style()
def plot_trial(trial: Trial) -> bytes:
    """Draw a Trial's return, evaluation, losses, entropy and final returns over its seeds; return a PNG."""
    height = min(7.8 + 0.12 * max(len(trial.sessions) - 16, 0), 16)
    figure = Figure(figsize=(15, height), layout="constrained")
    axes = figure.subplots(2, 3)
    plotting.heading(figure, _title(trial), _notes(trial))
    _curves(axes[0, 0], trial, "return", f"mean return of the last {WINDOW} episodes")
    _curves(axes[0, 1], trial, "eval_return", "mean return", "Evaluation, deterministic policy")
    _final_returns(axes[0, 2], trial, 72 * (height - 1.8) / 2)
    for ax, names in ((axes[1, 0], POLICY_LOSSES), (axes[1, 1], VALUE_LOSSES)):
        logged = [session.tables.metrics.columns for session in trial.sessions if session.tables]
        column = next((name for name in names if any(name in columns for columns in logged)), names[0])
        _curves(ax, trial, column, column.replace("_", " "))
    _curves(axes[1, 2], trial, "entropy", "entropy, nats")
    return plotting.png(figure)


def _title(trial: Trial) -> str:
    parts = [trial.spec[key] for key in ("name", "env.id") if trial.spec.get(key, VARIES) != VARIES]
    name = ": ".join(parts) or trial.directory.path.resolve().name
    number = "" if trial.number is None else f", trial {trial.number}"
    return f"{name}{number}, {len(trial.completed)} of {plural(len(trial.sessions), 'session')} completed"


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
    return [line for line in (shorten(values, 200), excluded) if line]


def _curves(ax: Axes, trial: Trial, column: str, label: str, title: str = "") -> None:
    """Draw a column of metrics.csv over frames: Sessions faint, statistics over the completed ones on top."""
    ax.set(title=title or column.replace("_", " ").capitalize(), ylabel=label)
    is_return = "return" in column
    drawn = [_session_curve(ax, trial, session, column) for session in trial.sessions]
    if not any(drawn):
        return plotting.note(ax, "nothing logged yet", hide_axes=True)
    frames, values = trial.curve(column)
    if len(frames):
        _statistics(ax, frames, values, with_iqm=is_return)
    else:
        ax.plot([], [], linestyle="none", label=_no_mean(trial))  # in the legend, clear of the curves
    if is_return:
        plotting.reference_lines(ax, trial.reference)
    elif column in VALUE_LOSSES:
        plotting.log_if_wide(ax)
    if is_return or not len(frames):
        plotting.legend(ax)
    return plotting.over_frames(ax)


def _session_curve(ax: Axes, trial: Trial, session: Session, column: str) -> bool:
    """Draw one Session; return whether it has anything to draw."""
    if session.tables is None:
        return False
    frames, values = session.tables.curve(column)
    same_state = [other for other in trial.sessions if other.tables and other.state == session.state]
    line: dict[str, Any] = {"linewidth": 0.9, "markersize": 5}
    if session.state == "completed":
        line |= {"color": plotting.FAINT, "alpha": max(0.8 - 0.02 * len(same_state), 0.3)}
        line["marker"] = "." if len(frames) <= FEW_POINTS else None
    else:
        line |= {"color": UNFINISHED, "linestyle": (0, (4, 2)), "marker": MARKERS[session.state], "markevery": [-1]}
    label = f"{session.state}: {_seeds(same_state)}" if session is same_state[0] else None
    ax.plot(frames, values, label=label, **line)
    return len(frames) > 0


def _statistics(ax: Axes, frames: np.ndarray, values: np.ndarray, with_iqm: bool) -> None:
    """Draw the mean over seeds, and the IQM if asked for; below four seeds the IQM is the mean."""
    n = len(values)
    over = f"of {n} sessions, 95 % interval" if n > 1 else "of 1 session: no interval"
    marker = "o" if len(frames) <= FEW_POINTS else None
    label = f"mean{' and IQM' if 1 < n < 4 else ''} {over}"
    plotting.band(ax, frames, values, color=plotting.STRONG, linewidth=2, label=label, marker=marker, markersize=4)
    if with_iqm and n >= 4:
        plotting.band(
            ax, frames, values, "iqm", color=plotting.SECOND, linewidth=1.5, linestyle="--", label=f"IQM {over}"
        )


def _final_returns(ax: Axes, trial: Trial, height: float) -> None:
    """Draw the last return of each seed, and statistics over the completed Sessions on top; height in points."""
    finals = trial.values("return")
    title = {0: f", {_no_mean(trial)}", 1: ", 1 session: no interval"}.get(len(finals), "")
    ax.set(title=f"Final return by seed{title}", xlabel=f"mean return of the last {WINDOW} episodes")
    colors = COLORS if len(finals) else {}
    size = min(10.0, height / (len(colors) + len(trial.sessions)))
    for y, (name, color) in enumerate(colors.items()):
        ax.hlines(y, *interval(finals, name), color=color, linewidth=2.5, alpha=0.6)
        ax.plot(STATISTICS[name](finals), y, "D", color=color, markersize=min(6, size))
    for y, session in enumerate(trial.sessions, len(colors)):
        value = session.metric("return")
        if session.state == "completed" and value is not None:
            ax.plot(value, y, "o", color=plotting.FAINT, markersize=min(6, size))
        else:
            why = "no episode ended" if session.state == "completed" else f"{session.state} at frame {session.frame:,}"
            place = ax.get_yaxis_transform()
            ax.text(0.02, y, why, transform=place, va="center", color=UNFINISHED, fontsize=size * 0.85)
    names = [name.replace("iqm", "IQM") for name in colors] + [f"seed {session.seed}" for session in trial.sessions]
    ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(alpha=0.3, axis="x")
    if len(finals):
        ax.axhline(len(colors) - 0.5, color="0.8", linewidth=1)
    else:
        ax.set_xticks([])


def _seeds(sessions: list[Session]) -> str:
    numbers = ", ".join(str(session.seed) for session in sessions)
    return f"{'seed' if len(sessions) == 1 else 'seeds'} {shorten(numbers, 30)}"


def _no_mean(trial: Trial) -> str:
    return "no mean: not every session has a value" if trial.completed else "no mean: no session completed"
