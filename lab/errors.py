"""Errors as sentences: which key or file, the value, and what is allowed."""

import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from lab.common.output import wrap
from lab.common.text import format_value

# May control a terminal or disguise a text: control characters except tab and newline, Unicode's changes of the writing
# direction, and undecodable bytes of file names.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

error_listeners: list[Callable[[str], None]] = []  # are told what `print_error` would print


class LabError(Exception):
    """A mistake that its reader can fix; shown as its message, without a traceback."""


def explain_error(error: BaseException) -> str:
    """Return the sentence of a LabError, or the traceback of any other error."""
    return str(error) if isinstance(error, LabError) else "".join(traceback.format_exception(error))


def plain_numbers(text: str) -> str:
    """Return a text with numbers as 1.5 where it has numpy's, as np.float32(1.5)."""
    return re.sub(r"\bnp\.(?:(?:u?int|float|bool|longdouble)\w*\(([^()]*)\)|(True|False)_)", r"\1\2", text)


def to_sentence(error: BaseException) -> str:
    """Return an error's message as one sentence."""
    text = plain_numbers(" ".join(str(error).replace("`", "'").split())) or type(error).__name__
    return text if text.endswith((".", "?", "!")) else f"{text}."


def did_you_mean(word: str, allowed: Iterable[str], cutoff: float = 0.5) -> str:
    """Return " Did you mean 'x'?" for the nearest allowed name, or an empty string if none is near.

    Two names are near if their similarity, from 0 to 1, is `cutoff` or more.
    """
    near = get_close_matches(word, list(allowed), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""


def visible(text: object, stream: Any = None) -> str:
    r"""Escape control characters, for example as \x1b, so that a text is safe to print.

    Everything that is printed goes through this: names, values and errors may come from a stranger's files. With a
    stream, lines are broken between words at its width, if that is known.
    """
    text = UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))
    return wrap(text, stream) if stream else text


def print_to_stderr(text: object) -> None:
    """Print a text on standard error, in lines that fit the terminal."""
    print(visible(text, sys.stderr), file=sys.stderr)


def require(holds: bool, key: str, value: Any, allowed: str) -> None:
    """Raise LabError unless the value of a config key is an allowed one.

    Args:
        holds: whether the value is allowed.
        key: the full name of the key, as typed on the command line.
        value: what it was set to.
        allowed: what it may be, to follow "must be".
    """
    if not holds:
        raise LabError(f"{key}={format_value(value)} is not allowed: {key} must be {allowed}.")


def require_one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    """Raise LabError unless the value of a config key is an allowed name."""
    choices = sorted(allowed)
    if value not in choices:
        raise LabError(
            f"{key}={value} is not allowed: {key} must be one of {', '.join(choices)}.{did_you_mean(value, choices)}"
        )


def print_error(error: BaseException, place: object = "a file") -> int:
    """Print an expected error as a sentence and return its exit status.

    Args:
        error: LabError, MemoryError, OSError or KeyboardInterrupt.
        place: what could not be written, if the error does not say.
    """
    status = {LabError: 2, MemoryError: 2, OSError: 1, KeyboardInterrupt: 130}
    sentence = f"Error: {error}"
    if isinstance(error, KeyboardInterrupt):
        sentence = "\nInterrupted."
    elif isinstance(error, MemoryError):
        sentence = f"Error: there is not enough memory for this spec: {error}."
    elif isinstance(error, OSError):
        sentence = f"Error: {error.filename or place} cannot be written: {error.strerror or error}."
    if not error_listeners:
        print_to_stderr(sentence)
    for listener in error_listeners:
        listener(sentence.strip().removeprefix("Error: "))
    return next(code for kind, code in status.items() if isinstance(error, kind))


def summary(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, without a period."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def describe_exit(code: int | None) -> str:
    """Return how a process ended, to follow its name: "ended with exit code 3", "was killed by SIGKILL, ..."."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    causes = {"SIGKILL": ", as when memory runs out", "SIGSEGV": ", a fault in compiled code"}
    return f"was killed by {name}{causes.get(name, '')}"


_warned: set[str] = set()  # by this process


def warn_once(sentence: str) -> None:
    """Print a problem that stops nothing, once in this process."""
    if sentence not in _warned:
        _warned.add(sentence)
        print_to_stderr(f"Note: {sentence}")
