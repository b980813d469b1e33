"""The settings of a replay memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from lab.common.imports import torch
from lab.common.text import format_bytes
from lab.common.validation import Count, Scalar
from lab.errors import LabError

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.env.spaces import Spaces

FLOAT16_MAX = 65504.0  # the largest number of half precision
CGROUP = Path("/sys/fs/cgroup")
GPU_SHARE = 0.8  # of a GPU's free memory; the rest is for learning
UNBOUNDED = 1e38  # bounds from here on are those of a type, not of an observation


@dataclass
class ReplaySpec:
    """Settings of a replay memory, which conf/algo/dqn.yaml explains.

    `combined`: Zhang & Sutton 2017; priorities: Schaul et al. 2016.
    """

    size: Count
    dtype: Literal["float32", "float16"]
    combined: bool
    prioritized: bool
    alpha: Annotated[Scalar, Ge(0), Le(1)]
    beta: Annotated[Scalar, Ge(0), Le(1)]
    beta_final: Annotated[Scalar, Ge(0), Le(1)]
    eps: Annotated[Scalar, Gt(0)]

    def estimate_bytes(self, spaces: Spaces) -> int:
        """Return about how many bytes a Session's memory takes: observations, and some 64 bytes a step for the rest."""
        box = spaces.observation
        number = 1 if box.dtype == np.uint8 else np.dtype(self.dtype).itemsize
        return self.size * (number * math.prod(box.shape) // spaces.frame_stack + 64)

    def check_observations(self, key: str, observations: Box, env: str) -> None:
        """Raise LabError for observations that `dtype` cannot hold; `key` is the name of the group."""
        if self.dtype != "float16" or observations.dtype == np.uint8:
            return
        bounds = np.abs(np.stack([observations.low, observations.high]).astype(np.float64))
        most = bounds[bounds < UNBOUNDED].max(initial=0.0)
        if most > FLOAT16_MAX:
            raise LabError(
                f"{key}.dtype=float16 is not possible with env.id={env}, whose observations reach {most:,.0f}: half"
                f" precision ends at {FLOAT16_MAX:,.0f}. Use {key}.dtype=float32."
            )


def place(size: int, devices: Sequence[torch.device], setting: str, advice: str) -> torch.device:
    """Return the first of some devices on which `size` bytes are free, or raise LabError; a setting asks for them."""
    for device in devices:
        free = free_memory(device)
        if size <= free:
            return device
    where = "this machine" if device.type == "cpu" else device
    raise LabError(
        f"{setting} needs {format_bytes(size)} for observations, actions and rewards, and {format_bytes(free)} are"
        f" free on {where}: {advice}."
    )


def free_memory(device: torch.device | None = None) -> int:
    """Return the bytes that this process can still use: of a GPU, or of its machine and its control group."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * GPU_SHARE)
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():  # "max" is no limit
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
