"""The base of algorithms with a replay memory: when they learn, and from which transitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lab.algo.algorithm import Algorithm, compilable
from lab.algo.samples import has_samples
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.transfer import upload
from lab.common.validation import Count, Natural
from lab.env.spec import EnvSpec
from lab.errors import require
from lab.memory.replay import Replay
from lab.memory.spec import ReplaySpec
from lab.net.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.memory.rollout import Rollout, Statistics
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

    def learning_steps(self, frames: int, num_envs: int) -> int:
        return super().learning_steps(frames - self.learning_starts, num_envs) * self.gradient_steps

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        super().check_spaces(spaces, env)
        self.memory.check_observations("algo.memory", spaces.observation, env.id)

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        super().build(spaces, net, streams, device)
        self.num_updates = 0

    def allocate(self, num_envs: int) -> None:
        example, stack = self.example_action(), len(self.active)
        self.replay = Replay(self.memory, self.spaces, example, stack, num_envs, self.horizon, self.n_step)

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
            position, importance = self.replay.draw(drawn, fraction_done)
            weights = None if importance is None else upload(importance, steps.device)
            self.num_updates += 1
            result, errors = self.gradient_step(
                upload(position, self.replay.device),
                weights,
                self.draw_update_noise(streams),
                rollout.statistics,
                diagnose=diagnose or self.compiler is not None,  # one program instead of two
                **self.step_parts,
            )
            took = result.pop("steps")
            self.update_targets(took.unsqueeze(1))
            if self.memory.prioritized:
                self.replay.update_priorities(position, errors)
            steps = steps + took
            metrics |= result
        if not diagnose:
            return {"steps": steps}
        frames = torch.full_like(steps, self.replay.num_available)
        metrics |= {"learning_rate": self.learning_rate[:, 0], "replay_frames": frames}
        return {**metrics, **self.scheduled_values(fraction_done), "steps": steps}

    def draw_update_noise(self, streams: list[Streams]) -> torch.Tensor | None:
        """Draw the randomness of a gradient step, [..., S, B, ...]; None if it has none."""
        return None

    @property
    def step_parts(self) -> dict[str, bool]:
        """What the next gradient step includes, as keyword arguments of `update`."""
        return {}

    def update_targets(self, mask: torch.Tensor) -> None:
        """Update target networks after a gradient step, where `update` does not; mask as there."""

    def scheduled_values(self, fraction_done: float) -> dict[str, torch.Tensor]:
        """Return metrics [S] of scheduled hyperparameters other than the learning rate."""
        return {}

    @compilable
    def gradient_step(
        self,
        position: torch.Tensor,
        importance: torch.Tensor | None,
        noise: torch.Tensor | None,
        statistics: Statistics | None,
        diagnose: bool,
        **parts: bool,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take a gradient step on transitions that the memory has drawn.

        Args:
            position: of the transitions, [S, B].
            importance: their importance weights, [S, B], if the memory is prioritized.
            noise: what `draw_update_noise` returned.
            statistics: to normalize the transitions.
            diagnose: whether to return metrics other than `steps`.
            parts: what the step includes.

        Returns:
            Metrics [S], among them `steps`, and the errors that become priorities, [S, B].
        """
        assert self.replay is not None
        batch = self.replay.read(position, importance, self.gamma, statistics)
        mask = self.active * has_samples(batch.weight)
        metrics, errors = self.update(batch, noise, mask, diagnose, **parts)
        return {**metrics, "steps": mask[:, 0]}, errors

    def update(
        self, batch: Batch, noise: torch.Tensor | None, mask: torch.Tensor, diagnose: bool, **parts: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take one gradient step, as part of `gradient_step`, which is compiled.

        Args:
            batch: transitions.
            noise: what `draw_update_noise` returned.
            mask: 1 for Sessions that take this step, 0 for others, [S, 1].
            diagnose: whether to return metrics.
            parts: what the step includes.

        Returns:
            Metrics [S], and the errors that become priorities, [S, B].
        """
        raise NotImplementedError

    def state(self, index: int) -> dict[str, Any]:
        return {**super().state(index), "num_updates": self.num_updates}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        super().restore(index, state)
        self.num_updates = state["num_updates"]
