"""Copies to the device of the networks that do not wait for it."""

from __future__ import annotations

import numpy as np

from lab.common.imports import torch


def upload(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return values on a device, as they are if they are there already, without waiting for what it has to do.

    Memory that is not pinned may change afterwards, because CUDA reads it before it returns.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor if tensor.device == device else tensor.to(device, non_blocking=True)
