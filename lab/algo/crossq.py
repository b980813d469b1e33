"""CrossQ (Bhatt et al. 2024, "CrossQ: batch normalization in deep RL for greater sample efficiency and simplicity").

Soft actor-critic without target networks: batch renormalization keeps the values of now and of next from growing apart,
as both pass through the critics in one batch. For choices, as in discrete SAC (Christodoulou 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo.maximum_entropy import MaximumEntropy
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net
    from lab.net.normalization import BatchRenorm


@dataclass
class CrossQ(MaximumEntropy):
    """Learn values from those that the same critics give the actions which the policy would take next."""

    tau: None  # there are no target networks to move
    norm: str  # normalization of both networks, in place of net.norm: one of net.NORMS
    norm_warmup: int  # batches that batch renormalization takes by their own moments, before it corrects these

    SERVES_BY_BATCH: ClassVar[bool] = True

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(self.norm_warmup >= 0, "algo.norm_warmup", self.norm_warmup, "0 batches or more")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        super().build(spaces, net, streams, device)
        # By their running moments, but for the steps below.
        self.of_critic, self.of_actor = (normalizations(network.eval()) for network in (self.critic, self.actor))
        for module in (*self.of_critic, *self.of_actor):
            module.warmup = self.norm_warmup

    def values_and_targets(self, batch: Batch, noise: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        with torch.no_grad():
            next_action, log_prob = self.propose(batch.next_observation, noise)
        # One batch of both (section 3.1), so that its moments are those of both.
        observation = torch.cat([batch.observation, batch.next_observation], 1)
        action = None if next_action is None else torch.cat([batch.action, next_action], 1)
        usable = (batch.weight > 0).to(batch.weight.dtype)
        with training(self.of_critic, torch.cat([usable, usable], 1)):
            halves = [values.chunk(2, 1) for values in self.values(self.critic, observation, action)]
        with torch.no_grad():
            value, log_prob = self.expected([following for _, following in halves], log_prob)
            targets = batch.reward + batch.discount * (value - self.log_temperature.exp() * log_prob)
        return self.of_taken([current for current, _ in halves], batch.action), targets

    def improve_policy(self, batch: Batch, noise: torch.Tensor, active: torch.Tensor) -> dict[str, torch.Tensor]:
        with training(self.of_actor, (batch.weight > 0).to(batch.weight.dtype)):
            return super().improve_policy(batch, noise, active)


def normalizations(network: nn.Module) -> list[BatchRenorm]:
    """Return the batch renormalizations in a network."""
    from lab.net.normalization import BatchRenorm

    return [module for module in network.modules() if isinstance(module, BatchRenorm)]


@contextmanager
def training(modules: list[BatchRenorm], usable: torch.Tensor) -> Iterator[None]:
    """Let them normalize by the moments of a batch, those of its usable rows (1 or 0, [S, B])."""
    from lab.net.normalization import sample_weights

    share = sample_weights(usable)
    for module in modules:
        module.sample_weights = share
        module.train()
    yield
    for module in modules:
        module.eval()
