"""Processes of this machine: a pool that runs them in slots, and how they are forked, killed and tied to each other."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from typing import Generic, Protocol, TypeVar

from lab.launch.gpus import VISIBLE, GpuPool

PATIENCE = 30.0  # seconds that a process has to end after it was asked to, or after it returned its result

T = TypeVar("T")
Result = TypeVar("Result", covariant=True)


class Process(Protocol[Result]):
    """A process that leads a process group, such as a `subprocess.Popen` with `start_new_session`."""

    @property
    def pid(self) -> int | None:
        """The number of the process."""

    def wait(self) -> Result:
        """Wait for the process to end, and return its exit code or result."""


class ProcessPool(Generic[T]):
    """Runs processes in slots, first come, first served; nothing is left of a process group when its leader ends."""

    def __init__(self, slots: int, gpus: GpuPool | None = None) -> None:
        self._gpus = gpus
        self._threads = ThreadPoolExecutor(slots, "processes")
        self._running: dict[Hashable, Process[T]] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def submit(self, key: Hashable, start: Callable[[dict[str, str]], Process[T]]) -> Future[T]:
        """Start a process once there is a slot for it, and a GPU if this pool has some.

        Args:
            key: identifies the process in `kill`.
            start: starts it; gets variables to add to its environment.
        """
        return self._threads.submit(self._run, key, start)

    def kill(self, key: Hashable | None = None) -> None:
        """Kill a process and its group, or all of them."""
        for other, process in list(self._running.items()):
            if key in (None, other):
                kill_group(process.pid)

    def stop(self, number: signal.Signals = signal.SIGTERM, wait: bool = False) -> None:
        """Cancel what waits, send a signal to what runs, and wait for its end if asked to."""
        with self._lock:
            self._stopped = True
            for process in self._running.values():
                if process.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, number)
        self._threads.shutdown(wait, cancel_futures=True)

    def _run(self, key: Hashable, start: Callable[[dict[str, str]], Process[T]]) -> T:
        with self._gpus.lease() if self._gpus else nullcontext() as gpu:
            environment = {VISIBLE: gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpu else {}  # as NVML numbers them
            with self._lock:
                if self._stopped:
                    raise CancelledError
                process = self._running[key] = start(environment)
            try:
                return process.wait()
            finally:
                kill_group(process.pid)  # what a job that was killed alone has left running
                with self._lock:
                    del self._running[key]


def kill_group(pid: int | None) -> None:
    """Kill a process that leads a process group, and the group."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def fork_server() -> ForkServerContext:
    """Return the context whose processes are forked from one that has imported what every job needs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["lab.launch.preload"])
    return context


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let processes that are started meanwhile ignore Ctrl-C for good: the sweep asks them to end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process when the one that started it ends: by SIGTERM first, and by SIGKILL if that does not help."""
    parent = parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        if os.getpgid(0) == os.getpid():
            kill_group(os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
