"""What is printed where nobody reads any more: a closed pipe or terminal costs what is shown, and no result."""

from __future__ import annotations

import io
import os
import sys


class Lasting(io.TextIOWrapper):
    """A standard stream that drops all that is written from the first time on that this fails.

    Attributes:
        lost: whether it did.
    """

    lost = False

    def write(self, text: str) -> int:
        """Write a text, as far as there is somebody to read it."""
        try:
            return super().write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            super().flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self.lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # what is left in buffers goes there too
        os.close(nowhere)


def keep_going() -> None:
    """Let this process outlive the readers of what it prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            lasting = Lasting(
                stream.detach(), stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through
            )
            setattr(sys, name, lasting)
            setattr(sys, f"__{name}__", lasting)


def is_lost() -> bool:
    """Say whether nobody reads the standard output any more."""
    return getattr(sys.stdout, "lost", False)
