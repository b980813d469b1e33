"""Work in a child process, so that this process learns how it ended, whatever an environment did to it."""

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
from functools import partial
from typing import Any

from lab.common import signals
from lab.common.signals import SIGNALS, Requests
from lab.errors import error_listeners, print_error, print_to_stderr

END_SECONDS = 10.0  # for the child to end once it has sent its exit status
FORWARD_SECONDS = 0.1  # after which a Ctrl-C that the child did not receive itself is forwarded to it
MAX_INTERRUPTS = 3  # Ctrl-Cs after which the child is killed
PR_SET_PDEATHSIG = 1

CALLER = "LAB_CALLER"  # variable of the environment: the Python process that waits for this command, and its pipe

_pipe: int | None = None  # to the supervisor of this process
_caller: int | None = None  # pipe to the Python process that started the command line


class UnexpectedExitError(Exception):
    """The child ended without sending an exit status.

    Attributes:
        pid: the process number of the child.
        start: when it started, in seconds since the epoch.
        code: its exit code; negative for the signal that killed it.
        messages: what it sent by `notify_supervisor`, by kind.
    """

    def __init__(self, pid: int, start: float, code: int, messages: dict[str, list[Any]]) -> None:
        super().__init__(code)
        self.pid, self.start, self.code, self.messages = pid, start, code, messages


def notify_supervisor(kind: str, content: Any) -> None:
    """Send what the supervisor, if there is one, needs if this process ends unexpectedly, and so does the caller."""
    for pipe in (_pipe, _caller):
        if pipe is not None:
            with suppress(OSError):
                os.write(pipe, json.dumps([kind, content]).encode() + b"\n")


def connect_to_caller() -> None:
    """Tell the Python process that started the command line, if one did, of directories and errors; end with it."""
    global _caller
    text = os.environ.pop(CALLER, "")
    if text:
        pid, _caller = map(int, text.split())
        os.set_inheritable(_caller, False)
        error_listeners.append(partial(notify_supervisor, "error"))
        _end_with(pid, signal.SIGTERM)


def has_caller() -> bool:
    """Return whether a Python process started the command line, by `lab.train`."""
    return _caller is not None


def exit_at_once(status: int) -> None:
    """End this process without waiting for threads or exit handlers."""
    notify_supervisor("status", status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def supervise(work: Callable[[], int]) -> int:
    """Run `work` in a child process and return its exit status.

    Requests to stop reach the work, whether they are sent to this process, to the child or to both. Under a profiler or
    a debugger, the work runs in this process.

    Raises:
        UnexpectedExitError: the child ended before `work` returned.
        KeyboardInterrupt: the child was killed, as it did not end when it was asked to.
    """
    if sys.gettrace() or sys.getprofile() or threading.current_thread() is not threading.main_thread():
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    handled, parent = mmap.mmap(-1, signal.NSIG), os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until both processes have their handlers
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(work, writer, handled, parent)
    os.close(writer)
    return _Supervisor(child, reader, handled).wait()


def _run_child(work: Callable[[], int], writer: int, handled: mmap.mmap, parent: int) -> None:
    global _pipe
    status = 1
    try:
        _pipe, signals.handled = writer, handled
        _end_with(parent)
        sys.unraisablehook = _print_in_a_line
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
        notify_supervisor("status", status)
        with suppress(BaseException):
            atexit._run_exitfuncs()
        exit_at_once(status)


def _end_with(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends."""
    with suppress(AttributeError, OSError):  # prctl exists on Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def _print_in_a_line(problem: Any) -> None:
    """Print what a destructor or an exit handler raised, in one line."""
    if not issubclass(problem.exc_type, KeyboardInterrupt):
        where = getattr(problem.object, "__qualname__", None) or type(problem.object).__name__
        text = f"Ignored: {where} raised {problem.exc_type.__name__}: {problem.exc_value}"
        print_to_stderr(text.rstrip(": "))


class _Supervisor:
    """Waits for a child, and forwards to it the signals that this process receives."""

    def __init__(self, child: int, reader: int, handled: mmap.mmap) -> None:
        self.child, self.reader, self.handled = child, reader, handled
        self.start, self.buffer = time.time(), b""
        self.messages: dict[str, list[Any]] = {}
        self.interrupts = self.forwarded = 0
        self.forward_at = self.kill_at = float("inf")  # on the monotonic clock
        self.killed = False

    def wait(self) -> int:
        wake, woken = os.pipe()  # a signal writes its number there
        for end in (wake, woken, self.reader):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (*SIGNALS, signal.SIGCHLD):
            if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN):  # nohup
                signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        listening = [wake, self.reader]
        while True:
            ended, code = os.waitpid(self.child, os.WNOHANG)
            if ended:
                break
            deadline = min(self.forward_at, self.kill_at) - time.monotonic()
            ready, _, _ = select.select(listening, [], [], None if deadline == float("inf") else max(0.0, deadline))
            if self.reader in ready and not self._read():
                listening = [wake]
            for received in os.read(wake, 4096) if wake in ready else b"":
                self._receive(received)
            self._forward_or_kill(time.monotonic())
        while self._read():
            pass
        signal.set_wakeup_fd(-1)
        if "status" in self.messages:
            return int(self.messages["status"][-1])
        if self.killed:
            raise KeyboardInterrupt
        raise UnexpectedExitError(self.child, self.start, os.waitstatus_to_exitcode(code), self.messages)

    def _read(self) -> bool:
        """Read messages of the child; False if there are none."""
        try:
            content = os.read(self.reader, 65536)
        except BlockingIOError:
            return False
        *lines, self.buffer = (self.buffer + content).split(b"\n")
        for kind, message in map(json.loads, lines):
            self.messages.setdefault(kind, []).append(message)
        if "status" in self.messages:
            self.kill_at = min(self.kill_at, time.monotonic() + END_SECONDS)
        return bool(content)

    def _receive(self, number: int) -> None:
        """Forward a signal; Ctrl-C only if the child did not receive it as well, as from a terminal."""
        if number == signal.SIGINT:
            self.interrupts += 1
            self.forward_at = time.monotonic() + FORWARD_SECONDS
        elif number != signal.SIGCHLD:
            os.kill(self.child, number)

    def _forward_or_kill(self, now: float) -> None:
        if now >= self.forward_at:
            self.forward_at = float("inf")
            if max(self.handled[signal.SIGINT], self.forwarded) < self.interrupts:
                self.forwarded += 1
                self.forward_at = now + FORWARD_SECONDS
                os.kill(self.child, signal.SIGINT)
        if self.interrupts >= MAX_INTERRUPTS or now >= self.kill_at:
            self.killed = True
            os.kill(self.child, signal.SIGKILL)
