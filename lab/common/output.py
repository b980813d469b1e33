"""Output to a closed pipe or terminal: it is dropped, and the process continues."""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from contextlib import suppress
from typing import Any

JOINT = "\0"  # in no text that is printed, where control characters are escaped
COPIED = re.compile(
    r"`[^`]+`"  # code
    r"|(?<![\w\\])('|\")(?:(?!\1).)+\1(?!\w)"  # a quoted path or value, but no apostrophe
    r"|=(?:\{[^{}]*\}|\[[^\[\]]*\])"  # the value of a key
    r"|\b(?:python -m lab|pip install)\b[^`]*$",  # a command that ends a sentence
)


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
    with suppress(ValueError):
        if (given := int(os.environ.get("COLUMNS", ""))) > 0:
            return given
    with suppress(OSError, ValueError):  # no terminal, no file at all, or a closed one
        return os.get_terminal_size(stream.fileno()).columns or None
    return None


def join_copied(text: str) -> str:
    """Return a text of the same length that has no space where a line must not be broken, but JOINT."""
    return COPIED.sub(lambda match: match[0].replace(" ", JOINT), text)


def wrap(text: str, stream: Any) -> str:
    """Break the lines of a text between words at the width of a stream, if that is known.

    What is copied from a sentence stays on one line: what stands in backquotes or quotes, and a command at the end.
    """
    width = columns(stream)
    if width is None:
        return text
    fill = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    return "\n".join(fill.fill(join_copied(line)).replace(JOINT, " ") for line in text.split("\n"))


def is_lost() -> bool:
    """Return whether standard output was closed."""
    return getattr(sys.stdout, "lost", False)
