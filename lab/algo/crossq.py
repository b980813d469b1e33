"""CrossQ (Bhatt et al. 2024, "CrossQ: batch normalization in deep RL for greater sample efficiency and simplicity")."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo.sac import SAC
from lab.algo.samples import gather_actions, has_samples, sample_weights
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Natural
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net
    from lab.net.normalization import BatchRenorm


@dataclass
class CrossQ(SAC):
    """SAC without target networks.

    Batch renormalization keeps the values of this state and of the next from growing apart, as both pass through the
    critics in one batch.
    """

    norm: str
    norm_warmup: Natural

    SERVES_BY_BATCH: ClassVar[bool] = True

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(self.tau is None, "algo.tau", self.tau, f"null with algo={self.name}, which has no target networks")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        super().build(spaces, net, streams, device)
        # Normalize by running statistics everywhere except inside `training`.
        self.critic_norms, self.actor_norms = (
            batch_renorms(network.eval(), self.norm_warmup) for network in (self.critic, self.actor)
        )

    def update_critic(
        self, batch: Batch, noise: torch.Tensor, mask: torch.Tensor, diagnose: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Fit both critics to y = r + gamma V(s'), with Q(s, a) and Q(s', a') computed in one batch (section 3.1)."""
        with torch.no_grad():
            next_action, log_prob = self.sample_actions(batch.next_observation, noise)
        observation = torch.cat([batch.observation, batch.next_observation], 1)
        action = None if next_action is None else torch.cat([batch.action, next_action], 1)
        with training(self.critic_norms, torch.cat([batch.weight, batch.weight], 1)):
            pairs = [values.chunk(2, 1) for values in self.q_values(self.critic, observation, action)]
        values = [gather_actions(value, batch.action) if self.num_actions else value for value, _ in pairs]
        with torch.no_grad():
            least = torch.minimum(*(next_value for _, next_value in pairs))
            next_value, log_prob = self.expectation_over_policy(least, log_prob)
            target = batch.reward + batch.discount * (next_value - self.log_temperature.exp() * log_prob)
        losses = 0.5 * ((values[0] - target).square() + (values[1] - target).square())
        return self.step_critic(batch, losses, values, target, mask, diagnose)

    def update_actor(
        self, batch: Batch, noise: torch.Tensor, mask: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        with training(self.actor_norms, batch.weight):
            return super().update_actor(batch, noise, mask)


def batch_renorms(network: nn.Module, warmup: int) -> list[BatchRenorm]:
    """Return the batch renormalizations in a network, and set their warmup."""
    from lab.net.normalization import BatchRenorm

    norms = [module for module in network.modules() if isinstance(module, BatchRenorm)]
    for norm in norms:
        norm.warmup = warmup
    return norms


def row_weights(mask: torch.Tensor) -> torch.Tensor:
    """Return weights [S, B, 1] of a mean over the rows of a mask [S, B], or over all rows if it has none."""
    return sample_weights(torch.where(has_samples(mask) > 0, mask, 1.0)).unsqueeze(-1)


@contextmanager
def training(norms: list[BatchRenorm], weights: torch.Tensor) -> Iterator[None]:
    """Normalize by the moments of a batch, over its rows of a weight [S, B] above 0."""
    rows = row_weights((weights > 0).to(weights.dtype))
    for norm in norms:
        norm.sample_weights = rows
        norm.train()
    yield
    for norm in norms:
        norm.sample_weights = None
        norm.eval()
