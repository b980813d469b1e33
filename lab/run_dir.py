"""The run directory of a Session: every path and file format in it, in one place."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.errors import LabError

STATES = ("running", "completed", "failed", "pruned", "interrupted")


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

    def checkpoint(self, which: str) -> Path:
        """Return the path of a checkpoint: `last`, or `best` by evaluation."""
        return self.path / "checkpoint" / f"{which}.pt"

    def claim(self) -> None:
        """Make the directory this Session's own.

        Raises:
            LabError: it holds a Session already, or one has taken it at this moment.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self.status.open("x").close()
        except FileExistsError as error:
            try:
                status = self.read_status()
                found = f"{status['state']} at frame {status['frame']:,}"
            except LabError:
                found = "just started"
            raise LabError(
                f"{self.path} already holds a Session ({found}): choose another hydra.run.dir, or remove it first."
            ) from error

    def write_status(self, state: str, frame: int, frames: int, error: str | None = None) -> None:
        """Say in status.json how the Session stands.

        Args:
            state: one of STATES.
            frame: frames done.
            frames: frames asked for.
            error: the traceback of a failed Session.
        """
        assert state in STATES, state
        content = {
            "state": state,
            "frame": frame,
            "frames": frames,
            "error": error,
            "updated": now(),
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
        """Read status.json.

        Raises:
            LabError: it is missing or torn.
        """
        return read_json(self.status)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to disk and rename it, so that a reader sees the old content or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomically(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; a number that is not finite becomes null, as JSON has none."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def seal(content: bytes) -> bytes:
    """Append a checksum, by which `unseal` knows a torn or altered file."""
    return content + zlib.crc32(content).to_bytes(4, "big")


def unseal(content: bytes, path: Path) -> bytes:
    """Return what was sealed.

    Raises:
        LabError: the checksum does not fit.
    """
    body, checksum = content[:-4], content[-4:]
    if len(checksum) < 4 or zlib.crc32(body).to_bytes(4, "big") != checksum:
        raise LabError(f"{path} is damaged: its checksum does not fit its content.")
    return body


class Table:
    """A CSV file that grows by whole rows. Numbers are written so that reading them gives the same bits."""

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        """Start the file anew, with its header."""
        self.columns = list(columns)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._write([self.columns])

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append rows, in one write; a column that a row lacks stays empty."""
        self._write([[_cell(row.get(column)) for column in self.columns] for row in rows])

    def _write(self, rows: list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue())

    def flush(self) -> None:
        """Hand all rows to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


def _cell(value: Any) -> str:
    return "" if value is None else repr(float(value)) if isinstance(value, float) else str(value)
