"""TD3: twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from lab.algo.actor_critic import ActorCritic
from lab.algo.samples import sample_weights, weighted_mean
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Scalar

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net


@dataclass
class TD3(ActorCritic):
    """A deterministic policy climbs the values of the first critic; noise explores around its actions."""

    exploration_noise: Annotated[Scalar, Ge(0)]
    target_policy_noise: Annotated[Scalar, Ge(0)]
    target_noise_clip: Annotated[Scalar, Ge(0)]
    tau: Annotated[Scalar, Gt(0), Le(1)]

    SERVES_DISCRETE: ClassVar[bool] = False

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        super().build(spaces, net, streams, device)
        self.target_actor = self.add_target("actor", "target_actor", self.actor)
        self.target = self.add_target("critic", "target", self.critic)

    def choose(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        action = torch.tanh(self.actor(observation, "policy")[0])
        return action if noise is None else add_noise(action, noise * per_action(self.exploration_noise)), carry

    def update(
        self, batch: Batch, noise: torch.Tensor | None, mask: torch.Tensor, diagnose: bool, **parts: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        assert noise is not None
        metrics, errors = self.update_critic(batch, noise[:, 0], mask, diagnose)
        if parts["updates_policy"]:
            metrics |= self.update_actor(batch, mask)
            for name, target in self.targets.items():
                target.polyak_update(self.learners[name].parameters, self.tau * mask)
        return metrics, errors

    def update_critic(
        self, batch: Batch, noise: torch.Tensor, mask: torch.Tensor, diagnose: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take a gradient step of both critics on 1/2 (Q_i(s, a) - y)^2, as `step_critic` does.

        y = R + discount min_i Q'_i(s', clip(pi'(s') + clip(noise))).
        """
        with torch.no_grad():
            # Target policy smoothing (section 5.3): similar actions are to have similar values.
            bound = per_action(self.target_noise_clip)
            smoothing = (noise * per_action(self.target_policy_noise)).clamp(-bound, bound)
            next_action = add_noise(torch.tanh(self.target_actor(batch.next_observation, "policy")[0]), smoothing)
            next_value = torch.minimum(*self.q_values(self.target, batch.next_observation, next_action))
            target = batch.reward + batch.discount * next_value
        values = self.batch_q_values(batch)
        losses = 0.5 * ((values[0] - target).square() + (values[1] - target).square())
        return self.step_critic(batch, losses, values, target, mask, diagnose)

    def update_actor(self, batch: Batch, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a gradient step of the policy on -Q_1(s, pi(s))."""
        action = torch.tanh(self.actor(batch.observation, "policy")[0])
        losses = -self.critic["q1"](batch.observation, "value", extra=action)[0].squeeze(-1)
        norm = self.learners["actor"].step(losses, batch.weight, mask)
        weights = sample_weights(batch.weight)
        return {"actor_loss": weighted_mean(losses.detach(), weights), "actor_grad_norm": norm}


def per_action(value: Scalar) -> torch.Tensor:
    """Return a hyperparameter in a shape that broadcasts with actions, [S, 1, 1]."""
    return torch.as_tensor(value).reshape(-1, 1, 1)


def add_noise(action: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return actions with noise, clipped to their bounds."""
    return (action + noise).clamp(-1.0, 1.0)
