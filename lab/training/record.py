"""The files that a Session writes while it trains."""

from __future__ import annotations

import errno
import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lab.common.text import dump_yaml
from lab.errors import explain_error
from lab.run.directory import RunDir
from lab.run.files import no_follow, write_sealed_json, write_sealed_yaml
from lab.run.guard import move_aside
from lab.run.provenance import Provenance
from lab.run.status import utc_now
from lab.run.table import Table, starts_with
from lab.training.metrics import PROGRESS, Episode, evaluation_columns, metrics_columns
from lab.training.trackers import Trackers

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lab.spec import Spec
    from lab.training.agent import Agent

# Least time between two writes of a status, which wait for the disk: of a few Sessions, and for each of a large stack.
STATUS_SECONDS, STACK_SECONDS = 0.5, 0.05
HEARTBEAT_SECONDS = 5.0  # most time between two writes during training
NO_RETURN = "No episode"  # how a warning begins that there is no return
WINDOW = 100  # episodes in the mean return
ENDLESS_STEPS = 1_000  # steps of each environment after which some episode should have ended
EPISODES = ("frame", "return", "length")  # columns, before those of env.metrics
TABLES = {"timing": ("frame", "seconds", "frames_per_second", "collect", "learn", "evaluate", "write", "compile")}


@dataclass
class Outcome:
    """How a Session ended, from its directory; the Record of a Session in this process has the same attributes."""

    spec: Spec
    dir: RunDir
    state: str  # one of lab.run.schemas.STATES
    frame: int
    error: str | None
    lost: bool  # whether it failed for a reason outside of it, so that it can be resumed
    warnings: list[str]
    stopped: str | None = None  # how its return compares with `stop_at`, if that ended it

    @classmethod
    def read(cls, directory: RunDir) -> Outcome:
        """Read the outcome, or raise LabError if the directory does not hold it."""
        from lab.spec import load

        status = directory.read_status()
        facts = [*(status[key] for key in ("state", "frame", "error", "lost", "warnings")), status.get("stopped")]
        return cls(load(directory.spec), directory, *facts)


class QuietFileHandler(logging.FileHandler):
    """A log file that skips lines that it cannot write; the status holds what matters, too."""

    def __init__(self, directory: RunDir) -> None:
        super().__init__(directory.log, mode="a", encoding="utf-8")  # "w" would erase it when logging reopens it
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def _open(self) -> TextIOWrapper:
        file = open(self.baseFilename, self.mode, encoding=self.encoding, opener=no_follow)  # noqa: SIM115
        assert isinstance(file, TextIOWrapper)
        return file

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Print no traceback."""


def append_to_log(directory: RunDir, level: int, text: str) -> None:
    """Write a line into the log of a Session that has ended."""
    handler = QuietFileHandler(directory)
    handler.emit(logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": text}))
    handler.close()


def describe_failure(error: BaseException, directory: RunDir) -> str:
    """Return the text for status.json: a sentence for a known mistake, otherwise the traceback."""
    text = explain_error(error)
    if isinstance(error, OSError):
        advice = " Free some space, and resume from the last checkpoint." if error.errno == errno.ENOSPC else ""
        text += f"{error.filename or directory.path} cannot be written: {error.strerror}.{advice}"
    return text


class Record:
    """Writes the files of one Session; its state, frame, error, lost and stopped are those of its Outcome."""

    def __init__(
        self,
        spec: Spec,
        directory: RunDir,
        provenance: Provenance,
        metrics: tuple[str, ...],
        frame: int = 0,
        state: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
        stack: int = 1,
    ) -> None:
        """Start the files of a run directory, or continue them.

        Args:
            spec: of the Session.
            directory: of the Session.
            provenance: of this process.
            metrics: names of the algorithm's metrics.
            frame: frames done.
            state: what `sync` returned at that frame, after which rows are removed; None to start.
            notes: warnings for the user.
            stack: Sessions that this process trains in lockstep.
        """
        self.spec, self.dir = spec, directory
        self._status_seconds = max(STATUS_SECONDS, stack * STACK_SECONDS)
        self.best = float("-inf")  # return of the best checkpoint
        self.state = "running"
        self.error: str | None = None
        self.lost = False
        self.stopped: str | None = None
        self.frame = 0
        self.warnings: list[str] = []
        self._window: deque[Episode] = deque(maxlen=WINDOW)
        self._episodes = 0
        self._rows = 0
        self.row_frame = 0  # frame of the last row
        self._status_time = 0.0
        self._speed: float | None = None  # frames per second over the last log interval
        notes = list(notes)
        directory.stop.unlink(missing_ok=True)  # a request that an earlier process did not live to see
        if state is None:
            tables: dict[str, Any] = {}
            replaced = directory.move_results_aside() if directory.holds_results else None
            if replaced:
                if not notes:  # of damaged checkpoints
                    notes.append(
                        "The Session has no checkpoint, as it was stopped before the first one (by a second Ctrl-C or a"
                        " kill), so it starts from the beginning."
                    )
                notes.append(f"What {directory.path} held before is in {replaced.name}.")
            directory.write_status("running", 0, spec.frames)
            write_sealed_yaml(directory.spec, dump_yaml(spec.to_dict()))
        else:
            tables = self._restore(frame, state, notes)
        own: dict[str, Any] = {"init_from": asdict(spec.init_from)} if spec.init_from else {}
        own |= {"extended_from": spec.extended_from, "frames": spec.frames} if spec.extended_from else {}
        self._provenance, changed = provenance.write(directory, None if state is None else frame, notes, own)
        self._log = logging.Logger(f"lab.session.{directory.path}", logging.INFO)  # logging cannot disable it by name
        self._handler = QuietFileHandler(directory)
        self._log.addHandler(self._handler)
        reported = spec.env.metrics
        columns = TABLES | {"episodes": (*EPISODES, *reported), "metrics": metrics_columns(reported, metrics)}
        self._tables = {name: Table(path, columns[name], tables.get(name)) for name, path in directory.tables.items()}
        self._events = None
        if spec.log.tensorboard:
            from lab.training.tensorboard import TensorBoard

            self._events = TensorBoard(spec, directory, None if state is None else self.row_frame + 1)
        self._trackers = Trackers(spec, directory, provenance.facts, state is not None, self.warn)
        self.heartbeat(frame, at_once=True)
        start = "started" if state is None else f"resumed at frame {frame},"
        self.log("%s %s, seed %d: %s", start, spec.name, spec.seed, provenance.facts["command"])
        if spec.init_from and state is None:
            self.log("starts from %s, whose weights have the digest %s", spec.init_from.file, spec.init_from.weights)
        if spec.extended_from:
            plans = ", ".join(f"{frames:,}" for frames in spec.extended_from)
            self.log("extended to %s frames from %s", f"{spec.frames:,}", plans)
        for problem in provenance.code.problems():
            self._log.warning("%s", problem)
        for remark in provenance.code.remarks():
            self.log("%s", remark)
        for note in notes:
            self.warn(note)
        if changed:
            names = ", ".join(changed)
            self._log.warning("the code of %s is not what this Session was started with: see provenance.json", names)

    def _restore(self, frame: int, state: dict[str, Any], notes: list[str]) -> dict[str, Any]:
        """Continue from what `sync` returned; return the states of the tables."""
        self.best, self._episodes = state["best"], state["episodes"]
        self._rows, self.row_frame = state["rows"], state["row_frame"]
        self._window.extend(Episode(*episode) for episode in state["window"])
        stale = NO_RETURN if self.spec.extended_from else "\n"  # an episode may end yet
        self.warnings = [text for text in state.get("warnings", []) if not text.startswith(stale)]
        tables, timing = dict(state["tables"]), self.dir.timing
        if not starts_with(timing, tables["timing"]):
            del tables["timing"]
            replaced = move_aside(self.dir.path, re.compile(re.escape(timing.name)))
            where = f": it is in {replaced.name} now, and" if replaced else " or missing:"
            notes.append(f"{timing} is damaged{where} another one starts at frame {frame:,}.")
        return tables

    def log(self, text: str, *values: object) -> None:
        """Write a line into the log."""
        self._log.info(text, *values)

    def warn(self, text: str) -> None:
        """Write a warning into the log, also after the end, and into the status when it is next written."""
        if text not in self.warnings:
            self.warnings.append(text)
        if self.state == "running":
            self._log.warning(text)
        else:
            append_to_log(self.dir, logging.WARNING, text)

    def warn_without_return(self, time_limit: int | None, steps: int, last: bool) -> list[str]:
        """Warn that no episode has ended: before the end only if none may ever end.

        Args:
            time_limit: steps after which an episode is cut; None without a limit.
            steps: that each environment has taken.
            last: whether the Session is done.

        Returns:
            The warnings that are not shown at the end.
        """
        start = f"{NO_RETURN} of env.id={self.spec.env.id} ended"
        if (time_limit and not last) or any(text.startswith(start) for text in self.warnings):
            return []
        advice = "It has no time limit: set env.max_episode_steps to cut its episodes."
        if time_limit:
            advice = f"Its episodes are cut after {time_limit:,} steps: train for more frames."
        text = f"{start} within {steps:,} steps, so there is no return. {advice}"
        self.warn(text)
        return [] if last else [text]

    def sync(self) -> dict[str, Any]:
        """Write all rows to the disk, and return plain data to continue from."""
        if self._events:
            self._events.flush()
        return {
            "best": self.best,
            "episodes": self._episodes,
            "rows": self._rows,
            "row_frame": self.row_frame,
            "warnings": list(self.warnings),
            "window": [tuple(episode) for episode in self._window],
            "tables": {name: table.sync() for name, table in self._tables.items()},
        }

    def heartbeat(self, frame: int, at_once: bool = False) -> None:
        """Write the status, if it was not written for a while."""
        if at_once or perf_counter() - self._status_time >= HEARTBEAT_SECONDS:
            self.dir.write_status(
                "running", frame, self.spec.frames, None, self.mean_return, self._speed, warnings=self.warnings
            )
            self._status_time = perf_counter()

    def add_episodes(self, episodes: list[Episode]) -> None:
        """Write finished episodes."""
        self._window.extend(episodes)
        self._episodes += len(episodes)
        self._tables["episodes"].add(
            *(dict(zip((*EPISODES, *self.spec.env.metrics), (*e[:3], *e.metrics), strict=True)) for e in episodes)
        )

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last 100 episodes, or of all if there were fewer; None without any."""
        return sum(e.episode_return for e in self._window) / len(self._window) if self._window else None

    def find_success(self) -> str | None:
        """Return how the mean return of the last 100 episodes compares with `stop_at`; None if it is below."""
        goal, value = self.spec.stop_at, self.mean_return
        reached = goal is not None and value is not None and len(self._window) == WINDOW and value >= goal
        return f"return {value:.6g} >= stop_at={goal:.6g}" if reached else None

    def add_row(
        self,
        frame: int,
        optimizer_steps: int,
        metrics: Mapping[str, float | None],
        evaluation: np.ndarray | None,
        timing: Mapping[str, float],
    ) -> None:
        """Write a row of metrics, of what Evaluation returned, and of seconds by phase."""
        lengths = [e.length for e in self._window]
        mean_length = sum(lengths) / len(lengths) if lengths else None
        progress = (frame, optimizer_steps, self._episodes, self.mean_return, mean_length)
        columns = zip(*(e.metrics for e in self._window), strict=True)
        own = {name: sum(v) / len(v) for name, v in zip(self.spec.env.metrics, columns, strict=False)}
        row: dict[str, Any] = {**dict(zip(PROGRESS, progress, strict=True)), **own, **metrics}
        evaluated = evaluation_columns(self.spec.env.metrics)
        if evaluation is not None:
            finished = (values[values == values] for values in evaluation)  # a metric of a cut episode is NaN
            row |= zip(evaluated, (float(each.mean()) if len(each) else None for each in finished), strict=True)
        self._rows += 1
        self.row_frame = frame
        self._tables["metrics"].add(row)
        self._tables["timing"].add({"frame": frame, **timing})
        self._speed = timing["frames_per_second"]
        for table in self._tables.values():
            table.flush()
        if perf_counter() - self._status_time >= self._status_seconds:
            self.heartbeat(frame, at_once=True)
        if self._events:
            self._events.add_row(row, timing["frames_per_second"])
        self._trackers.add_row(row, timing["frames_per_second"])
        names = [name for name in ("return", *own, "entropy", *evaluated) if row.get(name) is not None]
        values = " ".join(f"{name}={row[name]:.4g}" for name in names)
        self.log("frame %d of %d %s", frame, self.spec.frames, values)

    def add_histograms(self, agent: Agent, index: int, actions: Tensor | None) -> None:
        """Write histograms if they are due with the last row; the arguments are those of TensorBoard."""
        every = self.spec.log.histograms
        if self._events and every > 0 and (self._rows - 1) % every == 0:
            self._events.add_histograms(agent, index, actions, self.row_frame)

    def finish(
        self, state: str, frame: int, error: str | None = None, lost: bool = False, stopped: str | None = None
    ) -> None:
        """Close every file and write how the Session ended, as far as the disk allows.

        If a file cannot be closed, the Session failed, whatever its state was.
        """
        if stopped:
            self.log("stopped early: %s", stopped)
        level = logging.ERROR if state == "failed" else logging.INFO
        self._log.log(level, f"{state} at frame {frame}" + (f"\n{error}" if error else ""))
        closers = [table.close for table in self._tables.values()]
        for close in (*closers, *([self._events.close] if self._events else []), self._handler.close):
            try:
                close()
            except OSError as problem:
                lost = lost or state != "failed"
                state, error = "failed", error or f"{self.dir.path} cannot be written: {problem.strerror}."
        self._log.removeHandler(self._handler)
        self.state, self.error, self.frame, self.lost, self.stopped = state, error, frame, lost, stopped
        self._provenance["end"] = utc_now()
        with suppress(OSError):
            write_sealed_json(self.dir.provenance, self._provenance)
        with suppress(OSError):
            sums = {name: table.state for name, table in self._tables.items()}
            self.dir.write_status(
                state, frame, self.spec.frames, error, self.mean_return, lost=lost, tables=sums,
                warnings=self.warnings, stopped=stopped,
            )  # fmt: skip
        self._trackers.finish(state)
        self.dir.release()
