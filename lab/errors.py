"""Errors that are sentences: what was wrong, the value, what is allowed, and which key or file."""

import re
import signal
import sys
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from lab.common.text import format_value

# What may steer a terminal or make a text look like another: control characters but for tab and newline, Unicode's
# changes of the writing direction, and bytes of a file name that are no text.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class LabError(Exception):
    """A mistake that its reader can mend; shown as its message alone, without a traceback."""


def explain_error(error: BaseException) -> str:
    """Return the sentence of a LabError, or the traceback of any other error."""
    return str(error) if isinstance(error, LabError) else "".join(traceback.format_exception(error))


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of the allowed words, or nothing if none is near."""
    near = get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def visible(text: object) -> str:
    r"""Return a text as it may be shown on a terminal: control characters are written as escapes, as in \x1b.

    Everything that is printed goes through this, as names, values and errors may come from a stranger's files.
    """
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def require(holds: bool, key: str, value: Any, allowed: str) -> None:
    """Raise LabError unless the value of a config key is an allowed one.

    Args:
        holds: whether the value is allowed.
        key: the full name of the key, as typed on the command line.
        value: what it was set to.
        allowed: what it may be, to follow the words "must be".
    """
    if not holds:
        raise LabError(f"{key}={format_value(value)} is not allowed: {key} must be {allowed}.")


def require_one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    """Raise LabError unless the value of a config key is one of a few words."""
    words = sorted(allowed)
    if value not in words:
        raise LabError(
            f"{key}={value} is not allowed: {key} must be one of {', '.join(words)}.{did_you_mean(value, words)}"
        )


def print_error(error: BaseException, place: object = "a file") -> int:
    """Print an expected error as a sentence and return the exit status that goes with it.

    Args:
        error: LabError, MemoryError, OSError or KeyboardInterrupt.
        place: what could not be written, where the error does not say.
    """
    status = {LabError: 2, MemoryError: 2, OSError: 1, KeyboardInterrupt: 130}
    sentence = f"Error: {error}"
    if isinstance(error, KeyboardInterrupt):
        sentence = "\nInterrupted."
    elif isinstance(error, MemoryError):
        sentence = f"Error: there is not enough memory for this spec: {error}."
    elif isinstance(error, OSError):
        sentence = f"Error: {error.filename or place} cannot be written: {error.strerror or error}."
    print(visible(sentence), file=sys.stderr)
    return next(code for kind, code in status.items() if isinstance(error, kind))


def describe_exit(code: int | None) -> str:
    """Say how a process ended, to follow its name: "ended with exit code 3", "was killed by SIGKILL, ..."."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    causes = {"SIGKILL": ", as when memory runs out", "SIGSEGV": ", a fault in compiled code"}
    return f"was killed by {name}{causes.get(name, '')}"


_said: set[str] = set()  # by this process


def warn_once(sentence: str) -> None:
    """Print on the terminal what went wrong without stopping anything, unless this process has said so already."""
    if sentence not in _said:
        _said.add(sentence)
        print(visible(f"Note: {sentence}"), file=sys.stderr)
