"""Tables that grow while a Session trains."""

from __future__ import annotations

import csv
import io
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.run.files import no_follow

MOST_PENDING = 1000  # writes to a table that may wait for the next flush


class Table:
    """A CSV file that grows by whole rows, so that one who reads it meanwhile sees no torn one.

    Numbers are written so that reading them gives the same bits.
    """

    def __init__(self, path: Path, columns: Iterable[str], until: Mapping[str, int] | None = None) -> None:
        """Start a file with its header, or go on with one.

        Args:
            path: the file; to start, there must be none.
            columns: its header.
            until: what `sync` returned; what the file holds after that is cut off. Null to start.
        """
        self.columns = list(columns)
        self._pending: list[bytes] = []
        self._size, self._crc32 = (until["size"], until["crc32"]) if until else (0, 0)
        mode = "r+b" if until else "xb"
        self._file = open(path, mode, buffering=0, opener=no_follow)  # noqa: SIM115 - `close` closes it
        if until:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        else:
            self._write([self.columns])
            self.flush()

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append rows, in one write; a column that a row lacks stays empty."""
        self._write([[_cell(row.get(column)) for column in self.columns] for row in rows])

    def _write(self, rows: list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._pending.append(text.getvalue().encode())
        if len(self._pending) >= MOST_PENDING:
            self.flush()

    def flush(self) -> None:
        """Hand all rows to the operating system."""
        content = b"".join(self._pending)
        self._pending = []
        while content:
            written = self._file.write(content)
            self._crc32 = zlib.crc32(content[:written], self._crc32)
            self._size += written
            content = content[written:]

    @property
    def state(self) -> dict[str, int]:
        """Size and CRC-32 of what was written."""
        return {"size": self._size, "crc32": self._crc32}

    def sync(self) -> dict[str, int]:
        """See to it that all rows are on the disk, and return the size and the CRC-32 of the file."""
        self.flush()
        os.fsync(self._file.fileno())
        return self.state

    def close(self) -> None:
        """Flush and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()


def fits(path: Path, until: Mapping[str, int]) -> bool:
    """Say whether a file begins with the bytes of which `Table.sync` returned the size and the CRC-32.

    Raises:
        OSError: it cannot be read now; it may be whole.
    """
    try:
        with path.open("rb") as file:
            content = file.read(until["size"])
    except FileNotFoundError:
        return False
    return len(content) == until["size"] and zlib.crc32(content) == until["crc32"]


def _cell(value: Any) -> str:
    return "" if value is None else repr(float(value)) if isinstance(value, float) else str(value)
