"""Ending a Session from outside without losing what it has."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ALWAYS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALS = (*ALWAYS, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and other requests to stop end training after the horizon in progress; a second one ends it at once.

    Once all is written, a signal is handed on to whoever had asked for it before, as one by which SLURM says that a
    task is to make room.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if received.count(signal.SIGINT) > 1:  # others may come together, or twice, without being more urgent
            raise KeyboardInterrupt

    previous: dict[Any, Any] = {}
    try:
        for number in SIGNALS:
            before = signal.getsignal(number)
            expected = number in ALWAYS or callable(before)
            if expected and not (number == signal.SIGHUP and before == signal.SIG_IGN):  # nohup
                previous[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread, where signals do not arrive anyway
        pass
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for taken in dict.fromkeys(received):
            if callable(previous[taken]) and previous[taken] is not signal.default_int_handler:
                signal.raise_signal(signal.Signals(taken))
