"""How a Session stands: status.json, requests to stop, and whether its process is alive."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.errors import LabError, warn_once
from lab.run.files import no_follow, read_json, read_yaml, sealed_json, write_sealed_json
from lab.run.lock import Lock
from lab.run.schemas import SPEC, STATES, STATUS, STOP

NEEDED = ("state", "frame", "frames", "error", "updated", "pid")  # keys without which a status is damaged
STALE_SECONDS = 300.0  # a Session on another host counts as gone after this time without an update
RECOVERED = 0  # the process number in a status that was reconstructed from other files
START = re.compile(r"^\S+ \S+ INFO (?:started|resumed at frame)", re.MULTILINE)
END = re.compile(r"^\S+ \S+ (?:INFO|ERROR) (completed|failed|pruned|interrupted) at frame (\d+)$", re.MULTILINE)


class StatusFiles:
    """The part of a run directory that tells how its Session stands."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.status = self.path / "status.json"
        self.stop = self.path / "stop.json"
        self.spec = self.path / "spec.yaml"
        self.log = self.path / "session.log"
        self.metrics = self.path / "metrics.csv"
        self.lock = Lock(self.path)

    def checkpoint(self, which: str) -> Path:
        """Return the path of the `last` checkpoint, the `previous` one, or the `best` one by evaluation."""
        return self.path / "checkpoint" / f"{which}.pt"

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
        stopped: str | None = None,
    ) -> None:
        """Write status.json.

        Args:
            state: one of STATES.
            frame: frames done, of `frames`.
            frames: frames asked for.
            error: the traceback of a failed Session, or why it was pruned.
            mean_return: of the last 100 episodes.
            frames_per_second: over the last log interval.
            lost: whether it failed through no fault of its own, for example because its process was killed.
            tables: size and CRC-32 of each table at the end, which reveal later damage.
            warnings: sentences for the user.
            stopped: why a Session completed before all frames were done.
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
            "updated": utc_now(),
            "host": platform.node(),
            "pid": os.getpid(),
            **({"tables": tables} if tables else {}),
            **({"stopped": stopped} if stopped else {}),
        }
        try:
            write_sealed_json(self.status, content)
        except OSError:
            if state == "running":
                raise
            # On a full disk, a short final status may still fit in the place of the previous one.
            content["error"] = error and error.strip().splitlines()[-1]
            with open(self.status, "r+b", opener=no_follow) as file:
                file.truncate(0)
                file.write(sealed_json(content).encode())

    def update_status(self, **changes: Any) -> None:
        """Change some keys of status.json."""
        write_sealed_json(self.status, {**self.read_status(), **changes})

    def mark_interrupted(self) -> None:
        """Let a Session whose process was lost be resumed."""
        self.update_status(state="interrupted", error=None, lost=False)

    def read_status(self, recover: bool = True) -> dict[str, Any]:
        """Read status.json; a running Session whose process is gone counts as interrupted.

        Args:
            recover: whether to reconstruct a damaged status from the other files, checkpoints among them.

        Raises:
            LabError: no Session started here, or its status is damaged and not to be recovered.
        """
        status = self._read_status(recover)
        if status["state"] == "running" and not self._is_alive(status):
            # The Session may have ended since: its last status counts.
            status = self._read_status(recover)
            if status["state"] == "running":
                status["state"] = "interrupted"
        return status

    def find_status(self) -> dict[str, Any] | None:
        """Read status.json, or return None if no Session started here."""
        try:
            return self.read_status()
        except LabError:
            return None

    def is_abandoned(self) -> bool:
        """Return whether the process of a running Session is gone without having written its end."""
        status = self._read_status()
        return status["state"] == "running" and not self._is_alive(status)

    def _read_status(self, recover: bool = True) -> dict[str, Any]:
        """Read status.json; if it is damaged, reconstruct it from the other files and warn."""
        try:
            status: dict[str, Any] = read_json(self.status, STATUS)
            for key in NEEDED:
                status[key]
            return status
        except LabError as error:
            if not recover or not (self.status.exists() or self.spec.exists()):
                raise
            status = recover_status(self, str(error))
            warn_once(status["warnings"][0])
            return status

    def _is_alive(self, status: dict[str, Any]) -> bool:
        locked = self.lock.is_held()
        if locked:
            return True
        if status.get("host") != platform.node():
            return seconds_since(status["updated"]) < STALE_SECONDS  # locks of other hosts may be invisible here
        if locked is False:
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

    def read_stop_request(self) -> tuple[str, str] | None:
        """Return the state to end in and the reason, or None if nobody asked the Session to stop."""
        if not self.stop.exists():
            return None
        content = read_json(self.stop, STOP)
        return content["state"], content["reason"]


def recover_status(directory: StatusFiles, problem: str) -> dict[str, Any]:
    """Reconstruct a status from the spec, the log, the tables and the last checkpoint of a Session.

    The Session counts as completed if its last checkpoint is at its end, or if there is no checkpoint and the log and
    the metrics agree that it reached its end; as failed or pruned if the log says so; as interrupted otherwise.

    Args:
        directory: of the Session.
        problem: what is wrong with status.json, as a sentence.
    """
    try:
        frames = int(read_yaml(directory.spec, SPEC)["frames"])
    except (LabError, OSError):
        frames = 0
    ending, last_frame = _logged_end(directory.log)
    checkpoint = _last_checkpoint(directory)
    frame = last_frame if checkpoint is None else int(checkpoint["frame"])
    if ending in ("failed", "pruned"):
        state = ending
    elif checkpoint is None:
        state = "completed" if ending == "completed" and _last_row(directory) >= frames > 0 else "interrupted"
    else:
        done = frame >= frames > 0 or (ending == "completed" and frame == last_frame)  # which stops before by `stop_at`
        state = "completed" if done and checkpoint.get("unfinished_interval") is None else "interrupted"
    warning = f"{problem} From the other files it is {state} at frame {frame:,}."
    tables = (checkpoint or {}).get("record", {}).get("tables") if state == "completed" else None
    return {
        "state": state,
        "frame": frame,
        "frames": frames,
        "return": None,
        "frames_per_second": None,
        "error": None if state in ("completed", "interrupted") else warning,
        "lost": False,
        "updated": "1970-01-01T00:00:00+00:00",
        "host": "",
        "pid": RECOVERED,
        "warnings": [warning],
        **({"tables": tables} if tables else {}),
    }


def _logged_end(log: Path) -> tuple[str | None, int]:
    """Return the state and the frame in which the log says that the Session ended; None if it went on after that."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, 0
    start = max((match.end() for match in START.finditer(text)), default=0)
    ends = list(END.finditer(text, start))
    return (ends[-1][1], int(ends[-1][2])) if ends else (None, 0)


def _last_checkpoint(directory: StatusFiles) -> dict[str, Any] | None:
    from lab.run.tensor_files import read

    try:
        return read(directory.checkpoint("last"))
    except LabError:
        return None


def _last_row(directory: StatusFiles) -> int:
    """Return the frame of the last row of metrics.csv."""
    try:
        rows = directory.metrics.read_text(encoding="utf-8").splitlines()
        return int(rows[-1].split(",")[0])
    except (OSError, ValueError, IndexError):
        return 0


def combined_state(states: Iterable[str]) -> str:
    """Return the state of a Trial: completed only if every Session is, failed as soon as one is."""
    present = set(states)
    for state in ("failed", "running", "pruned", "interrupted"):
        if state in present:
            return state
    return "completed" if present == {"completed"} else "pending"


def utc_now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def seconds_since(time: str) -> float:
    """Return the seconds since a time that `utc_now` returned; infinity if it is not a time."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    except (ValueError, TypeError):
        return float("inf")
