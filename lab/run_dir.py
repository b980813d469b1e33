"""Run directories, of Sessions, Trials and Experiments: every path and file format in them, in one place."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.lock import LOCK_SECONDS, Lock

STATES = ("running", "completed", "failed", "pruned", "interrupted")
ENDED = ("completed", "failed", "pruned")  # states that a Session is not taken out of unless asked to
FIGURES = (
    "return", "best", "eval_return", "eval_best", "length", "strength", "max_strength", "final_strength",
    "sample_efficiency", "training_efficiency", "stability", "frames_to_solve", "frames", "optimiser_steps", "episodes",
)  # of session.json  # fmt: skip
LESS_IS_BETTER = ("frames_to_solve",)  # of these figures; of all others, more is
STALE_SECONDS = 300.0  # without a word after which a Session of another host counts as gone
DIRECTIONS = ("maximize", "minimize")
AGGREGATES = ("mean", "median", "iqm", "lower")  # over seeds; lower is the lower end of the mean's 95 % interval


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

    def claim(self, patience: float = LOCK_SECONDS) -> None:
        """Make the directory this Session's own, until `release` or the end of the process.

        Args:
            patience: seconds to wait if another process has it.

        Raises:
            LabError: it holds a Session that ended or that another process runs.
        """
        if not self.lock.acquire(patience):
            raise LabError(f"{self.path} is in use: {self.lock.holder()} trains a Session there.")
        status = self.read_status_if_any()
        if status is None or status["state"] not in ENDED:
            self._before = self.status.read_bytes() if status else None
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

    def clear(self) -> None:
        """Remove what a Session writes, and nothing else."""
        files = (self.status, self.spec, self.provenance, self.log, self.episodes, self.metrics)
        checkpoints = map(self.checkpoint, ("last", "previous", "best"))
        derived = (self.timing, self.results, self.plot, self.stop, *self.path.glob("events.out.tfevents.*"))
        left = (*self.path.glob("uncommitted*.patch"), *self.path.glob(".*.tmp"), *self.path.glob("checkpoint/.*.tmp"))
        for path in (*files, *derived, *checkpoints, *left):
            path.unlink(missing_ok=True)

    def write_status(
        self,
        state: str,
        frame: int,
        frames: int,
        error: str | None = None,
        mean_return: float | None = None,
        frames_per_second: float | None = None,
        lost: bool = False,
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
        }
        try:
            write_json(self.status, content)
        except OSError:
            if state == "running":
                raise
            # On a full disk there may be room for the end of a Session in the place of its last status, if it is short.
            content["error"] = error and error.strip().splitlines()[-1]
            self.status.write_text(json.dumps(content), encoding="utf-8")

    def read_status(self) -> dict[str, Any]:
        """Read status.json; a Session that says it is running, but whose process is gone, counts as interrupted.

        Raises:
            LabError: it is missing or torn.
        """
        status = read_json(self.status)
        if status["state"] == "running" and not self._alive(status):
            # It may have ended while this looked: what it wrote last before it let go is what counts.
            status = read_json(self.status)
            if status["state"] == "running":
                status["state"] = "interrupted"
        return status

    def read_status_if_any(self) -> dict[str, Any] | None:
        """Read status.json, or return nothing if no Session began here."""
        try:
            return self.read_status()
        except LabError:
            return None

    def interrupt(self) -> None:
        """Say of a Session whose process was lost that it may go on."""
        write_json(self.status, {**self.read_status(), "state": "interrupted", "error": None, "lost": False})

    def abandoned(self) -> bool:
        """Say whether a Session was running here and its process is gone without having written an end."""
        status = read_json(self.status)
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
        write_json(self.stop, {"state": state, "reason": reason})

    def stop_request(self) -> tuple[str, str] | None:
        """Return the state to end in and the reason, if the Session was asked to stop."""
        if not self.stop.exists():
            return None
        content = read_json(self.stop)
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

    def read_point(self) -> dict[str, Any]:
        """Read point.json: the Trial's number, words, hyperparameters and seeds.

        Raises:
            LabError: it is missing or torn.
        """
        return read_json(self.point)

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


def level(path: Path) -> str:
    """Say what a directory holds: a `session`, a `trial` or an `experiment`.

    Raises:
        LabError: it is none of them.
    """
    if RunDir(path).status.exists() or RunDir(path).spec.exists():
        return "session"
    if path.is_dir():
        if _numbers(path, "trial"):
            return "experiment"
        if _numbers(path, "seed"):
            return "trial"
        if SweepDir(path).sweep.exists():
            return str(read_json(SweepDir(path).sweep)["kind"])
    raise LabError(
        f"{path} is not a run directory: "
        + ("it holds no Session, Trial or Experiment." if path.is_dir() else "there is no such directory.")
    )


def sessions(path: Path) -> list[RunDir]:
    """Return the Sessions that have begun in the directory of a Session, a Trial or an Experiment, in order."""
    # Not rglob, which would also walk through a sweep's frozen code, and stumble when that is renamed meanwhile.
    found = [entry for below in ("", "seed-*/", "trial-*/seed-*/") for entry in path.glob(f"{below}status.json")]
    return [RunDir(entry.parent) for entry in sorted(found, key=lambda entry: _in_order(entry.parent))]


def _in_order(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"-(\d+)", f"{path.parent.name}/{path.name}"))


def _number(name: str, kind: str) -> int | None:
    match = re.fullmatch(rf"{kind}-(\d+)", name)
    return int(match[1]) if match else None


def _numbers(path: Path, kind: str) -> list[int]:
    found = [] if not path.is_dir() else [_number(entry.name, kind) for entry in os.scandir(path) if entry.is_dir()]
    return [number for number in found if number is not None]


def age(written: str) -> float:
    """Return the seconds since a time that `now` returned."""
    return (datetime.now(UTC) - datetime.fromisoformat(written)).total_seconds()


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, content: bytes, private: bool = False) -> None:
    """Write a file aside, flush it to disk and rename it, so that a reader sees the old content or the new, whole.

    Args:
        path: the file.
        content: what it is to hold.
        private: whether nobody else may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with aside.open("wb") as file:
            if private:
                os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; bytes of a file name that are no text are written as escapes."""
    write_atomically(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; a number that is not finite becomes null, as JSON has none."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_yaml(path: Path) -> Any:
    """Read a YAML file, by the parser in C where it is installed, which is ten times as fast.

    Raises:
        OSError: it cannot be opened.
        yaml.YAMLError: it is no YAML.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506 - a safe loader


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises:
        LabError: it is missing or cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabError(f"{path} does not exist: is {path.parent} a run directory?") from error
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read: {error}.") from error
    assert isinstance(content, dict)
    return content


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested plain data by their full keys, joined with dots; a list is a leaf."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def trial_state(states: Iterable[str]) -> str:
    """Return the state of a Trial: completed only if every Session is, failed as soon as one is."""
    found = set(states)
    for state in ("failed", "running", "pruned", "interrupted"):
        if state in found:
            return state
    return "completed" if found == {"completed"} else "pending"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
