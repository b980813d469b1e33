"""A pool of processes on this machine, for the local launcher and for `rerun`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Generic, Protocol, TypeVar

from lab.launch.gpus import VISIBLE, GpuPool

T = TypeVar("T")
Result = TypeVar("Result", covariant=True)


class Process(Protocol[Result]):
    """A process that leads a process group, such as a `subprocess.Popen` with `start_new_session`."""

    @property
    def pid(self) -> int | None:
        """The number of the process."""

    def wait(self) -> Result:
        """Wait for the process to end, and return its exit code or its result."""


class ProcessPool(Generic[T]):
    """Runs processes in slots, first come, first served; when a process ends, its group is killed.

    Args:
        slots: number of processes at the same time.
        gpus: leases a GPU to each process; None for no GPUs.
    """

    def __init__(self, slots: int, gpus: GpuPool | None = None) -> None:
        self._gpus = gpus
        self._threads = ThreadPoolExecutor(slots, "processes")
        self._running: dict[Hashable, Process[T]] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def submit(self, key: Hashable, start: Callable[[dict[str, str]], Process[T]]) -> Future[T]:
        """Start a process once there is a slot and a GPU for it; the future gives what its `wait` returns.

        Args:
            key: identifies the process for `kill`.
            start: starts it; takes variables to add to its environment.
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
            environment = {VISIBLE: gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpu else {}  # as NVML numbers GPUs
            with self._lock:
                if self._stopped:
                    raise CancelledError
                process = self._running[key] = start(environment)
            try:
                return process.wait()
            finally:
                kill_group(process.pid)  # a killed job may have running children
                with self._lock:
                    del self._running[key]


def kill_group(pid: int | None) -> None:
    """Kill a process that leads a process group, and the group."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
