"""SARSA, with lambda-returns (Sutton & Barto 2018, sections 6.4 and 12.7) or expected ones (section 6.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.online import Online
from lab.algo.value_based import taken
from lab.common.imports import torch

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout


@dataclass
class SARSA(Online):
    """Learn the values of the policy that acts, exploration included, from the actions that it really took.

    With lam = 0 that is one-step SARSA. Where no next action was taken, at the end of the horizon and where an episode
    was truncated, its expectation takes the place; with `expected` it does at every step.
    """

    expected: bool  # whether the expectation over the next action takes the place of the action taken (Expected SARSA)

    def following(self, values: torch.Tensor, rollout: Rollout, progress: float) -> torch.Tensor:
        """Return what (1 - lam) weighs in equation 12.19 of the book, or with `expected` in 12.20."""
        expectation = self.exploration.expectation(values[1:], progress)
        if self.expected:
            return expectation
        next_taken = taken(values[1:-1], rollout.action[1:])
        onward = torch.where(rollout.done[:-1] > 0, expectation[:-1], next_taken)
        return torch.cat([onward, expectation[-1:]])
