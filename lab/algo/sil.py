"""Self-imitation learning (Oh et al. 2018, https://arxiv.org/abs/1806.05635), an addition to A2C and PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.algo.on_policy import OnPolicy, any_usable, average
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import LabError, require
from lab.memory.spec import ReplaySpec

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.rollout import Rollout
    from lab.net.net import Net

METRICS = ("sil_policy_loss", "sil_value_loss", "sil_better_fraction")


@dataclass
class SILSpec:
    """How much is learned from one's own past episodes."""

    gradient_steps: int  # learning steps after each horizon, 0 for none
    batch_size: int  # past steps in a learning step
    policy_coef: float  # weight of the policy loss
    value_coef: float  # weight of the value loss
    memory: ReplaySpec

    def check(self, key: str, samples: int) -> None:
        """Raise LabError for a value that is not allowed; `key` names the group, a horizon has so many samples."""
        require(self.gradient_steps >= 0, f"{key}.gradient_steps", self.gradient_steps, "0 (none) or more")
        require(self.batch_size >= 1, f"{key}.batch_size", self.batch_size, "1 or more")
        require(self.policy_coef >= 0, f"{key}.policy_coef", self.policy_coef, "0 or more")
        require(self.value_coef >= 0, f"{key}.value_coef", self.value_coef, "0 or more")
        combined, newest = self.memory.combined, "false, as the newest step has no return yet"
        require(not combined, f"{key}.memory.combined", combined, newest)
        size, enough = self.memory.size, self.gradient_steps == 0 or self.memory.size >= samples
        require(enough, f"{key}.memory.size", size, f"{samples} or more (a horizon)")


@dataclass
class SelfImitation(OnPolicy):
    """Learns from the steps it has just taken and, if asked to, from past ones that did better than expected.

    The paper takes returns R of finished episodes to be lower bounds of what the best policy gets (section 4.1). That
    of a truncated episode would not be one without what would have followed; the value of the state it stopped in,
    which the best policy's is at least, completes it.
    """

    sil: SILSpec

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        self.sil.check("algo.sil", self.horizon * env.num_envs)

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        super().check_spaces(spaces, env)
        if self.sil.gradient_steps:
            self.sil.memory.check_observations("algo.sil.memory", spaces.observation, env.id)

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        super().build(spaces, net, streams, device)
        self._observations = spaces.observation

    def allocate(self, num_envs: int) -> None:
        from lab.memory.episodes import EpisodeReplay

        if not self.sil.gradient_steps:
            return
        if self.carry_size:
            raise LabError(
                f"algo.sil.gradient_steps={self.sil.gradient_steps} is not allowed with a recurrent network: past"
                " steps are drawn one by one, without those before them. Use algo.sil.gradient_steps=0."
            )
        stack = len(self.active)
        self.replay: EpisodeReplay | None = EpisodeReplay(
            self.sil.memory, self._observations, self.example_action(), stack, num_envs, self.horizon
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*super().metrics, *METRICS) if self.sil.gradient_steps else super().metrics

    def imitate(
        self,
        rollout: Rollout,
        value: torch.Tensor,
        streams: list[Streams],
        progress: float,
        metrics: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Remember a horizon of steps, and learn from finished episodes (algorithm 1).

        Args:
            rollout: the steps.
            value: of every state of the rollout, [T + 1, S, E].
            streams: each Session's random streams.
            progress: share of the Session's frames that are done.
            metrics: of what was learned from the horizon itself.

        Returns:
            Metrics [S] beside those, and all `steps` that the optimizer took.
        """
        if not self.sil.gradient_steps:
            return {}
        assert self.replay
        self.replay.add_episodes(rollout, value[1:], self.gamma)
        size = (self.sil.gradient_steps, self.sil.batch_size)
        shares = np.stack([stream.minibatches.random(size) for stream in streams], 1)
        totals = {name: torch.zeros_like(metrics["steps"]) for name in METRICS}
        steps = metrics["steps"]
        for drawn in shares:
            batch = self.replay.sample(drawn, self.gamma, progress, rollout.statistics)
            policy, now = self.policy_and_value({"observation": batch.observation})
            better = (batch.reward - now).clamp(min=0)
            policy_loss, value_loss = -policy.log_prob(batch.action) * better.detach(), 0.5 * better.square()
            loss = self.sil.policy_coef * policy_loss + self.sil.value_coef * value_loss
            active = self.active * any_usable(batch.weight)
            self.learners["agent"].step(loss, batch.weight, active)
            self.replay.update_priorities(batch, better)
            steps = steps + active[:, 0]
            found = (policy_loss.detach(), value_loss.detach(), (better > 0).to(better.dtype))
            for name, each in zip(METRICS, found, strict=True):
                totals[name] = totals[name] + average(each, batch.weight) / self.sil.gradient_steps
        return totals | {"steps": steps}
