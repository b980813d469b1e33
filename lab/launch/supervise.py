"""A process that trains under the eyes of another one, which knows how it ended, whatever an environment did to it."""

from __future__ import annotations

import atexit
import ctypes
import json
import mmap
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lab.common import signals as interruption
from lab.common.signals import SIGNALS, Requests
from lab.errors import print_error, visible

END_SECONDS = 10.0  # that a process may take to end once it has said how it ends
OWN_SECONDS = 0.1  # after which a Ctrl-C that only the supervisor was sent is handed on
PATIENCE = 3  # Ctrl-Cs after which the process is killed
KILL_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG

_pipe: int | None = None  # to the supervisor of this process


class ProcessEndedError(Exception):
    """A supervised process that ended without saying how.

    Attributes:
        pid: its number.
        start: when it began, in seconds since the epoch.
        code: its exit code; negative for the signal that killed it.
        reports: what it told before, by kind.
    """

    def __init__(self, pid: int, start: float, code: int, reports: dict[str, list[Any]]) -> None:
        super().__init__(code)
        self.pid, self.start, self.code, self.reports = pid, start, code, reports


def report(kind: str, content: Any) -> None:
    """Tell the supervisor, if there is one, what it is to know if this process ends without a word."""
    if _pipe is not None:
        with suppress(OSError):
            os.write(_pipe, json.dumps([kind, content]).encode() + b"\n")


def leave(status: int) -> None:
    """End this process at once, with an exit status and without waiting for anything."""
    report("status", status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def supervise(work: Callable[[], int]) -> int:
    """Do work in a child process, and return the exit status that it returned.

    Signals that ask to stop reach the work, be they sent to this process, to the child or to both. A profiler or a
    debugger stays with the work: it is done in this process then.

    Raises:
        ProcessEndedError: the child ended without returning.
        KeyboardInterrupt: it was killed, as it did not end when it was asked to.
    """
    if sys.gettrace() or sys.getprofile() or threading.current_thread() is not threading.main_thread():
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    handled, parent = mmap.mmap(-1, signal.NSIG), os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until it is handled by somebody who knows what to do
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_supervised(work, writer, handled, parent)
    os.close(writer)
    return _Watch(child, reader, handled).wait()


def _be_supervised(work: Callable[[], int], writer: int, handled: mmap.mmap, parent: int) -> None:
    """Do the work in this process, and end it."""
    global _pipe
    status = 1
    try:
        _pipe, interruption.handled = writer, handled
        _die_with(parent)
        sys.unraisablehook = _in_a_line
        Requests(at_once=True).set()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        status = work()
    except KeyboardInterrupt as error:
        status = print_error(error)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        report("status", status)
        with suppress(BaseException):
            atexit._run_exitfuncs()
        leave(status)


def _die_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that ends."""
    try:
        ctypes.CDLL(None).prctl(KILL_WITH_PARENT, signal.SIGKILL)
    except (AttributeError, OSError):  # of Linux alone
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True, name="end with parent").start()
    if os.getppid() != parent:  # it was faster
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _in_a_line(problem: Any) -> None:
    """Say in a line what a destructor, or a function that runs at the end of a process, raised."""
    if not issubclass(problem.exc_type, KeyboardInterrupt):  # a request to stop, which is known
        where = getattr(problem.object, "__qualname__", None) or type(problem.object).__name__
        text = f"Ignored: {where} raised {problem.exc_type.__name__}: {problem.exc_value}"
        print(visible(text.rstrip(": ")), file=sys.stderr)


class _Watch:
    """Waits for a child, and hands on to it the signals that this process is sent."""

    def __init__(self, child: int, reader: int, handled: mmap.mmap) -> None:
        self.child, self.reader, self.handled = child, reader, handled
        self.start = time.time()
        self.received = b""
        self.reports: dict[str, list[Any]] = {}
        self.interrupts = self.passed_on = 0
        self.pass_on_at: float | None = None
        self.kill_at: float | None = None
        self.killed = False

    def wait(self) -> int:
        """Return the exit status that the child told."""
        wake, woken = os.pipe()
        for end in (wake, woken, self.reader):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (*SIGNALS, signal.SIGCHLD):
            if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:  # nohup
                signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        listening = [wake, self.reader]
        while True:
            ended, code = os.waitpid(self.child, os.WNOHANG)
            if ended:
                break
            ready, _, _ = select.select(listening, [], [], self._seconds())
            if self.reader in ready and not self._read():
                listening = [wake]
            for received in os.read(wake, 4096) if wake in ready else b"":
                self._take(received)
            self._act()
        while self._read():
            pass
        signal.set_wakeup_fd(-1)
        if "status" in self.reports:
            return int(self.reports["status"][-1])
        if self.killed:
            raise KeyboardInterrupt
        raise ProcessEndedError(self.child, self.start, os.waitstatus_to_exitcode(code), self.reports)

    def _seconds(self) -> float | None:
        moments = [moment for moment in (self.pass_on_at, self.kill_at) if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _read(self) -> bool:
        """Read what the child tells; false if there is nothing."""
        try:
            content = os.read(self.reader, 65536)
        except BlockingIOError:
            return False
        *lines, self.received = (self.received + content).split(b"\n")
        for kind, told in map(json.loads, lines):
            self.reports.setdefault(kind, []).append(told)
        if "status" in self.reports and self.kill_at is None:
            self.kill_at = time.monotonic() + END_SECONDS
        return bool(content)

    def _take(self, number: int) -> None:
        """Hand on a signal; Ctrl-C only where the child was not sent it as well, as by a terminal."""
        if number == signal.SIGINT:
            self.interrupts += 1
            self.pass_on_at = time.monotonic() + OWN_SECONDS
        elif number != signal.SIGCHLD:
            os.kill(self.child, number)

    def _act(self) -> None:
        now = time.monotonic()
        if self.pass_on_at is not None and now >= self.pass_on_at:
            self.pass_on_at = None
            if max(self.handled[signal.SIGINT], self.passed_on) < self.interrupts:
                self.passed_on += 1
                self.pass_on_at = now + OWN_SECONDS
                os.kill(self.child, signal.SIGINT)
        if self.interrupts >= PATIENCE or (self.kill_at is not None and now >= self.kill_at):
            self.killed = True
            os.kill(self.child, signal.SIGKILL)
