"""What SAC, CrossQ and TD3 share: a policy, and twin critics that tell the values of its actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lab.algo.off_policy import OffPolicy, shares
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import LabError, require

if TYPE_CHECKING:
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.net import Net

TWINS = ("q1", "q2")
POLICY_GAIN = 0.01  # of the initialization of the policy's last layer: it begins without a preference


@dataclass
class ActorCritic(OffPolicy):
    """Two critics learn the values of actions (clipped double Q-learning: Fujimoto et al. 2018), a policy climbs them.

    Attributes set by `build`:
        choices: number of actions to choose from; null where actions are numbers on a scale.
        numbers: how many numbers an action is, A; 0 for a choice.
        actor: the network of the policy.
        critic: the networks of the critics, by their names in TWINS.
        steps_taken: learning steps so far.
    """

    policy_delay: int  # learning steps of the critics for each one of the policy

    METRICS: ClassVar[tuple[str, ...]] = (
        "actor_loss", "critic_loss", "q_values", "td_error", "actor_grad_norm", *OffPolicy.METRICS
    )  # fmt: skip
    SERVES_CHOICES: ClassVar[bool] = True  # whether it learns Discrete actions too

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(self.policy_delay >= 1, "algo.policy_delay", self.policy_delay, "1 learning step or more")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        import gymnasium as gym

        super().check_spaces(spaces, env)
        space = spaces.action
        if self.SERVES_CHOICES and isinstance(space, gym.spaces.Discrete):
            return
        if not (isinstance(space, gym.spaces.Box) and space.is_bounded("both")):
            choice = " or one choice from several (Discrete)" if self.SERVES_CHOICES else ""
            raise LabError(
                f"algo={self.name} cannot learn env.id={env.id}, whose actions are {space}: it needs numbers between"
                f" bounds (a Box){choice}."
            )

    def build_networks(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        """Make the policy's network, with so many outputs for each number of an action, and the critics'."""
        import gymnasium as gym
        from torch import nn

        from lab.net.learner import Learner
        from lab.net.net import Output

        self.prepare(streams, device)
        self.prepare_memory(spaces)
        space, rngs = spaces.action, [stream.initialization for stream in streams]
        self.choices = int(space.n) if isinstance(space, gym.spaces.Discrete) else None
        self.numbers = 0 if self.choices else int(np.prod(space.shape or ()))
        policy = Output("policy", self.choices or self.numbers * self.outputs, [POLICY_GAIN] * len(rngs))
        values = Output("value", self.choices or 1, [1.0] * len(rngs))
        self.actor = net.build(spaces.observation, [policy], rngs)
        # Each a network of its own, as twins that share a trunk would err alike.
        self.critic = nn.ModuleDict(
            {name: net.build(spaces.observation, [values], rngs, extra=self.numbers) for name in TWINS}
        )
        self.learners["critic"] = Learner(nn.ModuleDict({"critic": self.critic}), self.optimizer, device)
        self.learners["actor"] = Learner(nn.ModuleDict({"actor": self.actor}), self.optimizer, device)
        self.steps_taken = 0
        self.acting_randomly = False

    @property
    def outputs(self) -> int:
        """What the policy's network says of each number of an action: its mean and deviation, or itself alone."""
        raise NotImplementedError

    def example(self) -> torch.Tensor:
        if self.choices:
            return torch.zeros((), dtype=torch.int64, device=self.active.device)
        return torch.zeros(self.numbers, device=self.active.device)

    def noise(self, steps: int, num_envs: int, streams: list[Streams], progress: float) -> torch.Tensor:
        self.acting_randomly = self.exploring
        shape = (steps, num_envs)
        drawn = [self.draw(stream.actions, shape, uniform=self.acting_randomly) for stream in streams]
        return torch.from_numpy(np.stack(drawn, 1))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], uniform: bool = False) -> np.ndarray:
        """Draw the randomness of actions for `shape` of them; `uniform`, where they are to be random throughout."""
        from lab.net.distribution import gumbel

        if self.choices:
            return gumbel(rng, (*shape, self.choices))
        if uniform:
            return rng.uniform(-1.0, 1.0, (*shape, self.numbers)).astype(np.float32)
        return rng.standard_normal((*shape, self.numbers), dtype=np.float32)

    def act(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if noise is not None and self.acting_randomly:
            return noise.argmax(-1) if self.choices else noise, carry
        with torch.no_grad():
            return self.choose(observation, noise), carry

    def choose(self, observation: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the policy's actions for observations [S, B, ...], the deterministic ones where noise is null."""
        raise NotImplementedError

    def values(
        self, critic: nn.ModuleDict, observation: torch.Tensor, action: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return what each critic says of actions [S, B, A], [S, B]; without them of every choice, [S, B, choices]."""
        found = [critic[name](observation, "value", extra=action)[0] for name in TWINS]
        return found if action is None else [value.squeeze(-1) for value in found]

    def of_taken(self, values: list[torch.Tensor], action: torch.Tensor) -> list[torch.Tensor]:
        """Return what each critic says of the actions that were taken, [S, B], of what `values` returned."""
        if not self.choices:
            return values
        return [value.gather(-1, action.unsqueeze(-1)).squeeze(-1) for value in values]

    def update(
        self, batch: Batch, streams: list[Streams], active: torch.Tensor, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        drawn = [self.draw(stream.minibatches, (2, self.batch_size)) for stream in streams]
        next_noise, noise = torch.from_numpy(np.stack(drawn, 1)).to(self.active.device)
        values, targets = self.values_and_targets(batch, next_noise)
        metrics = self.fit_critics(batch, values, targets, active, diagnose)
        self.steps_taken += 1
        if self.improving:
            metrics |= self.improve_policy(batch, noise, active)
        self.follow(active)
        return metrics

    @property
    def improving(self) -> bool:
        """Whether the policy takes a step after this one of the critics."""
        return self.steps_taken % self.policy_delay == 0

    def values_and_targets(self, batch: Batch, noise: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return what each critic says of a minibatch, and what it is to say instead, [S, B] each."""
        with torch.no_grad():
            targets = batch.reward + batch.discount * self.next_values(batch.next_observation, noise)
        values = self.values(self.critic, batch.observation, None if self.choices else batch.action)
        return self.of_taken(values, batch.action), targets

    def next_values(self, observation: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the values [S, B] of the states that transitions led to."""
        raise NotImplementedError

    def fit_critics(
        self,
        batch: Batch,
        values: list[torch.Tensor],
        targets: torch.Tensor,
        active: torch.Tensor,
        diagnose: bool,
    ) -> dict[str, torch.Tensor]:
        """Take a step of both critics toward the targets, and return metrics [S]."""
        assert self.replay is not None
        first, second = (value - targets for value in values)
        losses = 0.5 * (first.square() + second.square())
        norm = self.learners["critic"].step(losses, batch.weight, active)
        metrics = {"steps": active[:, 0]}
        if not diagnose and not self.memory.prioritized:
            return metrics
        with torch.no_grad():
            errors = 0.5 * (first.abs() + second.abs())
            self.replay.update_priorities(batch, errors)
            share = shares(batch)
            return metrics | {
                "critic_loss": (losses * share).sum(-1),
                "q_values": (0.5 * (values[0] + values[1]) * share).sum(-1),
                "td_error": (errors * share).sum(-1),
                "grad_norm": norm,
            }

    def improve_policy(self, batch: Batch, noise: torch.Tensor, active: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a step of the policy toward actions of higher value, and return metrics [S]."""
        raise NotImplementedError

    def follow(self, active: torch.Tensor) -> None:
        """Move target networks, if there are any."""

    def state(self, index: int) -> dict[str, Any]:
        return {**super().state(index), "steps_taken": self.steps_taken}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        super().restore(index, state)
        self.steps_taken = state["steps_taken"]
