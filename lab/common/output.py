"""Output to a closed pipe or terminal: it is dropped, and the process continues."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from typing import Any


class Lasting(io.TextIOWrapper):
    """A standard stream that drops everything from the first failed write on; then `lost` is True."""

    lost = False

    def write(self, text: str) -> int:
        """Write a text, if there is a reader."""
        try:
            return super().write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Flush the stream, if there is a reader."""
        try:
            super().flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self.lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # for the content of buffers too
        os.close(nowhere)


def keep_going() -> None:
    """Let this process continue when its standard streams are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            lasting = Lasting(
                stream.detach(), stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through
            )
            setattr(sys, name, lasting)
            setattr(sys, f"__{name}__", lasting)


def columns(stream: Any) -> int | None:
    """Return how wide a stream is shown: COLUMNS, or the width of its terminal; None if nothing says so."""
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given):
        return int(given)
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrap(text: str, stream: Any) -> str:
    """Break the lines of a text between words at the width of a stream, if that is known."""
    width = columns(stream)
    if width is None:
        return text
    fill = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    return "\n".join(fill.fill(line) for line in text.split("\n"))


def is_lost() -> bool:
    """Return whether standard output was closed."""
    return getattr(sys.stdout, "lost", False)
