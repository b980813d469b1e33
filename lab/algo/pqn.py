"""PQN: the parallelized Q-network (Gallici et al. 2024, "Simplifying deep temporal difference learning")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.returns import lambda_return
from lab.algo.value_based import OnPolicyValueBased
from lab.common.imports import torch
from lab.common.streams import Streams

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout


@dataclass
class PQN(OnPolicyValueBased):
    """Learns the values of the best actions from many environments at once (algorithm 1).

    The return is G_t = r_t + gamma ((1 - lambda) max_a Q(s_t+1, a) + lambda G_t+1). Layer normalization in the network
    replaces a target network (section 3), and the environments replace a replay memory.
    """

    norm: str

    def learn(
        self, rollout: Rollout, streams: list[Streams], fraction_done: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        values = self.rollout_values(rollout)
        discount = self.gamma * (1 - rollout.terminated)
        returns = lambda_return(rollout.reward, discount, values[1:].amax(-1), rollout.truncated, self.td_lambda)
        return self.fit(rollout, values, returns, streams, fraction_done)
