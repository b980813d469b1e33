"""What a Session writes into its run directory while it trains."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lab.common.text import dump_yaml, flatten, format_value
from lab.errors import LabError
from lab.run.code.packages import changed_since
from lab.run.directory import RunDir
from lab.run.files import no_follow, read_json, write_atomically, write_sealed_json, write_sealed_yaml
from lab.run.guard import move_aside
from lab.run.provenance import Provenance
from lab.run.schemas import PROVENANCE
from lab.run.status import utc_now
from lab.run.table import Table, starts_with
from lab.train.episode import Episode

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lab.spec import Spec
    from lab.train.agent import Agent

STATUS_SECONDS = 0.5  # at least, between two writes of the status of a running Session: each waits for the disk
BEAT_SECONDS = 5.0  # at most, between two writes while steps are taken, so that others see that they are
WINDOW = 100  # episodes in what is called the return
PROGRESS = ("frame", "optimizer_steps", "episodes", "return", "length")
EVALUATION = ("eval_return", "eval_length")
TIMING = ("frame", "seconds", "frames_per_second", "collect", "learn", "evaluate", "write")


class QuietFileHandler(logging.FileHandler):
    """A log file that does without a line it cannot write; what matters is in the status as well."""

    def _open(self) -> TextIOWrapper:
        """Open it, but not through a link."""
        file = open(self.baseFilename, self.mode, encoding=self.encoding, opener=no_follow)  # noqa: SIM115
        assert isinstance(file, TextIOWrapper)
        return file

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Do nothing, where logging would print a traceback."""


@dataclass
class Ended:
    """How a Session ended, as its directory says; of a Session in this process, the record says the same.

    Attributes:
        spec: of the Session.
        dir: of the Session.
        state: one of lab.run.directory.STATES.
        frame: the frame at which it ended.
        error: why it failed, if it did.
        lost: whether it failed through no fault of its own.
    """

    spec: Spec
    dir: RunDir
    state: str
    frame: int
    error: str | None
    lost: bool

    @classmethod
    def read(cls, directory: RunDir) -> Ended:
        """Read it from the directory.

        Raises:
            LabError: the directory does not say.
        """
        from lab.spec import load

        status = directory.read_status()
        return cls(load(directory.spec), directory, status["state"], status["frame"], status["error"], status["lost"])


def write_late(directory: RunDir, level: int, text: str) -> None:
    """Write a line into the log of a Session that has ended."""
    handler = _handler(directory)
    handler.emit(logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": text}))
    handler.close()


def _handler(directory: RunDir) -> logging.Handler:
    # Opened anew and appended to where something closed it, as logging.config does with all handlers.
    handler = QuietFileHandler(directory.log, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


class Record:
    """The files of one Session, and the figures that it shows while it trains.

    Attributes:
        best: the highest return at which a checkpoint was called the best so far.
        state: how the Session stands.
        error: why it failed, if it did.
        lost: whether it failed through no fault of its own.
        frame: the frame at which it ended.
        warnings: what a user should know of it, each once.
    """

    def __init__(
        self,
        spec: Spec,
        directory: RunDir,
        provenance: Provenance,
        metrics: tuple[str, ...],
        frame: int = 0,
        state: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Start the files of a run directory, or go on with them.

        Args:
            spec: of the Session.
            directory: of the Session.
            provenance: of this process.
            metrics: names of the algorithm's own metrics.
            frame: frames done.
            state: what `sync` returned at that frame; null to start. Rows that were written later are cut off.
            notes: what a user should know of how it goes on.
        """
        self.spec, self.dir = spec, directory
        self.best = float("-inf")
        self.state = "running"
        self.error: str | None = None
        self.lost = False
        self.frame = 0
        self.warnings: list[str] = []
        self._window: deque[Episode] = deque(maxlen=WINDOW)
        self._episodes = 0
        self._rows = 0
        self._row_frame = 0  # of the last row
        self._status_time = 0.0
        self._speed: float | None = None  # frames per second over the last log interval
        notes = list(notes)
        tables: dict[str, Any] = {}
        if state is None:
            replaced = directory.move_results_aside() if directory.holds_results else None
            if replaced:
                notes.append(f"What {directory.path} held before is in {replaced.name}.")
            directory.write_status("running", 0, spec.frames)
            write_sealed_yaml(directory.spec, dump_yaml(spec.to_dict()))
        else:
            directory.stop.unlink(missing_ok=True)
            self.best, self._episodes = state["best"], state["episodes"]
            self._rows, self._row_frame = state["rows"], state["row_frame"]
            self._window.extend(map(Episode._make, state["window"]))
            self.warnings = list(state.get("warnings", []))
            tables = dict(state["tables"])
            if not starts_with(directory.timing, tables["timing"]):
                del tables["timing"]
                replaced = move_aside(directory.path, re.compile(re.escape(directory.timing.name)))
                where = f": it is in {replaced.name} now, and" if replaced else " or missing:"
                notes.append(f"{directory.timing} is damaged{where} another one begins at frame {frame:,}.")
        self._facts, changed = _write_provenance(directory, provenance, None if state is None else frame, notes)
        self._log = logging.Logger(f"lab.session.{directory.path}", logging.INFO)  # known to nobody who disables others
        self._handler = _handler(directory)
        self._log.addHandler(self._handler)
        columns = {
            "episodes": ("frame", "return", "length"),
            "metrics": (*PROGRESS, *metrics, *EVALUATION),
            "timing": TIMING,
        }
        self._tables = {name: Table(path, columns[name], tables.get(name)) for name, path in directory.tables.items()}
        self._events: Any = None
        if spec.log.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier process wrote of later rows is not shown any more.
            later = None if state is None else self._row_frame + 1
            self._events = SummaryWriter(str(directory.path), purge_step=later)
        self.beat(frame, at_once=True)
        begun = "started" if state is None else f"resumed at frame {frame},"
        self._log.info("%s %s, seed %d: %s", begun, spec.name, spec.seed, provenance.facts["command"])
        for problem in provenance.code.problems():
            self._log.warning("%s", problem)
        for remark in provenance.code.remarks():
            self._log.info("%s", remark)
        for note in notes:
            self.warn(note)
        if changed:
            names = ", ".join(changed)
            self._log.warning("the code of %s is not what this Session was begun with: see provenance.json", names)

    def note(self, text: str) -> None:
        """Write a line into the log."""
        self._log.info(text)

    def warn(self, text: str) -> None:
        """Write a warning into the log, also after the end, and from its next writing on into the status."""
        if text not in self.warnings:
            self.warnings.append(text)
        if self.state == "running":
            self._log.warning(text)
        else:
            write_late(self.dir, logging.WARNING, text)

    def sync(self) -> dict[str, Any]:
        """Put on the disk what the files of this Session hold by now, and return what goes on from there."""
        if self._events:
            self._events.flush()
        return {
            "best": self.best,
            "episodes": self._episodes,
            "rows": self._rows,
            "row_frame": self._row_frame,
            "warnings": list(self.warnings),
            "window": [tuple(episode) for episode in self._window],
            "tables": {name: table.sync() for name, table in self._tables.items()},
        }

    def beat(self, frame: int, at_once: bool = False) -> None:
        """Say in the status that the Session goes on, if that was not said for a while."""
        if at_once or perf_counter() - self._status_time >= BEAT_SECONDS:
            self.dir.write_status(
                "running", frame, self.spec.frames, None, self.mean_return, self._speed, warnings=self.warnings
            )
            self._status_time = perf_counter()

    def add_episodes(self, episodes: list[Episode]) -> None:
        """Write finished episodes."""
        self._window.extend(episodes)
        self._episodes += len(episodes)
        self._tables["episodes"].add(
            *({"frame": e.frame, "return": e.episode_return, "length": e.length} for e in episodes)
        )

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last 100 episodes, or of as many as there were."""
        return sum(e.episode_return for e in self._window) / len(self._window) if self._window else None

    def add_row(
        self,
        frame: int,
        optimizer_steps: int,
        metrics: Mapping[str, float | None],
        evaluation: np.ndarray | None,
        timing: Mapping[str, float],
    ) -> None:
        """Write a row of metrics and of timings.

        Args:
            frame: frames done.
            optimizer_steps: steps of the optimizer done.
            metrics: the algorithm's own.
            evaluation: returns and lengths [2, episodes] of an evaluation at this frame, if there was one.
            timing: seconds since the last row, by phase.
        """
        lengths = [e.length for e in self._window]
        row: dict[str, Any] = {
            "frame": frame,
            "optimizer_steps": optimizer_steps,
            "episodes": self._episodes,
            "return": self.mean_return,
            "length": sum(lengths) / len(lengths) if lengths else None,
            **metrics,
        }
        if evaluation is not None:
            row |= {"eval_return": float(evaluation[0].mean()), "eval_length": float(evaluation[1].mean())}
        self._rows += 1
        self._row_frame = frame
        self._tables["metrics"].add(row)
        self._tables["timing"].add({"frame": frame, **timing})
        self._speed = timing["frames_per_second"]
        for table in self._tables.values():
            table.flush()
        if perf_counter() - self._status_time >= STATUS_SECONDS:
            self.beat(frame, at_once=True)
        if self._events:
            for name, value in row.items():
                if value is not None and name != "frame":
                    self._events.add_scalar(_tag(name), value, frame)
            self._events.add_scalar("timing/frames_per_second", timing["frames_per_second"], frame)
            if self.spec.mode == "dev":
                self._events.flush()
        shown = {name: row[name] for name in ("return", "entropy", *EVALUATION) if row.get(name) is not None}
        words = " ".join(f"{name}={value:.4g}" for name, value in shown.items())
        self._log.info("frame %d of %d %s", frame, self.spec.frames, words)

    @property
    def wants_histograms(self) -> bool:
        """Whether the row just written is one that histograms go with."""
        every = self.spec.log.histograms
        return self._events is not None and every > 0 and (self._rows - 1) % every == 0

    def add_histograms(self, agent: Agent, index: int, actions: np.ndarray | None, frame: int) -> None:
        """Write the distributions of weights, biases and, where there was a horizon, its gradients and actions."""
        for name, value in agent.algorithm.weights(index).items():
            kind = "bias" if name.endswith("bias") else "weight"
            self._events.add_histogram(f"{kind}/{name}", value, frame)
        if actions is None:
            return
        for name, value in agent.algorithm.gradients(index).items():
            self._events.add_histogram(f"gradient/{name}", value, frame)
        columns = actions.reshape(-1, 1 if actions.ndim == 2 else actions.shape[-1])
        for column in range(columns.shape[1]):
            self._events.add_histogram(f"action/{column}", columns[:, column], frame)

    def finish(self, state: str, frame: int, error: str | None = None, lost: bool = False) -> None:
        """Close every file and say how the Session ended, as far as the disk allows.

        A file that cannot be closed makes it a failed Session, whatever the state it was in.

        Args:
            state: one of STATES.
            frame: frames done.
            error: why it failed, or was asked to stop.
            lost: whether it failed through no fault of its own, so that it may go on from its checkpoint.
        """
        words = f"{state} at frame {frame}" + (f"\n{error}" if error else "")
        self._log.log(logging.ERROR if state == "failed" else logging.INFO, words)
        for close in (*(table.close for table in self._tables.values()), self._close_events, self._handler.close):
            try:
                close()
            except OSError as problem:
                lost = lost or state != "failed"
                state, error = "failed", error or f"{self.dir.path} cannot be written: {problem.strerror}."
        self._log.removeHandler(self._handler)
        self.state, self.error, self.frame, self.lost = state, error, frame, lost
        self._facts["end"] = utc_now()
        with suppress(OSError):
            write_sealed_json(self.dir.provenance, self._facts)
        with suppress(OSError):
            sums = {name: table.state for name, table in self._tables.items()}
            self.dir.write_status(
                state, frame, self.spec.frames, error, self.mean_return, lost=lost, tables=sums, warnings=self.warnings
            )
        self.dir.release()

    def _close_events(self) -> None:
        if self._events:
            self._write_hyperparameters()
            self._events.close()

    def _write_hyperparameters(self) -> None:
        from torch.utils.tensorboard.summary import hparams

        flat = {
            key: value if isinstance(value, (bool, int, float, str)) else format_value(value)
            for key, value in flatten(self.spec.to_dict()).items()
        }
        # Written into this Session's own events; SummaryWriter.add_hparams would make a directory of its own for them.
        # What the first summary says, the columns of the table, is left to the Experiment.
        for summary in hparams(flat, {_tag("return"): None, _tag("eval_return"): None})[1:]:
            self._events.file_writer.add_summary(summary)


class Averages:
    """Averages of metrics [S] over the calls of `learn` in a log interval that took a step and returned them."""

    def __init__(self) -> None:
        # By the names of metrics that came together, [M + 1, S]: their sums, and how many calls they are of.
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}

    def state(self, index: int) -> list[tuple[tuple[str, ...], torch.Tensor]]:
        """Return one Session's sums and counts by metrics, for a checkpoint."""
        return [(names, sums[:, index].cpu().clone()) for names, sums in self._sums.items()]

    def restore(self, states: list[list[tuple[tuple[str, ...], torch.Tensor]]], device: torch.device) -> None:
        """Go on from what `state` returned for each Session of a stack."""
        import torch

        for parts in zip(*states, strict=True):
            self._sums[parts[0][0]] = torch.stack([sums for _, sums in parts], 1).to(device)

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        """Take in the metrics of one call; `steps` says which Sessions took any."""
        import torch

        names = tuple(name for name in metrics if name != "steps")
        if not names:
            return
        stepped = metrics["steps"] > 0
        rows = torch.stack([*(metrics[name] for name in names), torch.ones_like(metrics["steps"])])
        rows = rows.where(stepped, 0.0)
        self._sums[names] = self._sums[names] + rows if names in self._sums else rows

    def take(self) -> dict[str, list[float | None]]:
        """Return each metric's average by Session, null for one that took no step, and start anew."""
        sums: dict[str, torch.Tensor] = {}
        counts: dict[str, torch.Tensor] = {}
        for names, rows in self._sums.items():
            for name, row in zip(names, rows[:-1].unbind(0), strict=True):
                sums[name], counts[name] = sums.get(name, 0.0) + row, counts.get(name, 0.0) + rows[-1]
        self._sums = {}
        return {
            name: [value / count if count else None for value, count in zip(total.tolist(), number, strict=True)]
            for name, total in sums.items()
            if (number := counts[name].tolist())
        }


def _write_provenance(
    directory: RunDir, provenance: Provenance, frame: int | None, notes: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Write where a Session came from, or add that another process goes on with it at a frame.

    Returns:
        What provenance.json holds, and the packages whose code is not what the Session was begun with.
    """
    facts, changed, stem = provenance.facts, [], "uncommitted"
    if frame is None:
        known = dict(facts)
    else:
        known = _read_begun(directory, facts, frame, notes)
        changed = changed_since(directory, facts["code"])
        resumed = known.setdefault("resumed", [])
        part = ("restore", "start", "command", "user", "host", "device", "stack", "git", "repositories", "code")
        resumed.append({"frame": frame, **{name: facts[name] for name in part}})
        stem = f"uncommitted-{len(resumed)}"
    write_sealed_json(directory.provenance, known)
    if frame is None or changed:
        for name, patch in provenance.code.patches(stem).items():
            write_atomically(directory.path / name, patch, private=True)
    return known, changed


def _read_begun(directory: RunDir, facts: dict[str, Any], frame: int, notes: list[str]) -> dict[str, Any]:
    """Return where a Session came from; where that is damaged, what is known from here on, and say so."""
    try:
        return read_json(directory.provenance, PROVENANCE)
    except LabError as error:
        move_aside(directory.path, re.compile(re.escape(directory.provenance.name)))
        notes.append(f"{error} What the Session was begun with is not known any more.")
        note = f"provenance.json was damaged when the Session was resumed at frame {frame:,}"
        unknown = {**facts["git"], "sha": None, "branch": None, "uncommitted": None, "left_out": {}, "note": note}
        return {**facts, "git": unknown, "repositories": [], "code": {}}


def _tag(name: str) -> str:
    if name in EVALUATION:
        return f"evaluation/{name.removeprefix('eval_')}"
    group = "progress" if name in PROGRESS else "learning"
    return f"{group}/{name}"
