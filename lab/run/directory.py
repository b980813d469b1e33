"""Run directories, of Sessions, Trials and Experiments: every path and file format in them, in one place."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.errors import LabError, say_once
from lab.run.files import Document, no_follow, plain, read_json, sealed_json, write_atomically, write_sealed_json
from lab.run.guard import (
    OF_SESSION,
    OF_SWEEP,
    break_hard_links,
    move_aside,
    refuse_foreign,
    refuse_links,
    remove_leftovers,
)
from lab.run.lock import LOCK_SECONDS, Lock
from lab.run.recovery import RECOVERED, recover_status
from lab.run.schemas import POINT, STATES, STATUS, STOP, SWEEP

ENDED = ("completed", "failed", "pruned")  # states that a Session is not taken out of unless asked to
FIGURES = (
    "return", "best", "eval_return", "eval_best", "length", "strength", "max_strength", "final_strength",
    "sample_efficiency", "training_efficiency", "stability", "frames_to_solve", "frames", "optimizer_steps", "episodes",
)  # of session.json  # fmt: skip
LESS_IS_BETTER = ("frames_to_solve",)  # of these figures; of all others, more is
NEEDED = ("state", "frame", "frames", "error", "updated", "pid")  # keys without which a status is damaged
STALE_SECONDS = 300.0  # without a word after which a Session of another host counts as gone


class RunDir:
    """The directory that a Session owns. Nobody else writes there, and everything known about the Session is there."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.spec = self.path / "spec.yaml"
        self.provenance = self.path / "provenance.json"
        self.patch = self.path / "uncommitted.patch"
        self.status = self.path / "status.json"
        self.log = self.path / "session.log"
        self.episodes = self.path / "episodes.csv"
        self.metrics = self.path / "metrics.csv"
        self.timing = self.path / "timing.csv"
        self.results = self.path / "session.json"
        self.plot = self.path / "session.png"
        self.hydra = self.path / ".hydra"
        self.stop = self.path / "stop.json"
        self.lock = Lock(self.path)
        self._before: bytes | None = None  # the status at the time of `claim`

    @property
    def tables(self) -> dict[str, Path]:
        """The tables that grow while a Session trains, by name."""
        return {"episodes": self.episodes, "metrics": self.metrics, "timing": self.timing}

    @property
    def replay(self) -> Path:
        """The folder of what a replay memory holds, in parts that checkpoints know of."""
        return self.path / "checkpoint" / "replay"

    def checkpoint(self, which: str) -> Path:
        """Return the path of a checkpoint: `last`, the `previous` one, or `best` by evaluation."""
        return self.path / "checkpoint" / f"{which}.pt"

    def refuse_links(self) -> None:
        """Raise LabError if anything that a Session writes to is a symbolic link; the directory itself may be."""
        refuse_links(self.path, OF_SESSION, ("checkpoint", "checkpoint/replay", self.hydra.name))

    def claim(self, patience: float = LOCK_SECONDS) -> None:
        """Make the directory this Session's own, until `release` or the end of the process.

        What killed writers left half written is removed, and a status that is damaged is made again.

        Args:
            patience: seconds to wait if another process has it.

        Raises:
            LabError: it holds a Session that ended or that another process runs, links, or what is not this program's.
        """
        refuse_foreign(self.path, "hydra.run.dir")
        self.refuse_links()
        if not self.lock.acquire(patience):
            raise LabError(f"{self.path} is in use: {self.lock.holder()} trains a Session there.")
        break_hard_links(*self.tables.values(), self.log, self.status)
        remove_leftovers(self.path, self.path / "checkpoint", self.replay, self.hydra)
        before = self.status.read_bytes() if self.status.exists() else None
        status = self.read_status_if_any()
        if status and status["pid"] == RECOVERED:
            write_sealed_json(self.status, status)
        if status is None or status["state"] not in ENDED:
            self._before = before
            return
        self.lock.release()
        raise LabError(
            f"{self.path} already holds a Session ({status['state']} at frame {status['frame']:,}):"
            " choose another hydra.run.dir, or remove it first."
        )

    def release(self) -> None:
        """Let go of the directory."""
        self.lock.release()

    def let_go(self) -> None:
        """Let go of a directory that was claimed in vain, and leave it as it was."""
        if self._before is None:
            self.status.unlink(missing_ok=True)
            self.lock.path.unlink(missing_ok=True)
        else:
            write_atomically(self.status, self._before)
        self.release()

    @property
    def holds_results(self) -> bool:
        """Whether a Session has written anything but its status."""
        files = (self.spec, self.provenance, self.log, *self.tables.values(), self.replay.parent)
        return any(path.exists() for path in files)

    def replace(self) -> Path | None:
        """Move what a Session wrote into a new folder of the directory, so that another one can begin; return that.

        Nothing is removed, and what is not the Session's stays. Null if there is nothing to move.
        """
        return move_aside(self.path, OF_SESSION, last=self.status.name)

    def write_status(
        self,
        state: str,
        frame: int,
        frames: int,
        error: str | None = None,
        mean_return: float | None = None,
        frames_per_second: float | None = None,
        lost: bool = False,
        tables: Mapping[str, Mapping[str, int]] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """Say in status.json how the Session stands.

        Args:
            state: one of STATES.
            frame: frames done.
            frames: frames asked for.
            error: the traceback of a failed Session, or why it was pruned.
            mean_return: mean return of the last 100 episodes.
            frames_per_second: over the last log interval.
            lost: whether it failed through no fault of its own, as when its process was killed or the disk was full.
            tables: size and CRC-32 of each table, once it ended, by which damage is known.
            warnings: what a user should know of it.
        """
        assert state in STATES, state
        content = {
            "state": state,
            "frame": frame,
            "frames": frames,
            "return": mean_return,
            "frames_per_second": frames_per_second,
            "error": error,
            "lost": lost,
            "warnings": list(warnings),
            "updated": now(),
            "host": platform.node(),
            "pid": os.getpid(),
            **({"tables": tables} if tables else {}),
        }
        try:
            write_sealed_json(self.status, content)
        except OSError:
            if state == "running":
                raise
            # On a full disk there may be room for the end of a Session in the place of its last status, if it is short.
            content["error"] = error and error.strip().splitlines()[-1]
            with open(self.status, "r+b", opener=no_follow) as file:
                file.truncate(0)
                file.write(sealed_json(content).encode())

    def read_status(self) -> dict[str, Any]:
        """Read status.json; a Session that says it is running, but whose process is gone, counts as interrupted.

        Raises:
            LabError: it is missing or torn.
        """
        status = self._read_status()
        if status["state"] == "running" and not self._alive(status):
            # It may have ended while this looked: what it wrote last before it let go is what counts.
            status = self._read_status()
            if status["state"] == "running":
                status["state"] = "interrupted"
        return status

    def _read_status(self) -> dict[str, Any]:
        """Read status.json, or make it up from the other files if it is damaged, and say so."""
        try:
            status: dict[str, Any] = read_json(self.status, STATUS)
            for key in NEEDED:
                status[key]
            return status
        except LabError as error:
            if not (self.status.exists() or self.spec.exists()):
                raise
            status = recover_status(self, str(error))
            say_once(status["warnings"][0])
            return status

    def read_status_if_any(self) -> dict[str, Any] | None:
        """Read status.json, or return nothing if no Session began here."""
        try:
            return self.read_status()
        except LabError:
            return None

    def interrupt(self) -> None:
        """Say of a Session whose process was lost that it may go on."""
        self.amend_status(state="interrupted", error=None, lost=False)

    def amend_status(self, **changes: Any) -> None:
        """Change some of what status.json holds."""
        write_sealed_json(self.status, {**self.read_status(), **changes})

    def abandoned(self) -> bool:
        """Say whether a Session was running here and its process is gone without having written an end."""
        status = self._read_status()
        return status["state"] == "running" and not self._alive(status)

    def _alive(self, status: dict[str, Any]) -> bool:
        held = self.lock.held()
        if held:
            return True
        if status.get("host") != platform.node():
            # Its locks may not be known here; that it goes on is known by what it writes.
            return age(status["updated"]) < STALE_SECONDS
        if held is False:
            return False
        try:
            os.kill(status["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def ask_to_stop(self, state: str, reason: str) -> None:
        """Ask the Session to end at its next log interval as `pruned` or `interrupted`."""
        write_sealed_json(self.stop, {"state": state, "reason": reason})

    def stop_request(self) -> tuple[str, str] | None:
        """Return the state to end in and the reason, if the Session was asked to stop."""
        if not self.stop.exists():
            return None
        content = read_json(self.stop, STOP)
        return content["state"], content["reason"]


class TrialDir:
    """The directory of a Trial: one of Sessions that differ in nothing but the seed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.point = self.path / "point.json"
        self.results = self.path / "trial.json"
        self.plot = self.path / "trial.png"
        self.card = self.path / "card.md"

    @property
    def number(self) -> int | None:
        """Number of the Trial in its Experiment; null if it stands alone."""
        return _number(self.path.name, "trial")

    def session(self, seed: int) -> RunDir:
        """Return the directory of the Session with a seed."""
        return RunDir(self.path / f"seed-{seed}")

    def read_point(self) -> Document:
        """Read point.json: the Trial's number, overrides, hyperparameters and seeds.

        Raises:
            LabError: it is missing or damaged.
        """
        return read_json(self.point, POINT)

    def read_point_if_any(self) -> dict[str, Any]:
        """Read point.json; where it is damaged, hyperparameters are left to specs, and seeds are those of the sweep."""
        nothing: dict[str, Any] = {"hyperparameters": {}, "seeds": []}
        sweep = SweepDir(self.path if self.number is None else self.path.parent)
        if not (self.point.exists() or sweep.sweep.exists()):  # as of a stack, which no sweep launched
            return nothing
        try:
            point = self.read_point()
            return {key: plain(point[key]) for key in nothing}
        except LabError as error:
            say_once(f"{error} Its hyperparameters are those of its specs, its seeds those of the sweep.")
        try:
            return {**nothing, "seeds": sweep.read_sweep()["seeds"]}
        except LabError:
            return nothing

    def seeds(self) -> list[int]:
        """Return the seeds whose directories exist, in order."""
        return sorted(_numbers(self.path, "seed"))


class SweepDir:
    """The directory of a sweep: an Experiment, or a Trial that stands alone."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.sweep = self.path / "sweep.json"
        self.multirun = self.path / "multirun.yaml"
        self.results = self.path / "experiment.json"
        self.table = self.path / "trials.csv"
        self.plot = self.path / "experiment.png"
        self.report = self.path / "report.html"
        self.study = self.path / "study.db"
        self.jobs = self.path / ".jobs"
        self.lock = Lock(self.path)

    def read_sweep(self) -> Document:
        """Read sweep.json: what the sweep is to run, and what its Trials are ranked by.

        Raises:
            LabError: it is missing or damaged.
        """
        return read_json(self.sweep, SWEEP)

    def claim(self) -> None:
        """Make the directory this sweep's own, until the end of the process; what killed writers left is removed.

        Raises:
            LabError: another process controls a sweep there, or it holds links or what is not this program's.
        """
        refuse_foreign(self.path, "hydra.sweep.dir", sweep=True)
        refuse_links(self.path, OF_SWEEP, (".jobs",))
        trials = self.trials()
        for trial in trials:
            refuse_links(trial.path, OF_SWEEP)
        if not self.lock.acquire():
            raise LabError(f"{self.path} is in use: {self.lock.holder()} controls a sweep there.")
        remove_leftovers(self.path, self.jobs, *(trial.path for trial in trials))

    def trial(self, number: int) -> TrialDir:
        """Return the directory of a Trial of an Experiment."""
        return TrialDir(self.path / f"trial-{number:03}")

    def next_job(self) -> int:
        """Return the first number that no job in the directory had, from 1."""
        names = [path.name.partition(".")[0] for path in self.jobs.glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=0) + 1

    def trials(self) -> list[TrialDir]:
        """Return the directories of the Trials that exist, by number."""
        return [self.trial(number) for number in sorted(_numbers(self.path, "trial"))]


def rerun_file(path: Path) -> Path:
    """Return where it is said how what was run again in a directory compares with what there was before."""
    return path / "rerun.json"


def _number(name: str, kind: str) -> int | None:
    match = re.fullmatch(rf"{kind}-(\d+)", name)
    return int(match[1]) if match else None


def _numbers(path: Path, kind: str) -> list[int]:
    found = [] if not path.is_dir() else [_number(entry.name, kind) for entry in os.scandir(path) if entry.is_dir()]
    return [number for number in found if number is not None]


def age(written: str) -> float:
    """Return the seconds since a time that `now` returned."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(written)).total_seconds()
    except (ValueError, TypeError):  # no such time
        return float("inf")


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def trial_state(states: Iterable[str]) -> str:
    """Return the state of a Trial: completed only if every Session is, failed as soon as one is."""
    found = set(states)
    for state in ("failed", "running", "pruned", "interrupted"):
        if state in found:
            return state
    return "completed" if found == {"completed"} else "pending"
