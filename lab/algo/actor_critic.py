"""The base of SAC, CrossQ and TD3: a policy, and twin critics of its actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lab.algo.algorithm import unsupported_actions
from lab.algo.off_policy import OffPolicy
from lab.algo.samples import gather_actions, sample_weights
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.transfer import upload
from lab.common.validation import Count
from lab.env.spec import EnvSpec

if TYPE_CHECKING:
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net

TWINS = ("q1", "q2")
POLICY_GAIN = 0.01  # of the initialization of the policy's last layer: it starts without a preference


@dataclass
class ActorCritic(OffPolicy):
    """Clipped double Q-learning (Fujimoto et al. 2018): two critics, and a policy that climbs their values.

    Attributes set by `build`:
        num_actions: number of Discrete actions; 0 for a Box.
        action_dim: numbers in a Box action, A; 0 for Discrete actions.
        actor: the network of the policy.
        critic: the networks of the critics, by their names in TWINS.
    """

    policy_delay: Count

    METRICS: ClassVar[tuple[str, ...]] = (
        "actor_loss", "critic_loss", "q_values", "td_error", "actor_grad_norm", *OffPolicy.METRICS
    )  # fmt: skip
    SERVES_DISCRETE: ClassVar[bool] = True  # whether it learns Discrete actions too
    OUTPUTS_PER_ACTION: ClassVar[int] = 1  # numbers that the policy's network has for each number of an action

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        import gymnasium as gym

        super().check_spaces(spaces, env)
        space = spaces.action
        if self.SERVES_DISCRETE and isinstance(space, gym.spaces.Discrete):
            return
        if not (isinstance(space, gym.spaces.Box) and space.is_bounded("both")):
            raise unsupported_actions(
                self, "Discrete and bounded Box" if self.SERVES_DISCRETE else "bounded Box", space, env
            )

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        import gymnasium as gym
        from torch import nn

        from lab.net.learner import Learner
        from lab.net.net import Output

        super().build(spaces, net, streams, device)
        space, rngs = spaces.action, [stream.initialization for stream in streams]
        self.num_actions = int(space.n) if isinstance(space, gym.spaces.Discrete) else 0
        self.action_dim = 0 if self.num_actions else int(np.prod(space.shape or ()))
        size = self.num_actions or self.action_dim * self.OUTPUTS_PER_ACTION
        values = Output("value", self.num_actions or 1, [1.0] * len(rngs))
        self.actor = net.build(spaces.observation, [Output("policy", size, [POLICY_GAIN] * len(rngs))], rngs)
        # Separate networks, as twins with one trunk would err alike.
        self.critic = nn.ModuleDict(
            {name: net.build(spaces.observation, [values], rngs, extra=self.action_dim) for name in TWINS}
        )
        self.learners["critic"] = Learner(nn.ModuleDict({"critic": self.critic}), self.optimizer, device)
        self.learners["actor"] = Learner(nn.ModuleDict({"actor": self.actor}), self.optimizer, device)
        self.acts_randomly = False

    def example_action(self) -> torch.Tensor:
        if self.num_actions:
            return torch.zeros((), dtype=torch.int64, device=self.active.device)
        return torch.zeros(self.action_dim, device=self.active.device)

    def draw_noise(self, steps: int, num_envs: int, streams: list[Streams], fraction_done: float) -> torch.Tensor:
        self.acts_randomly = self.is_warming_up
        drawn = [self.draw(stream.actions, (steps, num_envs), uniform=self.acts_randomly) for stream in streams]
        return torch.from_numpy(np.stack(drawn, 1))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], uniform: bool = False) -> np.ndarray:
        """Draw the randomness of actions, `shape` of them; with `uniform` they are uniformly random actions."""
        from lab.net.distribution import gumbel

        if self.num_actions:
            return gumbel(rng, (*shape, self.num_actions))
        if uniform:
            return rng.uniform(-1.0, 1.0, (*shape, self.action_dim)).astype(np.float32)
        return rng.standard_normal((*shape, self.action_dim), dtype=np.float32)

    def draw_update_noise(self, streams: list[Streams]) -> torch.Tensor:
        """Draw the randomness of a minibatch's next actions and of its actions, [S, 2, B, ...]."""
        drawn = [self.draw(stream.minibatches, (2, self.batch_size)) for stream in streams]
        return upload(np.stack(drawn), self.active.device)

    def act(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        from lab.net.distribution import mask_invalid

        if noise is not None and self.acts_randomly:
            if not self.num_actions:
                return noise, carry
            return mask_invalid(noise, self.action_mask(observation)).argmax(-1), carry
        return super().act(observation, noise, carry)

    def q_values(
        self, critic: nn.ModuleDict, observation: torch.Tensor, action: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return each critic's values of actions, [S, B]; of all Discrete actions, [S, B, A], if `action` is None."""
        values = [critic[name](observation, "value", extra=action)[0] for name in TWINS]
        return values if action is None else [value.squeeze(-1) for value in values]

    def batch_q_values(self, batch: Batch) -> list[torch.Tensor]:
        """Return each critic's values of a minibatch's actions, [S, B]."""
        if not self.num_actions:
            return self.q_values(self.critic, batch.observation, batch.action)
        return [gather_actions(values, batch.action) for values in self.q_values(self.critic, batch.observation, None)]

    def step_critic(
        self,
        batch: Batch,
        losses: torch.Tensor,
        values: list[torch.Tensor],
        target: torch.Tensor,
        mask: torch.Tensor,
        diagnose: bool,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take a gradient step of both critics, and return metrics [S] and their absolute errors [S, B].

        Args:
            batch: transitions.
            losses: of both critics together, [S, B].
            values: Q_1(s, a) and Q_2(s, a), [S, B].
            target: y, [S, B].
            mask: 1 for Sessions that take this step, 0 for others, [S, 1].
            diagnose: whether to return metrics.
        """
        norm = self.learners["critic"].step(losses, batch.weight, mask)
        with torch.no_grad():
            errors = 0.5 * ((values[0] - target).abs() + (values[1] - target).abs())
            if not diagnose:
                return {}, errors
            weights = sample_weights(batch.weight)
            metrics = {
                "critic_loss": (losses * weights).sum(-1),
                "q_values": (0.5 * (values[0] + values[1]) * weights).sum(-1),
                "td_error": (errors * weights).sum(-1),
                "grad_norm": norm,
            }
        return metrics, errors

    @property
    def step_parts(self) -> dict[str, bool]:
        return {"updates_policy": self.num_updates % self.policy_delay == 0}
