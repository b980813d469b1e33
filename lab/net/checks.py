"""What mode=dev checks in every learning step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.common.imports import torch

if TYPE_CHECKING:
    from lab.net.network import Parameters

RATIO_TOLERANCE = 1e-4  # rounding between a probability computed for one step and for a batch


def step_problems(parameters: Parameters, before: torch.Tensor, mask: torch.Tensor) -> dict[int, str]:
    """Return a message for each Session whose step from `before` [S, P] left a parameter unchanged or met NaN."""
    after = parameters.values.clone()
    problems: dict[int, str] = {}
    for index in _indices(mask):
        parameters.values.copy_(before)
        old = parameters.session(index)
        parameters.values.copy_(after)
        for name, value in parameters.named.items():
            if torch.equal(value[index].cpu(), old[name]):
                problems.setdefault(index, f"mode=dev: a learning step left {name} unchanged.")
        for name, gradient in parameters.session_gradients(index).items():
            if not torch.isfinite(gradient).all():
                problems[index] = f"mode=dev: the gradient of {name} is not finite."
                break
    return problems


def ratio_problems(ratio: torch.Tensor, mask: torch.Tensor) -> dict[int, str]:
    """Return a message for each Session whose first probability ratios [S, B] of an update are not all 1."""
    problems = {}
    for index in _indices(mask):
        off = float((ratio[index].detach() - 1).abs().max())
        if not off <= RATIO_TOLERANCE:
            problems[index] = f"mode=dev: the first probability ratio differs from 1 by {off:.2g}."
    return problems


def _indices(mask: torch.Tensor) -> list[int]:
    indices: list[int] = (mask[:, 0] > 0).nonzero().flatten().tolist()
    return indices
