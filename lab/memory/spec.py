"""The settings of a replay memory."""

from __future__ import annotations

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

FLOAT16_MAX = 65504.0  # the largest number of half precision
CGROUP = Path("/sys/fs/cgroup")
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


def require_memory(size: int, device: torch.device, setting: str, advice: str) -> None:
    """Raise LabError if `size` bytes, which a setting asks for, are not free on a device."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else free_memory()
    if size > free:
        raise LabError(
            f"{setting} needs {format_bytes(size)} for observations, actions and rewards, and {format_bytes(free)} are"
            f" free on {device if on_gpu else 'this machine'}: {advice}."
        )


def free_memory() -> int:
    """Return the bytes of memory that this process can still use, on its machine and in its control group."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():  # "max" is no limit
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
