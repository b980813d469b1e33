"""DQN (Mnih et al. 2015) and what was added to it, each part with a switch of its own; all of them make Rainbow.

Double (van Hasselt et al. 2016), dueling (Wang et al. 2016), prioritized replay (Schaul et al. 2016), several steps,
noisy networks (Fortunato et al. 2018), and distributions of returns: categorical, C51 (Bellemare et al. 2017), or by
quantiles, QR-DQN (Dabney et al. 2018). Rainbow: Hessel et al. 2018.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lab.algo.distributional import project, quantile_huber
from lab.algo.off_policy import OffPolicy, shares
from lab.algo.value_based import ValueBased, taken
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require, require_one_of

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net
    from lab.net.network import StackedNetwork

DISTRIBUTIONS = ("none", "categorical", "quantile")
LOSSES = ("huber", "mse")


@dataclass
class DQN(ValueBased, OffPolicy):
    """Learn the values of actions from those that a network of some time ago gives the states they led to."""

    double: bool  # whether the network that learns chooses the action that the target network values
    noisy: bool  # whether noise in the last layer explores, learned with it
    distribution: str  # one of DISTRIBUTIONS
    atoms: int  # categorical: values that a return can have; quantile: quantiles
    v_min: float  # categorical: least return
    v_max: float  # categorical: highest return
    loss: str  # one of LOSSES, where no distribution is learned
    target_update_interval: int  # learning steps between updates of the target network
    tau: float  # share of the way that it moves then: 1 copies, less is Polyak averaging

    METRICS: ClassVar[tuple[str, ...]] = ("q_loss", "q_values", "td_error", "exploration_rate", *OffPolicy.METRICS)

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require_one_of("algo.distribution", self.distribution, DISTRIBUTIONS)
        require_one_of("algo.loss", self.loss, LOSSES)
        require(self.atoms >= 2, "algo.atoms", self.atoms, "2 or more")
        require(self.v_max > self.v_min, "algo.v_max", self.v_max, f"above algo.v_min={self.v_min}")
        require(
            self.target_update_interval >= 1,
            "algo.target_update_interval",
            self.target_update_interval,
            "1 learning step or more",
        )
        require(0 < self.tau <= 1, "algo.tau", self.tau, "above 0, up to 1")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.learner import Learner
        from lab.net.network import Parameters

        self.prepare(streams, device)
        self.prepare_memory(spaces)
        atoms = 0 if self.distribution == "none" else self.atoms
        self.network: StackedNetwork = self.build_network(spaces, net, streams, atoms, self.noisy)
        self.target = copy.deepcopy(self.network).to(device)
        self.learners["q"] = Learner(nn.ModuleDict({"q": self.network}), self.optimizer, device)
        self.targets["target"] = Parameters(nn.ModuleDict({"target": self.target}))
        self.steps_taken = 0
        low, high = (torch.as_tensor(bound, device=device).reshape(-1, 1, 1) for bound in (self.v_min, self.v_max))
        self.support = low + (high - low) * torch.arange(self.atoms, device=device) / (self.atoms - 1)

    def example(self) -> torch.Tensor:
        return torch.zeros((), dtype=torch.int64, device=self.active.device)

    def values(self, atoms: torch.Tensor) -> torch.Tensor:
        if self.distribution == "categorical":
            return (atoms.softmax(-1) * self.support.unsqueeze(2)).sum(-1)
        return atoms.mean(-1) if self.distribution == "quantile" else atoms

    def noise(self, steps: int, num_envs: int, streams: list[Streams], progress: float) -> torch.Tensor:
        if self.noisy:
            self.network.draw([stream.actions for stream in streams])
        if self.exploring:
            progress = 0.0
        return super().noise(steps, num_envs, streams, progress)

    def act(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.noisy and noise is None:
            self.network.draw(None)
        return super().act(observation, noise, carry)

    def rates(self, progress: float) -> dict[str, torch.Tensor]:
        return {"exploration_rate": self.active.new_tensor(self.exploration.values(progress))}

    def update(
        self, batch: Batch, streams: list[Streams], active: torch.Tensor, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        if self.noisy:
            for network in (self.network, self.target):
                network.draw([stream.minibatches for stream in streams])
        with torch.no_grad():
            following = self.atoms_of(self.target, batch.next_observation)
            chooser = self.atoms_of(self.network, batch.next_observation) if self.double else following
            following = taken(following, self.values(chooser).argmax(-1))
        current = taken(self.atoms_of(self.network, batch.observation), batch.action)
        losses, errors = self.losses(current, following, batch)
        norm = self.learners["q"].step(losses, batch.weight, active)
        assert self.replay is not None
        self.replay.update_priorities(batch, errors)
        self.steps_taken += 1
        if self.steps_taken % self.target_update_interval == 0:
            self.targets["target"].polyak_update(self.learners["q"].parameters, self.tau * active)
        if not diagnose:
            return {"steps": active[:, 0]}
        with torch.no_grad():
            value = self.values(current.unsqueeze(2)).squeeze(-1) if self.atom_count else current
            means = (torch.stack([losses, value, errors.abs()]) * shares(batch)).sum(-1)
        metrics = dict(zip(("q_loss", "q_values", "td_error"), means.unbind(0), strict=True))
        return {"steps": active[:, 0], **metrics, "grad_norm": norm}

    def losses(self, current: torch.Tensor, following: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and the error of every transition, [S, B] each.

        Args:
            current: what the network says of the action that was taken, [S, B], or its atoms, [S, B, N].
            following: what the target network says of the best one after it, in the same shape.
            batch: the transitions.
        """
        from torch.nn import functional

        if self.distribution == "categorical":
            target = project(following.softmax(-1), batch.reward, batch.discount, self.support)
            loss = -(target * current.log_softmax(-1)).sum(-1)
            return loss, loss.detach()
        if self.distribution == "quantile":
            target = batch.reward.unsqueeze(-1) + batch.discount.unsqueeze(-1) * following
            return quantile_huber(current, target), (target.mean(-1) - current.mean(-1)).detach()
        target = batch.reward + batch.discount * following
        function = functional.smooth_l1_loss if self.loss == "huber" else functional.mse_loss
        return function(current, target, reduction="none"), current.detach() - target

    def state(self, index: int) -> dict[str, Any]:
        return {**super().state(index), "steps_taken": self.steps_taken}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        super().restore(index, state)
        self.steps_taken = state["steps_taken"]
