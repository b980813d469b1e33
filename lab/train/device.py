"""Where a Session computes."""

from __future__ import annotations

import torch
from threadpoolctl import ThreadpoolController

from lab.errors import LabError


def prepare(name: str, threads: int) -> torch.device:
    """Set torch up for a process that trains, and return the device that a spec names.

    Raises:
        LabError: there is no such device.
    """
    torch.set_num_threads(threads)
    # Numpy's products are always of one thread: how many there are cores for is not in the spec.
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    # Numbers too small to matter take a hundred times longer than others unless they are rounded to zero.
    torch.set_flush_denormal(True)
    return find_device(name)


def find_device(name: str) -> torch.device:
    """Return the device of a spec; `auto` is a GPU if there is one.

    Raises:
        LabError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise LabError(
                f"device={name} is not there: this machine has {count} CUDA devices for torch. Try device=cpu."
            )
    return device
