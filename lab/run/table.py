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

MOST_PENDING = 1000  # writes that wait for the next flush


class Table:
    """A CSV file to which whole rows are appended, so a concurrent reader never sees a partial one.

    Reading the numbers gives the same bits.
    """

    def __init__(self, path: Path, columns: Iterable[str], until: Mapping[str, int] | None = None) -> None:
        """Create a file with its header, or continue one.

        Args:
            path: the file.
            columns: its header.
            until: what `sync` returned, after which the file is truncated; None to create it.
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
        """Append rows in one write; missing columns stay empty."""
        self._write([[_format_cell(row.get(column)) for column in self.columns] for row in rows])

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
            size = self._file.write(content)
            self._crc32 = zlib.crc32(content[:size], self._crc32)
            self._size += size
            content = content[size:]

    @property
    def state(self) -> dict[str, int]:
        """Size and CRC-32 of what was written."""
        return {"size": self._size, "crc32": self._crc32}

    def sync(self) -> dict[str, int]:
        """Write all rows to the disk, and return the size and the CRC-32 of the file."""
        self.flush()
        os.fsync(self._file.fileno())
        return self.state

    def close(self) -> None:
        """Flush and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()


def starts_with(path: Path, until: Mapping[str, int]) -> bool:
    """Return whether a file starts with the bytes whose size and CRC-32 `Table.sync` returned.

    Raises:
        OSError: it cannot be read now, and may be undamaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(until["size"])
    except FileNotFoundError:
        return False
    return len(content) == until["size"] and zlib.crc32(content) == until["crc32"]


def _format_cell(value: Any) -> str:
    return "" if value is None else repr(float(value)) if isinstance(value, float) else str(value)
