"""The paths in run directories of Sessions, Trials and Experiments."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.errors import LabError, warn_once
from lab.run.files import Document, plain, read_json, write_atomically, write_sealed_json
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
from lab.run.schemas import ENDED, POINT, SESSION, SWEEP
from lab.run.status import RECOVERED, StatusFiles

VALIDATION = "validation"  # name of the directory in an Experiment that `validate` trains in


class RunDir(StatusFiles):
    """The directory that a Session owns: only the Session writes there, and everything known about it is there."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.provenance = self.path / "provenance.json"
        self.patch = self.path / "uncommitted.patch"
        self.episodes = self.path / "episodes.csv"
        self.timing = self.path / "timing.csv"
        self.results = self.path / "session.json"
        self.plot = self.path / "session.png"
        self.exported = self.path / "exported.json"
        self.hydra = self.path / ".hydra"
        self.replay = self.path / "checkpoint" / "replay"  # segments of a replay memory, listed in checkpoints
        self.tables = {"episodes": self.episodes, "metrics": self.metrics, "timing": self.timing}
        self._status_before: bytes | None = None  # status.json at the time of `acquire`

    @property
    def holds_results(self) -> bool:
        """Whether a Session has written anything besides its status."""
        files = (self.spec, self.provenance, self.log, *self.tables.values(), self.replay.parent)
        return any(path.exists() for path in files)

    @property
    def place(self) -> tuple[int, int]:
        """Place of a Session in its sweep: the number of its Trial, which is 0 for a standalone one, and its seed."""
        return _number(self.path.parent.name, "trial") or 0, _number(self.path.name, "seed") or 0

    def refuse_links(self) -> None:
        """Raise LabError if anything that a Session writes to is a symbolic link; the directory itself may be one."""
        refuse_links(self.path, OF_SESSION, ("checkpoint", "checkpoint/replay", self.hydra.name))

    def acquire(self, patience: float = LOCK_SECONDS) -> None:
        """Lock the directory for this process, remove half-written files and repair a damaged status.

        Args:
            patience: seconds to wait if another process has it.

        Raises:
            LabError: the directory holds a Session that ended or that another process runs, links or foreign files.
        """
        refuse_foreign(self.path, "hydra.run.dir")
        self.refuse_links()
        if not self.lock.acquire(patience):
            raise LabError(f"{self.path} is in use: {self.lock.holder()} trains a Session there.")
        break_hard_links(*self.tables.values(), self.log, self.status)
        remove_leftovers(self.path, self.path / "checkpoint", self.replay, self.hydra)
        before = self.status.read_bytes() if self.status.exists() else None
        status = self.find_status()
        if status and status["pid"] == RECOVERED:
            write_sealed_json(self.status, status)
        if status is None or status["state"] not in ENDED:
            self._status_before = before
            return
        self.lock.release()
        raise LabError(
            f"{self.path} already holds a Session ({status['state']} at frame {status['frame']:,}):"
            " choose another hydra.run.dir, or remove it first."
        )

    def release(self, undo: bool = False) -> None:
        """Unlock the directory.

        Args:
            undo: whether to put the status back that was there before `acquire`.
        """
        if undo and self._status_before is None:
            self.status.unlink(missing_ok=True)
            self.lock.path.unlink(missing_ok=True)
        elif undo and self._status_before is not None:
            write_atomically(self.status, self._status_before)
        self.lock.release()

    def move_results_aside(self) -> Path | None:
        """Move what a Session wrote into a new folder of the directory; return it, or None if there was nothing."""
        return move_aside(self.path, OF_SESSION, last=self.status.name)


class TrialDir:
    """The directory of a Trial: Sessions that differ only in the seed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.point = self.path / "point.json"
        self.results = self.path / "trial.json"
        self.plot = self.path / "trial.png"
        self.card = self.path / "card.md"

    @property
    def number(self) -> int | None:
        """Number of the Trial in its Experiment; None for a standalone Trial."""
        return _number(self.path.name, "trial")

    def session(self, seed: int) -> RunDir:
        """Return the directory of the Session with a seed."""
        return RunDir(self.path / f"seed-{seed}")

    def seeds(self) -> list[int]:
        """Return the seeds whose directories exist, in order."""
        return _numbers(self.path, "seed")

    def read_point(self) -> Document:
        """Read point.json: the Trial's number, overrides, hyperparameters and seeds.

        Raises:
            LabError: it is missing or damaged.
        """
        return read_json(self.point, POINT)

    def find_point(self) -> dict[str, Any]:
        """Return the hyperparameters and seeds in point.json; if it is damaged, only the seeds of sweep.json."""
        unknown: dict[str, Any] = {"hyperparameters": {}, "seeds": []}
        sweep = SweepDir(self.path if self.number is None else self.path.parent)
        if not (self.point.exists() or sweep.sweep.exists()):  # a stack that no sweep launched
            return unknown
        try:
            point = self.read_point()
            return {key: plain(point[key]) for key in unknown}
        except LabError as error:
            warn_once(f"{error} Its hyperparameters are those of its specs, its seeds those of the sweep.")
        try:
            return {**unknown, "seeds": sweep.read_sweep()["seeds"]}
        except LabError:
            return unknown


class SweepDir:
    """The directory of a sweep: an Experiment, or a standalone Trial."""

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

    @property
    def validation(self) -> SweepDir:
        """The directory below it in which its best Trials are trained again on fresh seeds."""
        return SweepDir(self.path / VALIDATION)

    @property
    def validates(self) -> SweepDir | None:
        """The Experiment whose best Trials are trained here on fresh seeds; None for any other directory."""
        around = SweepDir(self.path.absolute().parent)
        return around if self.path.name == VALIDATION and around.trials() else None

    def trial(self, number: int) -> TrialDir:
        """Return the directory of a Trial of an Experiment."""
        return TrialDir(self.path / f"trial-{number:03}")

    def trials(self) -> list[TrialDir]:
        """Return the directories of the Trials that exist, by number."""
        return [self.trial(number) for number in _numbers(self.path, "trial")]

    def next_job(self) -> int:
        """Return the first job number, from 1, that is not used in the directory."""
        names = [path.name.partition(".")[0] for path in self.jobs.glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=0) + 1

    def read_sweep(self) -> Document:
        """Read sweep.json: what the sweep runs and how its Trials are ranked.

        Raises:
            LabError: it is missing or damaged.
        """
        return read_json(self.sweep, SWEEP)

    def find_sweep(self, keys: Iterable[str], remark: str) -> Document | None:
        """Read sweep.json with the given keys; None if there is none, or after a warning if it is damaged."""
        if not self.sweep.exists() and not self.trials():
            return None
        try:
            sweep = self.read_sweep()
            for key in keys:
                sweep[key]
            return sweep
        except LabError as error:
            warn_once(f"{error} {remark}")
            return None

    def acquire(self) -> None:
        """Lock the directory until this process ends, and remove half-written files.

        Raises:
            LabError: another process controls a sweep there, or the directory holds links or foreign files.
        """
        refuse_foreign(self.path, "hydra.sweep.dir", sweep=True)
        refuse_links(self.path, OF_SWEEP, (".jobs",))
        trials = self.trials()
        for trial in trials:
            refuse_links(trial.path, OF_SWEEP)
        if not self.lock.acquire():
            raise LabError(f"{self.path} is in use: {self.lock.holder()} controls a sweep there.")
        remove_leftovers(self.path, self.jobs, *(trial.path for trial in trials))


def acquire_directory(path: Path) -> Path:
    """Make the first directory of `path`, `path-2`, `path-3`, ... that no run has; return it.

    It is locked until this process ends, so that each of several processes that ask for the same path gets its own.
    """
    names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(name for name in names if _acquire(name))


def _acquire(path: Path) -> bool:
    """Make and lock a directory; return False if another process has locked it, or something is in it."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            folder = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # removed meanwhile by the process that had it, and did not use it
            continue
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            return False
        except OSError:  # a file system that locks no directories: the lock of the run refuses a second one
            pass
        with suppress(OSError):
            if os.path.samestat(os.fstat(folder), path.stat()):
                # Hydra writes its own files before a job runs.
                free = all(entry.name == ".hydra" or entry.name.endswith(".log") for entry in path.iterdir())
                if not free:
                    os.close(folder)
                return free
        os.close(folder)


def find_level(path: Path) -> str:
    """Return what a directory holds: a `session`, a `trial` or an `experiment`.

    Raises:
        LabError: it is none of them.
    """
    if RunDir(path).status.exists() or RunDir(path).spec.exists():
        return "session"
    if path.is_dir():
        if _any_exists(path, "trial-*/point.json", "trial-*/seed-*/spec.yaml", "trial-*/seed-*/status.json"):
            return "experiment"
        planned = TrialDir(path).point.exists() and TrialDir(path).seeds()
        if planned or _any_exists(path, "seed-*/spec.yaml", "seed-*/status.json"):
            return "trial"
        if SweepDir(path).sweep.exists():
            return str(SweepDir(path).read_sweep()["kind"])
    if TrialDir(path).results.exists():
        advice = f" {TrialDir(path).card} says how to train them." if TrialDir(path).card.exists() else ""
        raise LabError(f"{path} holds the metrics of a Trial, but none of its Sessions.{advice}")
    around = next((folder for folder in path.parents if RunDir(folder).spec.exists()), None)
    if around and path.is_file():
        raise LabError(f"{path} is not a run directory, but a file of one: name {around}.")
    if not path.is_dir():
        raise LabError(f"{path} is not a run directory: there is no such directory.")
    below = " or ".join(map(str, itertools.islice(newest_runs(path), 2)))
    raise LabError(
        f"{path} is not a run directory: it holds no Session, Trial or Experiment"
        + (f" itself. The newest below it: {below}." if below else ".")
    )


def newest_runs(path: Path) -> Iterator[Path]:
    """Yield the run directories below a directory of outputs that are named by date and time, newest first."""
    dated = [run for above in ("", "*/", "*/*/") for run in path.glob(f"{above}????-??-??/*")]
    for run in sorted([*dated, *path.glob("??-??-??*")], key=lambda run: run.parts[-2:], reverse=True):
        if _any_exists(run, "status.json", "sweep.json", "seed-*/status.json"):
            yield run


def find_sessions(path: Path) -> list[RunDir]:
    """Return the Sessions that have started in the directory of a Session, a Trial or an Experiment, in order."""
    # Not rglob: it would walk through a sweep's copy of the code, and fail when that is renamed meanwhile.
    files = [f"{below}{name}" for below in ("", "seed-*/", "trial-*/seed-*/") for name in ("status.json", "spec.yaml")]
    folders = {entry.parent for file in files for entry in path.glob(file)}

    def numbers(path: Path) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"-(\d+)", f"{path.parent.name}/{path.name}"))

    return [RunDir(folder) for folder in sorted(folders, key=numbers)]


def rank_agent(metrics: Mapping[str, Any]) -> list[float]:
    """Return a sort key for agents: the best evaluation, and among equals the return."""
    values = (metrics.get(name) for name in ("eval_best", "return"))
    return [float("-inf") if value is None else value for value in values]


def best_session(sessions: Iterable[RunDir], checkpoint: str = "best") -> RunDir | None:
    """Return the Session with the best agent by evaluation, and among equals by return; None if none has an agent."""

    def rank(session: RunDir) -> list[float]:
        try:
            return rank_agent(read_json(session.results, SESSION))
        except LabError:
            return rank_agent({})

    return max((one for one in sessions if one.checkpoint(checkpoint).exists()), key=rank, default=None)


def _any_exists(path: Path, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in path.glob(pattern))


def _number(name: str, kind: str) -> int | None:
    match = re.fullmatch(rf"{kind}-(\d+)", name)
    return int(match[1]) if match else None


def _numbers(path: Path, kind: str) -> list[int]:
    numbers = [_number(entry.name, kind) for entry in os.scandir(path) if entry.is_dir()] if path.is_dir() else []
    return sorted(number for number in numbers if number is not None)
