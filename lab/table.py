"""Tables that grow while a Session trains."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MOST_PENDING = 1000  # writes to a table that may wait for the next flush


class Table:
    """A CSV file that grows by whole rows, so that one who reads it meanwhile sees no torn one.

    Numbers are written so that reading them gives the same bits.
    """

    def __init__(self, path: Path, columns: Iterable[str], size: int | None = None) -> None:
        """Start the file anew with its header, or go on after so many bytes of it; what follows them is cut off."""
        self.columns = list(columns)
        self._pending: list[bytes] = []
        if size is None:
            self._file = path.open("wb", buffering=0)
            self._write([self.columns])
            self.flush()
        else:
            self._file = path.open("r+b", buffering=0)
            self._file.truncate(size)
            self._file.seek(size)

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
            content = content[self._file.write(content) :]

    def sync(self) -> int:
        """See to it that all rows are on the disk, and return how many bytes the file has."""
        self.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Flush and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()


def _cell(value: Any) -> str:
    return "" if value is None else repr(float(value)) if isinstance(value, float) else str(value)
