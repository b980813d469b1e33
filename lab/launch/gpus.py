"""GPUs of this machine, leased to jobs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pynvml

from lab.errors import LabError

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 5.0  # between two readings of the memory of GPUs that had too little


class GpuPool:
    """Leases GPUs, named as in CUDA_VISIBLE_DEVICES, to `per_gpu` jobs each, once `memory` MiB of them are free."""

    def __init__(self, names: Sequence[str], per_gpu: int = 1, memory: int | None = None) -> None:
        self.names, self.per_gpu, self.memory = list(names), per_gpu, memory
        self._leases = dict.fromkeys(self.names, 0)
        self._changed = threading.Condition()

    @property
    def slots(self) -> int:
        """Number of jobs that have a GPU at the same time."""
        return len(self.names) * self.per_gpu

    @contextmanager
    def lease(self) -> Iterator[str]:
        """Wait for a GPU and yield its name: the one with the fewest jobs, among those that can take another.

        Raises:
            LabError: no GPU has enough free memory, and no job here could free some.
        """
        with self._changed:
            while (name := self._find()) is None:
                self._changed.wait(POLL_SECONDS if self.memory else None)
            self._leases[name] += 1
        try:
            yield name
        finally:
            with self._changed:
                self._leases[name] -= 1
                self._changed.notify()

    def _find(self) -> str | None:
        names = [name for name in self.names if self._leases[name] < self.per_gpu]
        if self.memory and names:
            free = {name: free_memory(name) for name in names}
            names = [name for name in names if free[name] >= self.memory]
            if not names and not any(self._leases.values()):
                memories = ", ".join(f"{name}: {memory:,} MiB" for name, memory in free.items())
                raise LabError(
                    f"hydra.launcher.gpu_memory={self.memory} asks for more memory than any GPU has free ({memories})."
                )
        return min(names, key=lambda name: self._leases[name], default=None)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use: those in CUDA_VISIBLE_DEVICES, or else all of the machine."""
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return [name for name in names if name and name != "-1"]
    try:
        pynvml.nvmlInit()
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:  # no driver
        return []


def free_memory(name: str) -> int:
    """Return the free memory in MiB of a GPU, named by its number or its UUID.

    Raises:
        LabError: the driver does not know it.
    """
    try:
        pynvml.nvmlInit()
        find = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
        return int(pynvml.nvmlDeviceGetMemoryInfo(find(int(name) if name.isdigit() else name)).free) >> 20
    except pynvml.NVMLError as error:
        raise LabError(
            f"hydra.launcher.gpu_memory cannot be checked: the free memory of {name} is unknown: {error}."
        ) from error
