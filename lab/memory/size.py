"""How large a memory is, and whether it fits."""

from __future__ import annotations

from pathlib import Path

from lab.common.imports import torch
from lab.common.text import format_bytes
from lab.errors import LabError


def refuse_if_too_large(size: int, device: torch.device, asked: str, advice: str) -> None:
    """Raise LabError if so many bytes are not free on a device.

    Args:
        size: bytes.
        device: where they are to be.
        asked: the key and the value that need them.
        advice: what to do instead.
    """
    if device.type == "cuda":
        free, place = torch.cuda.mem_get_info(device)[0], f"free on {device}"
    else:
        free, place = free_memory(), "free on this machine"
    if size > free:
        raise LabError(
            f"{asked} needs {format_bytes(size)} for observations, actions and rewards, and {format_bytes(free)}"
            f" are {place}: {advice}."
        )


def free_memory() -> int:
    """Return how many bytes this machine, or the control group that the process is in, has left."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines() if ":" in line)
        limits.append(int(lines["MemAvailable"].split()[0]) * 1024)
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        limits.append(int(limit.read_text()) - int(used.read_text()))
    return min(limits, default=2**63)
