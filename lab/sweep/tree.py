"""A sweep on the terminal: its Trials, their Sessions, how far they are, what is best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree as Branches

from lab.common.terminal import Terminal
from lab.common.text import format_duration, format_number, format_value
from lab.run.progress import SessionProgress, TrialProgress, count_states, read_trial_progress

if TYPE_CHECKING:
    from lab.analysis.objective import Objective
    from lab.experiment import Outcome
    from lab.trial import Trial

STYLES = {
    "completed": "green", "failed": "bold red", "pruned": "yellow", "interrupted": "magenta", "running": "cyan",
    "pending": "dim",
}  # fmt: skip
BAR = 12  # characters of a bar that shows how far a Session is
PLAIN_SECONDS = 30.0  # between two plain lines on progress, where the output is no terminal
REDRAW_SECONDS = 0.5  # between two drawings of the live tree


class Tree:
    """Shows a sweep while it runs: as a live tree on a terminal, as plain lines anywhere else."""

    def __init__(self, name: str, total: int, seeds: int, frames: int, objective: Objective) -> None:
        """Describe the sweep.

        Args:
            name: of its runs.
            total: Trials planned.
            seeds: Sessions of each.
            frames: of each Session.
            objective: what Trials are ranked by.
        """
        self.name, self.total, self.seeds, self.frames, self.objective = name, total, seeds, frames, objective
        self.console = Terminal(soft_wrap=True)
        self.trials: dict[int, TrialProgress] = {}
        self.best: tuple[TrialProgress, list[float]] | None = None
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._drawn = self._printed = monotonic()
        self._next_look = 0.0

    def adopt(self, trials: Mapping[int, tuple[Trial, Outcome]]) -> None:
        """Take in the Trials of an earlier process."""
        for key, (trial, outcome) in trials.items():
            self.trials[key] = read_trial_progress(trial.directory, trial.seeds, trial.point.hyperparameters)
            self._rank(self.trials[key], outcome)

    def start(self, trial: Trial) -> None:
        """Show that a Trial begins, or goes on."""
        self.trials[trial.number] = read_trial_progress(trial.directory, trial.seeds, trial.point.hyperparameters)
        seeds = ", ".join(map(str, trial.remaining()))
        self.say(f"{title(self.trials[trial.number])}: seeds {seeds} of {self.frames:,} frames each")

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """Show how a Trial ended."""
        found = self.trials[trial.number]
        found.refresh()
        best = self._rank(found, outcome)
        line = title(found)
        if outcome.values is not None:
            line += f": {self.figures(outcome.values)}{', the best so far' if best and self.total > 1 else ''}"
        else:
            states = count_states([found])
            line += ": " + ", ".join(f"{states[state]} {state}" for state in STYLES if state in states)
        self.say(line)

    def figures(self, values: Sequence[float]) -> str:
        """Write the values of the objective with their names."""
        pairs = zip(self.objective.metrics, values, strict=True)
        return ", ".join(f"{self.objective.aggregate} {metric} {format_number(value)}" for metric, value in pairs)

    def say(self, line: str) -> None:
        """Print a line where there is no live tree."""
        if self._live is None:
            self.announce(line)

    def announce(self, line: str) -> None:
        """Print a line, above the live tree if there is one."""
        self.console.print(line)

    def fraction_done(self, trial: Trial) -> float:
        """Return the share of its frames that the slowest Session of a Trial has done, from 0 to 1."""
        return self.trials[trial.number].fraction_done

    def update(self) -> None:
        """Read the status of what runs, and show it; of many less often, to take a fifth of the time at most."""
        begun = monotonic()
        if begun < self._next_look:
            return
        for trial in self.trials.values():
            if not trial.ended:
                trial.refresh()
        now = monotonic()
        self._next_look = now + 4 * (now - begun)
        if self._live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._live.update(self.render(), refresh=True)
        elif not self._live and now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self.console.print(self.header().plain)

    def header(self) -> Text:
        """Return a line on the whole sweep."""
        trials = list(self.trials.values())
        counts = count_states(trials)
        planned = self.total * self.seeds
        parts = [f"{counts.get('completed', 0)} of {planned} Sessions completed"]
        parts += [
            f"{counts[state]} {state}" for state in ("running", "failed", "pruned", "interrupted") if state in counts
        ]
        running = [session for trial in trials for session in trial.sessions if session.state == "running"]
        speed = sum(session.status["frames_per_second"] or 0.0 for session in running)
        ended = sum(session.state in ("failed", "pruned") for trial in trials for session in trial.sessions)
        going = [s for trial in trials for s in trial.sessions if s.state not in ("failed", "pruned")]
        done = sum(session.fraction_done for session in going)
        if speed:
            left = max(planned - ended - done, 0.0) * self.frames / speed
            parts += [f"{speed:,.0f} frames/s", f"{format_duration(left)} left"]
        return Text(f"{self.name}: {', '.join(parts)}", style="bold")

    def render(self) -> RenderableType:
        """Draw the tree: what runs in full, of the rest as much as the terminal has room for."""
        trials = sorted(
            self.trials.values(), key=lambda trial: (trial.ended, (trial.number or 0) * (-1 if trial.ended else 1))
        )
        room = max(self.console.height - 6, 5)
        root = Branches(self.header(), guide_style="dim")
        for shown_trials, trial in enumerate(trials):
            lines = 1 if trial.ended else 1 + len(trial.sessions)
            if lines > room:
                root.add(Text(f"and {len(trials) - shown_trials} more Trials", style="dim"))
                break
            room -= lines
            add_trial(root, trial, sessions=not trial.ended)
        parts: list[RenderableType] = [root]
        if self.best and self.total > 1:
            trial, values = self.best
            parts.append(
                Text(f"best so far: {title(trial)}: {self.figures(values)}", style="green", overflow="ellipsis")
            )
        return Group(*parts)

    def _rank(self, trial: TrialProgress, outcome: Outcome) -> bool:
        """Take in the values of a Trial, and say whether it is the best so far by the first metric."""
        if outcome.state != "completed" or outcome.values is None:
            return False
        sign = 1.0 if self.objective.directions[0] == "maximize" else -1.0
        better = self.best is None or sign * outcome.values[0] > sign * self.best[1][0]
        if better:
            self.best = trial, outcome.values
        return better

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


def add_trial(root: Branches, trial: TrialProgress, sessions: bool = True) -> None:
    """Add a Trial to a drawing, with a line for each of its Sessions if asked to."""
    branch = root.add(line(title(trial), trial.state, summary(trial)))
    for session in trial.sessions if sessions else ():
        name = f"seed {session.seed}" if session.seed is not None else "Session"
        branch.add(line(name, session.state, progress(session)))


def title(trial: TrialProgress) -> str:
    """Return a Trial's name and hyperparameters."""
    values = ", ".join(f"{key}={value_of(value)}" for key, value in trial.hyperparameters.items())
    name = trial.directory.path.name if trial.number is not None else "Trial"
    return f"{name} {values}".strip()


def value_of(value: Any) -> str:
    """Write a hyperparameter's value, a number with at most four digits."""
    if not isinstance(value, float):
        return format_value(value)
    text = f"{value:.4g}"
    return f"{text}.0" if text.lstrip("-").isdigit() else text  # 1.0 is not 1


def line(name: str, state: str, rest: str) -> Text:
    """Return a line of a tree."""
    return Text.assemble(name, "  ", (state, STYLES[state]), f"  {rest}" if rest else "")


def summary(trial: TrialProgress) -> str:
    """Say in few words what came of a Trial."""
    done = sum(session.state == "completed" for session in trial.sessions)
    returns = [s.status["return"] for s in trial.sessions if s.state == "completed" and s.status["return"] is not None]
    mean = f"  return {format_number(sum(returns) / len(returns))}" if returns else ""
    return f"{done} of {len(trial.sessions)} Sessions{mean}"


def progress(session: SessionProgress) -> str:
    """Say in few words how a Session stands."""
    status = session.status
    if session.state == "pending":
        return ""
    if session.state in ("failed", "pruned") and status["error"]:
        return str(status["error"]).strip().splitlines()[-1]
    filled = round(BAR * session.fraction_done)
    parts = [f"{'━' * filled}{'╌' * (BAR - filled)} {session.fraction_done:>4.0%}", f"{status['frame']:,} frames"]
    if session.state == "running" and status["frames_per_second"]:
        left = (status["frames"] - status["frame"]) / status["frames_per_second"]
        parts += [f"{status['frames_per_second']:,.0f}/s", f"{format_duration(max(left, 0))} left"]
    parts.append(f"return {format_number(status['return'])}")
    return "  ".join(parts)
