"""Schedules of hyperparameters over a Session's frames."""

import math
from typing import Any

from lab.lazy import torch

NAMES = ("constant", "linear", "exponential", "cosine")


def scheduled(name: str, start: Any, final: Any, progress: float) -> Any:
    """Return the value of a hyperparameter part of the way through a Session.

    Args:
        name: one of NAMES. An exponential schedule needs a start and a final value above 0.
        start: value at the beginning, a number or a vector over the session axis.
        final: value at the end.
        progress: share of the Session's frames that are done, 0 to 1.
    """
    if name == "linear":
        return start + (final - start) * progress
    if name == "cosine":
        return final + (start - final) * (0.5 * (1 + math.cos(math.pi * progress)))
    if name == "exponential":
        if not isinstance(start, torch.Tensor):
            return start ** (1 - progress) * final**progress
        # One number after the other: pow() rounds differently at the end of a long stack than inside it (law 1).
        pairs = zip(start.flatten().tolist(), final.flatten().tolist(), strict=True)
        return start.new_tensor([first ** (1 - progress) * last**progress for first, last in pairs]).view(start.shape)
    return start
