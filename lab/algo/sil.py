"""Self-imitation learning (Oh et al. 2018, https://arxiv.org/abs/1806.05635), a part of A2C and PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from lab.algo.samples import has_samples, weighted_mean
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count, Natural, Scalar
from lab.errors import LabError, require
from lab.memory.spec import ReplaySpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.algo.algorithm import Algorithm
    from lab.memory.episodes import EpisodeReplay
    from lab.memory.rollout import Rollout
    from lab.net.distribution import Distribution


@dataclass
class SelfImitation:
    """Learns from past steps of the agent that did better than their value.

    The paper takes returns R of finished episodes as lower bounds of the best policy's value (section 4.1). The return
    of a truncated episode lacks the rest, so the value of its last state completes it.
    """

    gradient_steps: Natural
    batch_size: Count
    policy_coef: Annotated[Scalar, Ge(0)]
    value_coef: Annotated[Scalar, Ge(0)]
    memory: ReplaySpec

    METRICS: ClassVar[tuple[str, ...]] = ("sil_policy_loss", "sil_value_loss", "sil_better_fraction")

    def check(self, key: str, samples: int) -> None:
        """Raise LabError for values that do not fit; `key` names the group, `samples` counts those of a horizon."""
        combined, size = self.memory.combined, self.memory.size
        require(not combined, f"{key}.memory.combined", combined, "false, as the newest step has no return yet")
        require(size >= samples, f"{key}.memory.size", size, f"{samples} or more (a horizon)")

    def allocate(self, agent: Algorithm, num_envs: int) -> EpisodeReplay:
        """Return an empty memory of the agent's episodes."""
        from lab.memory.episodes import EpisodeReplay

        if agent.carry_size:
            raise LabError(
                f"algo.sil.gradient_steps={self.gradient_steps} is not allowed with a recurrent network: past"
                " steps are drawn one by one, without those before them. Use algo.sil.gradient_steps=0."
            )
        stack, example = len(agent.active), agent.example_action()
        return EpisodeReplay(self.memory, agent.spaces, example, stack, num_envs, agent.horizon)

    def learn(
        self,
        agent: Algorithm,
        policy_and_value: Callable[[dict[str, torch.Tensor]], tuple[Distribution, torch.Tensor]],
        rollout: Rollout,
        value: torch.Tensor,
        streams: list[Streams],
        fraction_done: float,
        steps: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Store a horizon of steps, and learn from finished episodes (algorithm 1).

        The losses are -log pi(a|s) (R - V(s))+ and 1/2 (R - V(s))+^2 (equations 2 and 3).

        Args:
            agent: the algorithm that this is a part of.
            policy_and_value: computes its policy and values, [S, B], from inputs by name.
            rollout: the steps.
            value: of every state of the rollout, [T + 1, S, E].
            streams: each Session's random streams.
            fraction_done: fraction of the Session's frames that are done.
            steps: learning steps of the agent in this horizon so far, [S].

        Returns:
            Metrics [S], and `steps` with those of this call.
        """
        from lab.memory.episodes import EpisodeReplay

        replay = agent.replay
        assert isinstance(replay, EpisodeReplay)
        replay.add_episodes(rollout, value[1:], agent.gamma)
        uniforms = np.stack(
            [stream.minibatches.random((self.gradient_steps, self.batch_size)) for stream in streams], 1
        )
        totals = {name: torch.zeros_like(steps) for name in self.METRICS}
        for drawn in uniforms:
            batch, position = replay.sample(drawn, agent.gamma, fraction_done, rollout.statistics)
            policy, values = policy_and_value({"observation": batch.observation})
            better = (batch.reward - values).clamp(min=0)
            policy_loss = -policy.log_prob(batch.action) * better.detach()
            value_loss = 0.5 * better.square()
            mask = agent.active * has_samples(batch.weight)
            total = self.policy_coef * policy_loss + self.value_coef * value_loss
            agent.learners["agent"].step(total, batch.weight, mask)
            replay.update_priorities(position, better)
            steps = steps + mask[:, 0]
            metrics = (policy_loss.detach(), value_loss.detach(), (better > 0).to(steps.dtype))
            for name, metric in zip(self.METRICS, metrics, strict=True):
                totals[name] = totals[name] + weighted_mean(metric, batch.weight) / self.gradient_steps
        return totals | {"steps": steps}
