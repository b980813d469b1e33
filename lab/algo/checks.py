"""What mode=dev checks in every learning step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.lazy import torch

if TYPE_CHECKING:
    from lab.net.network import Parameters

RATIO_TOLERANCE = 1e-4  # rounding between a probability computed for one step and for a batch


def check_gradients(parameters: Parameters) -> None:
    """Raise LabError if a gradient is not finite, naming the parameter."""
    for index in range(len(parameters.values)):
        for name, gradient in parameters.session_gradients(index).items():
            if not torch.isfinite(gradient).all():
                raise LabError(f"mode=dev: the gradient of {name} is not finite in Session {index} of the stack.")


def check_moved(parameters: Parameters, before: torch.Tensor, active: torch.Tensor) -> None:
    """Raise LabError if a learning step left a whole parameter of an active Session as it was `before` [S, P]."""
    after = parameters.values.clone()
    for index in (active[:, 0] > 0).nonzero().flatten().tolist():
        parameters.values.copy_(before)
        old = parameters.session(index)
        parameters.values.copy_(after)
        for name, value in parameters.session(index).items():
            if torch.equal(value, old[name]):
                raise LabError(f"mode=dev: a learning step left {name} as it was in Session {index} of the stack.")


def check_first_ratio(ratio: torch.Tensor) -> None:
    """Raise LabError unless the first probability ratios [S, B] of an update, before any step, are 1."""
    off = float((ratio.detach() - 1).abs().max())
    if not off <= RATIO_TOLERANCE:
        raise LabError(f"mode=dev: the first probability ratio differs from 1 by {off:.2g}.")
