"""What algorithms with a replay memory share: when they learn, and from what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lab.algo.algorithm import Algorithm
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require
from lab.memory.replay import Replay
from lab.memory.spec import ReplaySpec
from lab.net.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.memory.rollout import Rollout


@dataclass
class OffPolicy(Algorithm):
    """Learns from transitions of any time, drawn from a replay memory.

    Metrics are those of the last learning step of a horizon that had them.
    """

    gradient_steps: int  # learning steps after each horizon: over horizon * env.num_envs, the update-to-data ratio
    batch_size: int  # transitions in a learning step
    learning_starts: int  # frames before learning, in which actions are random
    n_step: int  # rewards in a return before the value completes it
    memory: ReplaySpec
    optimizer: OptimizerSpec

    METRICS: ClassVar[tuple[str, ...]] = ("grad_norm", "learning_rate", "replay_frames")

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(self.gradient_steps >= 1, "algo.gradient_steps", self.gradient_steps, "1 or more")
        require(self.batch_size >= 1, "algo.batch_size", self.batch_size, "1 or more")
        require(self.learning_starts >= 0, "algo.learning_starts", self.learning_starts, "0 frames or more")
        require(self.n_step >= 1, "algo.n_step", self.n_step, "1 or more")
        least = max(self.horizon, self.n_step) * env.num_envs
        require(
            self.memory.size >= least, "algo.memory.size", self.memory.size, f"{least} or more (a horizon, or n steps)"
        )
        self.optimizer.check("algo.optimizer")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        super().check_spaces(spaces, env)
        self.memory.check_observations("algo.memory", spaces.observation, env.id)

    def prepare_memory(self, spaces: Spaces) -> None:
        """Remember what `allocate` is to need."""
        self._spaces = spaces

    def example(self) -> torch.Tensor:
        """Return any one action of the policy."""
        raise NotImplementedError

    def allocate(self, num_envs: int) -> None:
        observations = self._spaces.observation
        stack = len(self.active)
        self.replay = Replay(self.memory, observations, self.example(), stack, num_envs, self.horizon, self.n_step)

    @property
    def exploring(self) -> bool:
        """Whether actions are random, as nothing is learned from yet."""
        return self.replay is not None and self.replay.frames < self.learning_starts

    def learn(
        self, rollout: Rollout, streams: list[Streams], progress: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        assert self.replay is not None
        self.replay.add(rollout)
        stack = len(streams)
        if self.exploring or not self.replay.num_available:
            return {"steps": torch.zeros(stack, device=self.active.device)}
        chosen = np.stack([stream.minibatches.random((self.gradient_steps, self.batch_size)) for stream in streams], 1)
        self.update_learning_rates(progress)
        steps = torch.zeros_like(self.active[:, 0])
        metrics: dict[str, torch.Tensor] = {}
        for drawn in chosen:
            batch = self.replay.sample(drawn, self.gamma, progress, rollout.statistics)
            active = self.active * (batch.weight.sum(-1, keepdim=True) > 0).to(self.active.dtype)
            metrics |= self.update(batch, streams, active, diagnose)
            steps = steps + metrics.pop("steps")
        if diagnose:
            frames = torch.full_like(steps, self.replay.num_available)
            metrics |= {**self.rates(progress), "learning_rate": self.learning_rate[:, 0], "replay_frames": frames}
        return {**metrics, "steps": steps}

    def rates(self, progress: float) -> dict[str, torch.Tensor]:
        """Return metrics [S] of what changes by a schedule, apart from the learning rate."""
        return {}

    def update(
        self, batch: Batch, streams: list[Streams], active: torch.Tensor, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        """Take one learning step.

        Args:
            batch: transitions.
            streams: each Session's random streams.
            active: [S, 1], 0 for Sessions that do not take this step.
            diagnose: whether to compute the metrics that cost time too.

        Returns:
            Metrics [S], and `steps`: 1 for each Session that took it.
        """
        raise NotImplementedError


def shares(batch: Batch) -> torch.Tensor:
    """Return each transition's share [S, B] of an average over a minibatch."""
    return batch.weight / batch.weight.sum(-1, keepdim=True).clamp(min=1e-8)
