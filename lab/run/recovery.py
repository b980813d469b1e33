"""How a Session stands whose status.json is damaged or missing, as its other files tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.run.files import read_yaml
from lab.run.schemas import SPEC

if TYPE_CHECKING:
    from lab.run.directory import RunDir

RECOVERED = 0  # the number of the process in a status that was made from other files
START = re.compile(r"^\S+ \S+ INFO (?:started|resumed at frame)", re.MULTILINE)
END = re.compile(r"^\S+ \S+ (?:INFO|ERROR) (completed|failed|pruned|interrupted) at frame (\d+)$", re.MULTILINE)


def recover_status(directory: RunDir, problem: str) -> dict[str, Any]:
    """Return a status made from the spec, the log, the tables and the last checkpoint of a Session.

    A Session counts as completed if its last checkpoint is at its end, or if there is none and log and table agree that
    it came to its end; as failed or pruned if its log says so; and else as interrupted.

    Args:
        directory: of the Session.
        problem: what is wrong with its status.json, as a sentence.
    """
    try:
        frames = int(read_yaml(directory.spec, SPEC)["frames"])
    except (LabError, OSError):
        frames = 0
    ending, ended_at = _ending(directory)
    checkpoint = _last_checkpoint(directory)
    frame = ended_at if checkpoint is None else int(checkpoint["frame"])
    if ending in ("failed", "pruned"):
        state = ending
    elif checkpoint is None:
        state = "completed" if ending == "completed" and _logged(directory) >= frames > 0 else "interrupted"
    else:
        state = "completed" if frame >= frames > 0 and checkpoint.get("pending") is None else "interrupted"
    note = f"{problem} From the other files it is {state} at frame {frame:,}."
    status: dict[str, Any] = {"state": state, "frame": frame, "frames": frames, "return": None}
    status |= {"frames_per_second": None, "error": None if state in ("completed", "interrupted") else note}
    status |= {"lost": False, "updated": "1970-01-01T00:00:00+00:00", "host": "", "pid": RECOVERED, "warnings": [note]}
    tables = (checkpoint or {}).get("record", {}).get("tables") if state == "completed" else None
    return status | ({"tables": tables} if tables else {})


def _ending(directory: RunDir) -> tuple[str | None, int]:
    """Return the state and the frame in which the log says that the Session ended; null if it went on after that."""
    try:
        text = directory.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, 0
    start = max((found.end() for found in START.finditer(text)), default=0)
    ends = list(END.finditer(text, start))
    return (ends[-1][1], int(ends[-1][2])) if ends else (None, 0)


def _last_checkpoint(directory: RunDir) -> dict[str, Any] | None:
    from lab.run.checkpoint import read

    try:
        return read(directory.checkpoint("last"))
    except LabError:
        return None


def _logged(directory: RunDir) -> int:
    """Return the frame of the last row of metrics.csv."""
    try:
        rows = directory.metrics.read_text(encoding="utf-8").splitlines()
        return int(rows[-1].split(",")[0])
    except (OSError, ValueError, IndexError):
        return 0
