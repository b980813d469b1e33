"""The display of a sweep on the terminal: progress of its Trials and Sessions, and the best Trial so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree as Branches

from lab.common.terminal import Terminal
from lab.common.text import format_duration, format_number, format_seeds, format_value, plural
from lab.launch.supervise import has_caller
from lab.run.progress import SessionProgress, TrialProgress, count_states, read_trial_progress

if TYPE_CHECKING:
    from lab.analysis.objective import Objective
    from lab.trial import Outcome, Trial

STYLES = {
    "completed": "green", "failed": "bold red", "pruned": "yellow", "interrupted": "magenta", "running": "cyan",
    "pending": "dim",
}  # fmt: skip
BAR_WIDTH = 12  # characters of a progress bar
PRINT_SECONDS = 30.0  # between two lines on progress, where the output is no terminal
CALLER_SECONDS = 5.0  # the same where someone waits in Python
REDRAW_SECONDS = 0.5  # between two drawings of the live tree


class Tree:
    """Shows the progress of a sweep: as a live tree on a terminal, as plain lines anywhere else."""

    def __init__(
        self, name: str, total: int, seeds: int, frames: int, objective: Objective, comparable: bool = True
    ) -> None:
        """Describe a sweep of `total` Trials with `seeds` Sessions each, ranked by an objective if `comparable`."""
        self.comparable = comparable
        self.name, self.total, self.seeds, self.frames, self.objective = name, total, seeds, frames, objective
        self.console = Terminal(soft_wrap=True)
        self.trials: dict[int, TrialProgress] = {}
        self.best: tuple[TrialProgress, list[float]] | None = None
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._drawn = self._printed = monotonic()
        self._next_update = 0.0

    def adopt(self, trials: Mapping[int, tuple[Trial, Outcome]]) -> None:
        """Add the Trials that an earlier controller started."""
        for trial, outcome in trials.values():
            self._update_best(self._add(trial), outcome)

    def start(self, trial: Trial) -> None:
        """Show that a Trial starts or continues."""
        remaining = trial.remaining()
        each = " each" if len(remaining) > 1 else ""
        progress = self._add(trial)
        done = [session.status["frame"] for session in progress.sessions if session.seed in remaining]
        resumed = f", from frame {min(done):,} on" if done and min(done) else ""
        self.say(f"{title(progress)}: {format_seeds(remaining)} of {plural(self.frames, 'frame')}{each}{resumed}")

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """Show the outcome of a Trial."""
        progress = self.trials[trial.number]
        progress.refresh()
        is_first = self.best is None
        is_best = self._update_best(progress, outcome) and not is_first
        if self.total == 1 and outcome.values is not None:  # the results follow at once
            return
        if outcome.values is not None:
            text = f"{self.format_values(outcome.values)}{', the best so far' if is_best else ''}"
        else:
            states = count_states([progress])
            text = ", ".join(f"{states[state]} {state}" for state in STYLES if state in states)
        self.say(f"{title(progress)}: {text}")

    def format_values(self, values: Sequence[float]) -> str:
        """Format the values of the objective."""
        pairs = zip(self.objective.metrics, values, strict=True)
        return ", ".join(
            f"{self.objective.aggregate} {metric} {format_number(value, metric)}" for metric, value in pairs
        )

    def say(self, line: str) -> None:
        """Print a line where there is no live tree."""
        if self._live is None:
            self.announce(line)

    def announce(self, line: str) -> None:
        """Print a line, above the live tree if there is one."""
        self.console.print(line)

    def fraction_done(self, trial: Trial) -> float:
        """Return the fraction of its frames that the slowest Session of a Trial has done, at the last update."""
        return self.trials[trial.number].fraction_done

    def update(self) -> None:
        """Read the status of running Sessions and show it, taking at most a fifth of the time."""
        begin = monotonic()
        if begin < self._next_update:
            return
        for trial in self.trials.values():
            if not trial.ended:
                trial.refresh()
        now = monotonic()
        self._next_update = now + 4 * (now - begin)
        if self._live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._live.update(self.render(), refresh=True)
        elif not self._live and now - self._printed >= (CALLER_SECONDS if has_caller() else PRINT_SECONDS):
            self._printed = now
            self.console.print(self.header().plain)

    def header(self) -> Text:
        """Return a line on the whole sweep."""
        counts = count_states(list(self.trials.values()))
        sessions = [session for trial in self.trials.values() for session in trial.sessions]
        planned = len(sessions) + max(self.total - len(self.trials), 0) * self.seeds
        parts = [f"{counts.get('completed', 0)} of {plural(planned, 'Session')} completed"]
        parts += [
            f"{counts[state]} {state}" for state in ("running", "failed", "pruned", "interrupted") if state in counts
        ]
        speed = sum(session.status["frames_per_second"] or 0.0 for session in sessions if session.state == "running")
        if speed:
            # Sessions that failed or were pruned have no frames to go, whatever they had done.
            done = sum(1 if s.state in ("failed", "pruned") else s.fraction_done for s in sessions)
            remaining = max(planned - done, 0.0) * self.frames / speed
            parts += [f"{speed:,.0f} frames/s", f"{format_duration(remaining)} left"]
        return Text(f"{self.name}: {', '.join(parts)}", style="bold")

    def render(self) -> RenderableType:
        """Draw the tree: running Trials first, and as many as fit on the terminal."""
        trials = sorted(self.trials.items(), key=lambda item: (item[1].ended, -item[0] if item[1].ended else item[0]))
        height = max(self.console.height - 6, 5)
        root = Branches(self.header(), guide_style="dim")
        if self.total == 1 and trials:
            add_sessions(root, trials[0][1])
            return root
        for shown, (_, trial) in enumerate(trials):
            height -= 1 if trial.ended else 1 + len(trial.sessions)
            if height < 0:
                root.add(Text(f"and {plural(len(trials) - shown, 'more Trial')}", style="dim"))
                break
            add_trial(root, trial, sessions=not trial.ended, wrap=False)
        if not self.best:
            return root
        best = f"best so far: {title(self.best[0])}: {self.format_values(self.best[1])}"
        return Group(root, Text(best, style="green", overflow="ellipsis"))

    def _add(self, trial: Trial) -> TrialProgress:
        progress = read_trial_progress(trial.directory, trial.seeds, trial.point.hyperparameters)
        self.trials[trial.number] = progress
        return progress

    def _update_best(self, trial: TrialProgress, outcome: Outcome) -> bool:
        """Return whether a Trial is the best so far by the first metric."""
        if outcome.state != "completed" or outcome.values is None or not self.comparable:
            return False
        sign = self.objective.signs[0]
        is_best = self.best is None or sign * outcome.values[0] > sign * self.best[1][0]
        if is_best:
            self.best = trial, outcome.values
        return is_best

    def __enter__(self) -> Tree:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update(self.render(), refresh=True)
            self._live.stop()


def add_trial(root: Branches, trial: TrialProgress, sessions: bool = True, wrap: bool = True) -> None:
    """Add a Trial to a drawing, with a line for each of its Sessions if asked to; without `wrap`, lines are cut."""
    completed = [session for session in trial.sessions if session.state == "completed"]
    returns = [session.status["return"] for session in completed if session.status["return"] is not None]
    mean = f"  return {format_number(sum(returns) / len(returns))}" if returns else ""
    summary = f"{len(completed)} of {plural(len(trial.sessions), 'Session')}{mean}"
    line = _line(_name(trial), trial.state, "  ".join(filter(None, (summary, _settings(trial)))))
    line.no_wrap, line.overflow = not wrap, None if wrap else "ellipsis"
    branch = root.add(line)
    if sessions:
        add_sessions(branch, trial)


def add_sessions(branch: Branches, trial: TrialProgress) -> None:
    """Add a line for each Session of a Trial to a drawing."""
    for session in trial.sessions:
        name = f"seed {session.seed}" if session.seed is not None else "Session"
        branch.add(_line(name, session.state, _describe(session)))


def title(trial: TrialProgress) -> str:
    """Return the name and hyperparameters of a Trial."""
    return f"{_name(trial)} {_settings(trial)}".strip()


def _name(trial: TrialProgress) -> str:
    return trial.directory.path.name if trial.number is not None else "Trial"


def _settings(trial: TrialProgress) -> str:
    return ", ".join(f"{key}={format_value(value, digits=4)}" for key, value in trial.hyperparameters.items())


def _line(name: str, state: str, rest: str) -> Text:
    return Text.assemble(name, "  ", (state, STYLES[state]), f"  {rest}" if rest else "")


def _describe(session: SessionProgress) -> str:
    """Describe the progress of a Session, or how it ended."""
    status = session.status
    if session.state == "pending":
        return ""
    if session.state in ("failed", "pruned") and status["error"]:
        return str(status["error"]).strip().splitlines()[-1]
    filled = round(BAR_WIDTH * session.fraction_done)
    bar = f"{'━' * filled}{'╌' * (BAR_WIDTH - filled)} {session.fraction_done:>4.0%}"
    parts = [bar, plural(status["frame"], "frame")]
    if session.state == "running" and (speed := status["frames_per_second"]):
        remaining = max(status["frames"] - status["frame"], 0) / speed
        parts += [f"{speed:,.0f}/s", f"{format_duration(remaining)} left"]
    return "  ".join([*parts, f"return {format_number(status['return'])}"])
