"""TD3: twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, algorithm 1)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo.actor_critic import ActorCritic
from lab.algo.off_policy import shares
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net


@dataclass
class TD3(ActorCritic):
    """A deterministic policy climbs the values of the first critic; noise explores around its actions."""

    exploration_noise: float  # deviation of the noise on actions, of which the bounds are -1 and 1
    target_policy_noise: float  # deviation of the noise on the actions that targets are computed of
    target_noise_clip: float  # bound on that noise
    tau: float  # share of the way that targets move with every step of the policy

    SERVES_CHOICES: ClassVar[bool] = False

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        for key in ("exploration_noise", "target_policy_noise", "target_noise_clip"):
            require(getattr(self, key) >= 0, f"algo.{key}", getattr(self, key), "0 or more")
        require(0 < self.tau <= 1, "algo.tau", self.tau, "above 0, up to 1")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.network import Parameters

        self.build_networks(spaces, net, streams, device)
        self.target_actor, self.target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.targets["actor"] = Parameters(nn.ModuleDict({"target_actor": self.target_actor}))
        self.targets["critic"] = Parameters(nn.ModuleDict({"target": self.target}))

    @property
    def outputs(self) -> int:
        return 1

    def choose(self, observation: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        action = torch.tanh(self.actor(observation, "policy")[0])
        return action if noise is None else disturbed(action, noise * wide(self.exploration_noise))

    def next_values(self, observation: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        # Target policy smoothing (section 5.3): like actions are to have like values.
        bound = wide(self.target_noise_clip)
        smoothing = (noise * wide(self.target_policy_noise)).clamp(-bound, bound)
        action = disturbed(torch.tanh(self.target_actor(observation, "policy")[0]), smoothing)
        first, second = self.values(self.target, observation, action)
        return torch.minimum(first, second)

    def improve_policy(self, batch: Batch, noise: torch.Tensor, active: torch.Tensor) -> dict[str, torch.Tensor]:
        action = torch.tanh(self.actor(batch.observation, "policy")[0])
        losses = -self.critic["q1"](batch.observation, "value", extra=action)[0].squeeze(-1)
        norm = self.learners["actor"].step(losses, batch.weight, active)
        return {"actor_loss": (losses.detach() * shares(batch)).sum(-1), "actor_grad_norm": norm}

    def follow(self, active: torch.Tensor) -> None:
        if self.improving:
            for name, target in self.targets.items():
                target.polyak_update(self.learners[name].parameters, self.tau * active)


def wide(value: float | torch.Tensor) -> torch.Tensor:
    """Return a hyperparameter, a number or [S, 1], such that it broadcasts against actions [S, B, A]."""
    return torch.as_tensor(value).reshape(-1, 1, 1)


def disturbed(action: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return actions with noise, kept between their bounds."""
    return (action + noise).clamp(-1.0, 1.0)
