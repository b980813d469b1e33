"""A rollout: the steps of one horizon, for learning on policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lab.memory.statistics import Statistics


@dataclass
class Raw:
    """What environments gave in a horizon, before it was normalized.

    Attributes:
        observation: [T + 1, S, E, ...].
        reward: [T, S, E].
        statistics: what both are normalized by after the horizon.
    """

    observation: Tensor
    reward: Tensor
    statistics: Statistics


@dataclass
class Rollout:
    """Steps of a stack, [T, S, E, ...]: time, session, environment.

    Attributes:
        observation: [T + 1, S, E, ...], normalized if the spec asks for it. The one after a step is the one it led to,
            the true last one of an episode included, so that observation[t + 1] is always what to bootstrap from.
        action: [T, S, E, ...] in the policy's own units.
        reward: [T, S, E], normalized if the spec asks for it.
        terminated: [T, S, E], 1 where the episode ended in a state without a future.
        truncated: [T, S, E], 1 where it was cut short, by a time limit for one, in a state with a future.
        valid: [T, S, E], 0 at the step in which an environment was reset, which is never learned from.
        carry: [S, E, K], what agents with a memory of their own carried to the first step.
        raw: the same before it was normalized, for a memory to keep; None if nothing is normalized.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    carry: Tensor
    raw: Raw | None = None

    @property
    def statistics(self) -> Statistics | None:
        """What a memory is to normalize its steps by after this horizon; None if nothing is normalized."""
        return self.raw.statistics if self.raw else None

    @property
    def done(self) -> Tensor:
        """Where an episode ended for either reason, [T, S, E]."""
        return torch.maximum(self.terminated, self.truncated)


def by_session(steps: Tensor) -> Tensor:
    """Lay the steps [T, S, E, ...] of each Session out one after the other: [S, T * E, ...]."""
    return steps.transpose(0, 1).flatten(1, 2).contiguous()


def by_environment(steps: Tensor) -> Tensor:
    """Lay the environments [T, S, E, ...] of each Session out one after the other, each a sequence: [S, E * T, ...]."""
    return steps.movedim(0, 2).flatten(1, 2).contiguous()


def begins(rollout: Rollout) -> Tensor:
    """Return 1 for each state, [T + 1, S, E], that is the first of its episode, 0 for any other.

    The state at the start of the horizon counts as none: what agents carried to it is right as it is.
    """
    return torch.cat([torch.zeros_like(rollout.valid[:1]), 1 - rollout.valid])


def shuffled(samples: dict[str, Tensor], order: Tensor, count: int) -> dict[str, Tensor]:
    """Shuffle samples, or whole sequences of them, into minibatches.

    Args:
        samples: tensors [S, N, ...] by name; N may differ, if each is a multiple of U.
        order: a permutation of U for each Session, [S, U]: of samples, or of sequences of N / U samples.
        count: number of minibatches, which must divide U.

    Returns:
        The same names with tensors [S, count, N / count, ...].
    """
    stack, units = order.shape
    rows = (order + torch.arange(stack, device=order.device).unsqueeze(1) * units).flatten()
    batches = {}
    for name, value in samples.items():
        number, shape = value.shape[1], value.shape[2:]
        flat = value.flatten(0, 1) if number == units else value.view(stack * units, number // units, *shape)
        batches[name] = flat.index_select(0, rows).view(stack, count, number // count, *shape)
    return batches


def dealt(batches: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield minibatches, tensors [S, B, ...] by name, of what `shuffled` returned."""
    parts = {name: value.unbind(1) for name, value in batches.items()}
    for index in range(len(next(iter(parts.values())))):
        yield {name: part[index] for name, part in parts.items()}
