"""DQN (Mnih et al. 2015) and its extensions, each with a switch of its own; all of them together are Rainbow.

Double (van Hasselt et al. 2016), dueling (Wang et al. 2016), prioritized replay (Schaul et al. 2016), n-step returns,
noisy networks (Fortunato et al. 2018), and distributions of returns: categorical, C51 (Bellemare et al. 2017), or
quantiles, QR-DQN (Dabney et al. 2018). Rainbow: Hessel et al. 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from lab.algo.distributional import project, quantile_huber
from lab.algo.off_policy import OffPolicy
from lab.algo.samples import gather_actions, sample_weights, weighted_mean
from lab.algo.value_based import ValueBased
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count, Scalar
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net


@dataclass
class DQN(ValueBased, OffPolicy):
    """Learns action values whose targets come from a network of some time ago."""

    double: bool
    noisy: bool
    distribution: Literal["none", "categorical", "quantile"]
    atoms: Annotated[int, Ge(2)]
    v_min: Scalar
    v_max: Scalar
    loss: Literal["huber", "mse"]
    target_update_interval: Count
    tau: Annotated[Scalar, Gt(0), Le(1)]

    METRICS: ClassVar[tuple[str, ...]] = ("q_loss", "q_values", "td_error", "exploration_rate", *OffPolicy.METRICS)

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(bool(self.v_max > self.v_min), "algo.v_max", self.v_max, f"above algo.v_min={self.v_min}")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.learner import Learner

        super().build(spaces, net, streams, device)
        num_atoms = 0 if self.distribution == "none" else self.atoms
        self.network = self.build_network(spaces, net, streams, num_atoms, self.noisy)
        self.target = self.add_target("target", "target", self.network)
        self.learners["q"] = Learner(nn.ModuleDict({"q": self.network}), self.optimizer, device)
        low, high = (torch.as_tensor(bound, device=device).reshape(-1, 1, 1) for bound in (self.v_min, self.v_max))
        self.support = low + (high - low) * torch.arange(self.atoms, device=device) / (self.atoms - 1)

    def example_action(self) -> torch.Tensor:
        return torch.zeros((), dtype=torch.int64, device=self.active.device)

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        if self.distribution == "categorical":
            return (outputs.softmax(-1) * self.support.unsqueeze(2)).sum(-1)
        return outputs.mean(-1) if self.distribution == "quantile" else outputs

    def draw_noise(self, steps: int, num_envs: int, streams: list[Streams], fraction_done: float) -> torch.Tensor:
        if self.noisy:
            self.network.draw([stream.actions for stream in streams])
        return super().draw_noise(steps, num_envs, streams, 0.0 if self.is_warming_up else fraction_done)

    def act(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.noisy and noise is None:
            self.network.draw(None)
        return super().act(observation, noise, carry)

    def scheduled_values(self, fraction_done: float) -> dict[str, torch.Tensor]:
        return {"exploration_rate": self.exploration.scheduled_tensor(fraction_done, self.active.device)}

    def draw_update_noise(self, streams: list[Streams]) -> None:
        if self.noisy:
            for network in (self.network, self.target):
                network.draw([stream.minibatches for stream in streams])

    def update(
        self, batch: Batch, noise: torch.Tensor | None, mask: torch.Tensor, diagnose: bool, **parts: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        outputs, losses, errors = self.losses(batch)
        norm = self.learners["q"].step(losses, batch.weight, mask)
        if not diagnose:
            return {}, errors
        with torch.no_grad():
            values = self.expectation(outputs.unsqueeze(2)).squeeze(-1) if self.num_atoms else outputs
            means = weighted_mean(torch.stack([losses, values, errors.abs()]), sample_weights(batch.weight))
        return {
            **dict(zip(("q_loss", "q_values", "td_error"), means.unbind(0), strict=True)),
            "grad_norm": norm,
        }, errors

    def update_targets(self, mask: torch.Tensor) -> None:
        if self.num_updates % self.target_update_interval == 0:
            self.targets["target"].polyak_update(self.learners["q"].parameters, self.tau * mask)

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the network's outputs for the actions of a minibatch, and their losses and TD errors, [S, B].

        The target is y = r + gamma Q'(s', argmax_a Q'(s', a)), with `double` argmax_a Q(s', a), where Q' is the target
        network; the loss is that of Q(s, a) - y. Distributions take the place of values where they are learned: the
        categorical loss is the cross-entropy to the projected target, the quantile loss that of quantile regression.
        """
        from torch.nn import functional

        with torch.no_grad():
            target_outputs = self.action_outputs(self.target, batch.next_observation)
            if self.double or self.num_atoms:
                chooser = self.action_outputs(self.network, batch.next_observation) if self.double else target_outputs
                choice = self.values_of(chooser, batch.next_observation).argmax(-1)
                next_outputs = gather_actions(target_outputs, choice)
            else:
                next_outputs = self.values_of(target_outputs, batch.next_observation).amax(-1)
        outputs = gather_actions(self.action_outputs(self.network, batch.observation), batch.action)
        if self.distribution == "categorical":
            target = project(next_outputs.softmax(-1), batch.reward, batch.discount, self.support)
            loss = -(target * outputs.log_softmax(-1)).sum(-1)
            return outputs, loss, loss.detach()
        if self.distribution == "quantile":
            target = batch.reward.unsqueeze(-1) + batch.discount.unsqueeze(-1) * next_outputs
            errors = (target.mean(-1) - outputs.mean(-1)).detach()
            return outputs, quantile_huber(outputs, target), errors
        target = batch.reward + batch.discount * next_outputs
        function = functional.smooth_l1_loss if self.loss == "huber" else functional.mse_loss
        return outputs, function(outputs, target, reduction="none"), outputs.detach() - target
