"""GPUs of this machine, leased to jobs."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.errors import LabError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"  # PCI_BUS_ID numbers GPUs as the driver's own tool does
LOOK_SECONDS = 5.0  # between two looks at the memory of GPUs that had too little


class Gpus:
    """Leases GPUs, each to a number of jobs at the same time, evenly.

    Attributes:
        names: of the GPUs, as CUDA_VISIBLE_DEVICES takes them.
        per_gpu: jobs that share one.
        memory: MiB that must be free on a GPU before a job gets it; null if that is not asked.
    """

    def __init__(self, names: Sequence[str], per_gpu: int = 1, memory: int | None = None) -> None:
        self.names, self.per_gpu, self.memory = list(names), per_gpu, memory
        self._leases = dict.fromkeys(self.names, 0)
        self._changed = threading.Condition()

    @property
    def room(self) -> int:
        """Jobs that have a GPU at the same time."""
        return len(self.names) * self.per_gpu

    @contextmanager
    def leased(self) -> Iterator[str]:
        """Wait for a GPU and lease it: of those with room for a job, the one that has the fewest.

        Raises:
            LabError: no GPU has enough free memory, and there is no job here that could free some.
        """
        with self._changed:
            while (name := self._find()) is None:
                self._changed.wait(LOOK_SECONDS if self.memory else None)
            self._leases[name] += 1
        try:
            yield name
        finally:
            with self._changed:
                self._leases[name] -= 1
                self._changed.notify()

    def _find(self) -> str | None:
        open_ones = [name for name in self.names if self._leases[name] < self.per_gpu]
        if self.memory and open_ones:
            free = free_memory()
            unknown = [name for name in open_ones if name not in free]
            if unknown:
                raise LabError(
                    f"hydra.launcher.gpu_memory={self.memory} cannot be asked of {', '.join(unknown)}: nvidia-smi does"
                    " not tell of it."
                )
            enough = [name for name in open_ones if free[name] >= self.memory]
            if not enough and not any(self._leases.values()):
                found = ", ".join(f"{name}: {free[name]:,} MiB" for name in open_ones)
                raise LabError(
                    f"hydra.launcher.gpu_memory={self.memory} asks for more memory than any GPU has free ({found})."
                )
            open_ones = enough
        return min(open_ones, key=lambda name: self._leases[name], default=None)


def visible() -> list[str]:
    """Return the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or else all of the machine."""
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return [name for name in names if name and name != "-1"]
    return [name for name in free_memory() if name.isdigit()]


def free_memory() -> dict[str, int]:
    """Return the free memory in MiB of every GPU, by its number and by its UUID; nothing without NVIDIA's driver."""
    query = ["nvidia-smi", "--query-gpu=index,memory.free,uuid", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [[cell.strip() for cell in line.split(",")] for line in found.splitlines()]
    return {name: int(row[1]) for row in rows if row[1].isdigit() for name in (row[0], row[2])}
