"""SAC: soft actor-critic (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", algorithm 1).

For choices instead of numbers its discrete form (Christodoulou 2019, "Soft actor-critic for discrete action settings").
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.maximum_entropy import MaximumEntropy
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.net.net import Net


@dataclass
class SAC(MaximumEntropy):
    """Learn values from those that target critics give the actions which the policy would take next."""

    tau: float  # share of the way that target critics move at every learning step

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(0 < self.tau <= 1, "algo.tau", self.tau, "above 0, up to 1")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.network import Parameters

        super().build(spaces, net, streams, device)
        self.target = copy.deepcopy(self.critic)
        self.targets["target"] = Parameters(nn.ModuleDict({"target": self.target}))

    def next_values(self, observation: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        value, log_prob = self.rate(self.target, observation, noise)
        return value - self.log_temperature.exp() * log_prob

    def follow(self, active: torch.Tensor) -> None:
        self.targets["target"].polyak_update(self.learners["critic"].parameters, self.tau * active)
