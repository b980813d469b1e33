"""Signals that ask a Session to stop: it ends without losing what it has."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

ALWAYS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALS = (*ALWAYS, signal.SIGUSR1, signal.SIGUSR2)

handled: Any = None  # how often each signal arrived, shared with the process that supervises this one
_current: list[Requests] = []  # those whose handlers are set, the innermost last


class Requests:
    """Requests to stop that arrive as signals; calling it returns whether there was one.

    Attributes:
        at_once: whether the first one raises KeyboardInterrupt, because there is nothing to lose yet.
        held: whether none raises it.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once, self.held = at_once, False
        self._received: list[int] = []
        self._previous: dict[Any, Any] = {}

    def __call__(self) -> bool:
        """Return whether this process was asked to stop."""
        return bool(self._received)

    def set(self) -> None:
        """Handle the signals."""
        with suppress(ValueError):  # not in the main thread, where signals do not arrive anyway
            for number in SIGNALS:
                before = signal.getsignal(number)
                expected = number in ALWAYS or callable(before)
                if expected and not (number == signal.SIGHUP and before == signal.SIG_IGN):  # nohup
                    self._previous[number] = signal.signal(number, self._handle)
            _current.append(self)

    def reset(self) -> None:
        """Restore the previous handlers, and send them the signals that arrived."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous:
            _current.remove(self)
        for number in dict.fromkeys(self._received):
            handler = self._previous[number]
            ours = isinstance(getattr(handler, "__self__", None), Requests)
            if callable(handler) and not ours and handler is not signal.default_int_handler:
                signal.raise_signal(signal.Signals(number))

    def keep(self) -> bool:
        """Handle the signals again if other handlers replaced these; return whether that was so."""
        changed = [number for number in self._previous if signal.getsignal(number) != self._handle]
        for number in changed:
            signal.signal(number, self._handle)
        return bool(changed)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if handled is not None:
            handled[number] = (handled[number] + 1) % 256
        first = len(self._received) == 1  # several at the same time are no more urgent than one
        if self.held:
            return
        if (self.at_once and first) or (number == signal.SIGINT and self._received.count(number) > 1):
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Requests]:
    """Let Ctrl-C and other requests to stop end training after the current interval, and a second one immediately.

    Afterwards the signals are passed on to the previous handlers, such as submitit's for preemption by SLURM.
    """
    requests = Requests()
    requests.set()
    try:
        yield requests
    finally:
        requests.reset()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep requests to stop from interrupting what is written meanwhile."""
    requests = list(_current)
    for one in requests:
        one.held = True
    try:
        yield
    finally:
        for one in requests:
            one.held = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first request to stop raise KeyboardInterrupt meanwhile, also one that arrived before."""
    before = [(requests, requests.at_once) for requests in _current]
    for requests, _ in before:
        requests.at_once = True
    try:
        if was_asked_to_stop():
            raise KeyboardInterrupt
        yield
    finally:
        for requests, at_once in before:
            requests.at_once = at_once


def ignore_requests() -> None:
    """Ignore requests to stop in a forked process: its parent receives them too."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _current[:] = [Requests()]  # that never receives one


def requested() -> bool:
    """Return whether a KeyboardInterrupt may come from outside: a request arrived, or no handler would know of it."""
    return not _current or any(requests() for requests in _current)


def was_asked_to_stop() -> bool:
    """Return whether a request to stop arrived that ends this process at once."""
    return any(requests() and requests.at_once for requests in _current)


def keep_handlers() -> bool:
    """Set the handlers of requests to stop again if they were replaced; return whether that was so."""
    try:
        return bool(_current) and _current[-1].keep()
    except ValueError:  # not in the main thread
        return False
