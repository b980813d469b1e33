"""A rollout: the steps of one horizon, for learning on policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Rollout:
    """Steps of a stack, [T, S, E, ...]: time, session, environment.

    Attributes:
        observation: [T + 1, S, E, D], normalised if the spec asks for it. The one after a step is the one it led to,
            the true last one of an episode included, so that observation[t + 1] is always what to bootstrap from.
        action: [T, S, E, ...] in the policy's own units.
        reward: [T, S, E], normalised if the spec asks for it.
        terminated: [T, S, E], 1 where the episode ended in a state without a future.
        truncated: [T, S, E], 1 where it was cut short, by a time limit for one, in a state with a future.
        valid: [T, S, E], 0 at the step in which an environment was reset, which is never learned from.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor

    @property
    def done(self) -> Tensor:
        """Where an episode ended for either reason, [T, S, E]."""
        return torch.maximum(self.terminated, self.truncated)

    def to(self, device: torch.device) -> Rollout:
        """Return the rollout on another device."""
        return Rollout(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def by_session(steps: Tensor) -> Tensor:
    """Lay the steps [T, S, E, ...] of each Session out one after the other: [S, T * E, ...]."""
    return steps.transpose(0, 1).flatten(1, 2).contiguous()


def shuffled(samples: dict[str, Tensor], order: Tensor, count: int) -> dict[str, Tensor]:
    """Shuffle samples into minibatches.

    Args:
        samples: tensors [S, N, ...] by name.
        order: a permutation of N for each Session, [S, N].
        count: number of minibatches, which must divide N.

    Returns:
        The same names with tensors [S, count, N / count, ...].
    """
    stack, number = order.shape
    rows = (order + torch.arange(stack, device=order.device).unsqueeze(1) * number).flatten()
    return {
        name: value.flatten(0, 1).index_select(0, rows).view(stack, count, number // count, *value.shape[2:])
        for name, value in samples.items()
    }


def dealt(batches: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield minibatches, tensors [S, B, ...] by name, of what `shuffled` returned."""
    parts = {name: value.unbind(1) for name, value in batches.items()}
    for index in range(len(next(iter(parts.values())))):
        yield {name: part[index] for name, part in parts.items()}
