"""Copies to the device of the networks that do not wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.common.imports import torch

if TYPE_CHECKING:
    import numpy as np


def upload(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return values on a device, as they are if they are there already, without waiting for what it has to do.

    Memory that is not pinned may change afterwards, because CUDA reads it before it returns.
    """
    return torch.as_tensor(values).to(device, non_blocking=True)
