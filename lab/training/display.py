"""Terminal output of training: a live line for each Session, and the results at the end."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Table

from lab.common.imports import has_imported_local_code
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import format_duration, format_number, format_value, plural
from lab.errors import LabError
from lab.run.directory import RunDir, best_session
from lab.run.files import read_json, read_yaml
from lab.run.schemas import PROVENANCE, SESSION, SPEC
from lab.run.trackers import describe_tracked
from lab.spec import Spec

if TYPE_CHECKING:
    from lab.training.record import Outcome, Record

PLAIN_STEP = 0.1  # fraction of a Session between two plain lines, where the output is not a terminal
REFRESH = 0.25  # seconds between redraws of the live lines
MAX_STOPPED = 4  # Sessions that `stop_at` ended that are listed
WIDE = 110  # columns of a terminal that shows a progress bar too


class Display:
    """Shows the progress of a stack: live lines on a terminal, plain lines elsewhere."""

    def __init__(self, specs: list[Spec], show: bool = True, frame: int = 0) -> None:
        """Start to show Sessions from a frame on."""
        self.specs, self._first_frame = specs, frame
        self.console = Terminal(quiet=not show)
        self._live: Progress | None = None
        if self.console.is_terminal and show:
            columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
            if self.console.width >= WIDE:
                columns.append(BarColumn(bar_width=20))
            columns.append(TextColumn("{task.percentage:>3.0f}% {task.fields[progress]}", markup=False))
            self._live = Progress(*columns, console=self.console, auto_refresh=False)
        for line in dict.fromkeys(line for spec in specs for line in describe_special_settings(spec.to_dict())):
            self.console.print(line, soft_wrap=True)
        self._tasks = []
        self._start = self._drawn = perf_counter()
        self._printed = [frame / spec.frames for spec in specs]
        for spec in specs:
            if self._live:
                name = f"{spec.name} seed {spec.seed}"
                self._tasks.append(self._live.add_task(name, total=spec.frames, progress=""))
            else:
                resumed = f", from frame {frame:,} on" if frame else ""
                self.console.print(f"{spec.name} seed {spec.seed}: {plural(spec.frames, 'frame')}{resumed}")

    def print_warnings(self, warnings: Iterable[str]) -> None:
        """Print warnings."""
        for text in warnings:
            self.console.print(f"Warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def update(self, index: int, frame: int, mean_return: float | None, frames_per_second: float) -> None:
        """Show a Session's progress."""
        spec, now = self.specs[index], perf_counter()
        elapsed = now - self._start
        left = format_duration(elapsed * max(spec.frames - frame, 0) / max(frame - self._first_frame, 1))
        mean = format_number(mean_return)
        progress = f"{frame:>9,} frames {frames_per_second:>7,.0f}/s  return {mean:>6}  {left} left"
        fraction_done = frame / spec.frames
        if self._live:
            self._live.update(self._tasks[index], completed=min(frame, spec.frames), progress=progress)
            if fraction_done >= 1 or (index == len(self.specs) - 1 and now - self._drawn >= REFRESH):
                self._live.refresh()
                self._drawn = now
        elif fraction_done >= 1 or fraction_done - self._printed[index] >= PLAIN_STEP:
            self._printed[index] = fraction_done
            line = f"{spec.name} seed {spec.seed} {min(fraction_done, 1):>4.0%} {progress}"
            self.console.print(line, soft_wrap=True)

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


def describe_special_settings(spec: Mapping[str, Any]) -> list[str]:
    """Return lines on what else than frames, algorithm and environment decides a Session, if it is not the default."""
    lines = []
    if spec.get("stop_at") is not None:
        goal = f"{spec['stop_at']:g}"
        lines.append(f"stop_at={goal}: training ends once the mean return of the last 100 episodes has reached it")
    if parent := spec.get("init_from"):
        file = Path(parent["file"])
        shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
        lines.append(f"init_from={shown}: training starts with these weights")
    if plans := spec.get("extended_from"):
        before = " and ".join(f"{frames:,}" for frames in plans)
        lines.append(f"extended_from={format_value(plans)}: it was planned for {before} frames, and goes on from there")
    return lines


def describe_stopped(sessions: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return lines on Sessions that `stop_at` ended before all frames, from their names and the content of status."""
    stopped = [(name, status) for name, status in sessions if status.get("stopped")]
    lines = [
        f"{name} stopped at frame {status['frame']:,} of {status['frames']:,}: {status['stopped']}"
        for name, status in stopped[:MAX_STOPPED]
    ]
    more = len(stopped) - len(lines)
    return [*lines, f"and {plural(more, 'more Session')} stopped so"] if more else lines


def print_results(records: Sequence[Record | Outcome]) -> None:
    """Print how each Session ended, its metrics, its directory, and what to type next."""
    console = Terminal(soft_wrap=True, width=UNCUT)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Session", no_wrap=True)
    own = list(dict.fromkeys(name for record in records for name in record.spec.env.metrics))
    for column in ("state", "frames", "return", "best", "evaluation", "strength", "frames to solve", *own):
        table.add_column(column, justify="right", no_wrap=True)
    for record in records:
        metrics = read_json(record.dir.results, SESSION) if record.dir.results.exists() else {}
        table.add_row(
            f"{record.spec.name} seed {record.spec.seed}",
            record.state,
            f"{record.frame:,}",
            *(format_number(metrics.get(key)) for key in ("return", "best", "eval_return", "strength")),
            f"{metrics['frames_to_solve']:,}" if metrics.get("frames_to_solve") else "-",
            *(format_number(metrics.get(key)) for key in own),
        )
    console.print()
    console.print(table)
    names = [(f"{record.spec.name} seed {record.spec.seed}", record.dir.find_status() or {}) for record in records]
    for line in describe_stopped(names):
        console.print(f"\n{line}")
    for record in records:
        if record.state == "failed":
            console.print(f"\nFailed: {(record.error or '').strip().splitlines()[-1]}", style="red")
            console.print(f"More is in {record.dir.log}")
    for text in dict.fromkeys(text for record in records for text in record.warnings):
        console.print(f"\nWarning: {text}", style="yellow")
    commands = print_checks(console, [record.dir for record in records])
    first = records[0].dir.path
    root = first if len(records) == 1 else first.parent
    commands |= print_tracked(console, [record.dir for record in records])
    console.print(f"\nEverything is in {root}\n")
    if any(record.state == "interrupted" or record.lost for record in records):
        commands[f"python -m lab resume {shlex.quote(str(root))}"] = "resume what was interrupted"
    best = best_session(record.dir for record in records)
    if best:
        play = f"python -m lab enjoy {shlex.quote(str(best.path))}" + " code=here" * has_imported_local_code()
        commands[play] = "play the best agent; video=DIR films it, render=human shows it"
    if records[0].spec.log.tensorboard:
        commands[f"tensorboard --logdir {shlex.quote(str(root))}"] = "curves, histograms, hyperparameters"
    print_next_steps(console, commands)


def print_tracked(console: Terminal, sessions: Sequence[RunDir]) -> dict[str, str]:
    """Print where trackers have Sessions, and return the command that sends what lies here."""
    lines, commands = describe_tracked(sessions)
    for line in lines:
        console.print(f"\n{line}")
    return commands


def print_checks(console: Terminal, sessions: Sequence[RunDir]) -> dict[str, str]:
    """Print what the checks of mode=dev found in Sessions, and return the command that trains them for all frames.

    Nothing is printed about Sessions with another mode.
    """
    sessions = [one for one in sessions if _is_dev(one)]
    if not sessions:
        return {}
    completed = [one for one in sessions if one.read_status()["state"] == "completed" and one.results.exists()]
    steps = sum(int(read_json(one.results, SESSION).get("optimizer_steps") or 0) for one in completed)
    if len(completed) < len(sessions):
        count = f"{len(completed)} of {plural(len(sessions), 'Session')}"
        console.print(f"\nmode=dev: {count} passed all checks to the end.", style="red")
        return {}
    if not steps:
        console.print("\nmode=dev: no learning step was made, so nothing was checked: set more frames.", style="yellow")
        return {}
    what = "each moved all parameters, with finite gradients"
    console.print(f"\nmode=dev: all checks passed in {plural(steps, 'learning step')}: {what}.", style="green")
    try:
        command = read_json(sessions[0].provenance, PROVENANCE)["command"]
    except LabError:
        return {}
    _, lab, arguments = command.partition(" -m lab ")
    if not lab or "mode=dev" not in shlex.split(arguments):  # as of `resume`
        return {}
    dropped = ("mode=dev", "hydra.run.dir=", "hydra.sweep.dir=")
    without = shlex.join(word for word in shlex.split(arguments) if not word.startswith(dropped))
    return {f"python -m lab {without}".strip(): "train: the same without mode=dev"}


def _is_dev(session: RunDir) -> bool:
    try:
        return bool(session.spec.exists() and read_yaml(session.spec, SPEC)["mode"] == "dev")
    except LabError:
        return False


def print_next_steps(console: Terminal, commands: Mapping[str, str]) -> None:
    """Print commands to type next, each below its purpose."""
    if not commands:
        return
    console.print("Next:")
    for command, purpose in commands.items():
        console.print(f"  # {purpose}", style="dim", hang=4)
        console.print(f"  {command}", no_wrap=True)
