"""What mode=dev checks in every learning step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.common.imports import torch

if TYPE_CHECKING:
    from lab.net.network import Parameters

RATIO_TOLERANCE = 1e-4  # rounding between a probability computed for one step and for a batch


def gradient_problems(parameters: Parameters, mask: torch.Tensor) -> dict[int, str]:
    """Return a message for each Session that has a gradient which is not finite."""
    problems = {}
    for index in learning(mask):
        for name, gradient in parameters.session_gradients(index).items():
            if index not in problems and not torch.isfinite(gradient).all():
                problems[index] = f"mode=dev: the gradient of {name} is not finite."
    return problems


def step_problems(parameters: Parameters, before: torch.Tensor, mask: torch.Tensor) -> dict[int, str]:
    """Return a message for each Session in which a step left a whole parameter as it was `before`, [S, P]."""
    after = parameters.values.clone()
    problems = {}
    for index in learning(mask):
        parameters.values.copy_(before)
        old = parameters.session(index)
        parameters.values.copy_(after)
        for name, value in parameters.named.items():  # what else a network remembers, no step changes
            if index not in problems and torch.equal(value[index].cpu(), old[name]):
                problems[index] = f"mode=dev: a learning step left {name} as it was."
    return problems


def ratio_problems(ratio: torch.Tensor, mask: torch.Tensor) -> dict[int, str]:
    """Return a message for each Session whose first probability ratios [S, B] of an update are not all 1."""
    problems = {}
    for index in learning(mask):
        off = float((ratio[index].detach() - 1).abs().max())
        if not off <= RATIO_TOLERANCE:
            problems[index] = f"mode=dev: the first probability ratio differs from 1 by {off:.2g}."
    return problems


def learning(mask: torch.Tensor) -> list[int]:
    """Return the indices of Sessions that take part, of [S, 1]."""
    indices: list[int] = (mask[:, 0] > 0).nonzero().flatten().tolist()
    return indices
