"""The base of algorithms with a replay memory: when they learn, and from which transitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lab.algo.algorithm import Algorithm
from lab.algo.samples import has_samples
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count, Natural
from lab.env.spec import EnvSpec
from lab.errors import require
from lab.memory.replay import Replay
from lab.memory.spec import ReplaySpec
from lab.net.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.memory.rollout import Rollout
    from lab.net.net import Net


@dataclass
class OffPolicy(Algorithm):
    """Learns from transitions drawn from a replay memory.

    Metrics are those of the last gradient step of a horizon.

    Attributes set by `build`:
        num_updates: gradient steps so far.
    """

    gradient_steps: Count
    batch_size: Count
    learning_starts: Natural
    n_step: Count
    memory: ReplaySpec
    optimizer: OptimizerSpec

    METRICS: ClassVar[tuple[str, ...]] = ("grad_norm", "learning_rate", "replay_frames")

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        size, least = self.memory.size, max(self.horizon, self.n_step) * env.num_envs
        require(size >= least, "algo.memory.size", size, f"{least} or more (a horizon, or n steps)")
        self.optimizer.check("algo.optimizer")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        super().check_spaces(spaces, env)
        self.memory.check_observations("algo.memory", spaces.observation, env.id)

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        super().build(spaces, net, streams, device)
        self.num_updates = 0

    def allocate(self, num_envs: int) -> None:
        observations, example, stack = self.spaces.observation, self.example_action(), len(self.active)
        self.replay = Replay(self.memory, observations, example, stack, num_envs, self.horizon, self.n_step)

    @property
    def is_warming_up(self) -> bool:
        """Whether actions are random, before the first `learning_starts` frames are over."""
        return self.replay is not None and self.replay.frames < self.learning_starts

    def learn(
        self, rollout: Rollout, streams: list[Streams], fraction_done: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        assert self.replay is not None
        self.replay.add(rollout)
        steps = torch.zeros_like(self.active[:, 0])
        if self.is_warming_up or not self.replay.num_available:
            return {"steps": steps}
        size = (self.gradient_steps, self.batch_size)
        uniforms = np.stack([stream.minibatches.random(size) for stream in streams], 1)
        self.update_learning_rates(fraction_done)
        metrics: dict[str, torch.Tensor] = {}
        for drawn in uniforms:
            batch = self.replay.sample(drawn, self.gamma, fraction_done, rollout.statistics)
            mask = self.active * has_samples(batch.weight)
            self.num_updates += 1
            metrics |= self.update(batch, streams, mask, diagnose)
            steps = steps + mask[:, 0]
        if diagnose:
            frames = torch.full_like(steps, self.replay.num_available)
            metrics |= {"learning_rate": self.learning_rate[:, 0], "replay_frames": frames}
            metrics |= self.scheduled_values(fraction_done)
        return {**metrics, "steps": steps}

    def scheduled_values(self, fraction_done: float) -> dict[str, torch.Tensor]:
        """Return metrics [S] of scheduled hyperparameters other than the learning rate."""
        return {}

    def update(
        self, batch: Batch, streams: list[Streams], mask: torch.Tensor, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        """Take one gradient step.

        Args:
            batch: transitions.
            streams: each Session's random streams.
            mask: 1 for Sessions that take this step, 0 for others, [S, 1].
            diagnose: whether to compute the metrics that cost time too.

        Returns:
            Metrics [S].
        """
        raise NotImplementedError

    def state(self, index: int) -> dict[str, Any]:
        return {**super().state(index), "num_updates": self.num_updates}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        super().restore(index, state)
        self.num_updates = state["num_updates"]
