"""PQN: the parallelized Q-network (Gallici et al. 2024, "Simplifying deep temporal difference learning")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.online import Online
from lab.common.imports import torch

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout


@dataclass
class PQN(Online):
    """Learn the values of the best actions from Q(lambda) returns of many environments at once (algorithm 1).

    Layer normalization in the network takes the place of a target network (section 3), and the environments that of a
    replay memory.
    """

    norm: str  # normalization of the network, in place of net.norm: none or layer

    def following(self, values: torch.Tensor, rollout: Rollout, progress: float) -> torch.Tensor:
        """Return the highest value of each state that a step led to."""
        return values[1:].amax(-1)
