"""The newest steps of every environment, in their order: for learning from episodes longer than a horizon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.common.text import format_bytes
from lab.memory.replay import DONE, REWARD, VALID, Replay
from lab.memory.rollout import Rollout
from lab.memory.spec import ReplaySpec

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.memory.statistics import Statistics

LEAST = 64  # steps in a block: shorter horizons are put together, as networks are slow with few samples
MOST = 256  # blocks


class RecentSteps(Replay):
    """The last W steps of every environment, which are read in blocks of whole horizons.

    Attributes:
        block: steps in a block, L.
        blocks: how many there are; W = L * blocks.
        reward: of each step as the environment gave it, [W, S, E].
        done: 1 where an episode ended, or was broken off, [W, S, E].
        valid: 1 for steps that can be learned from, [W, S, E]: 0 for resets, and for what is before the first step.
    """

    KEY = "algo.episode_steps"

    def __init__(
        self,
        steps: int,
        observations: Box,
        actions: torch.Tensor,
        stack: int,
        num_envs: int,
        horizon: int,
        carry_size: int,
    ) -> None:
        """Make it empty; `steps` are kept of each environment at least, the other arguments are those of Replay."""
        self._asked = steps
        self.block = -(-max(LEAST, -(-steps // MOST)) // horizon) * horizon
        self.blocks = -(-steps // self.block)
        size = self.block * self.blocks * num_envs
        spec = ReplaySpec(size, "float32", combined=False, prioritized=False, alpha=0, beta=0, beta_final=0, eps=1)
        super().__init__(spec, observations, actions, stack, num_envs, horizon)
        self._carry = torch.zeros(stack, self.steps // horizon, num_envs, carry_size, device=self.device)
        self._read_facts()

    @property
    def _too_large(self) -> tuple[str, str]:
        return f"{self.KEY}={self._asked}", "try fewer"

    @property
    def description(self) -> str:
        """How much a Session keeps, in words."""
        return f"the last {self.kept:,} steps of each environment are kept, in {format_bytes(self.session_bytes)}"

    def add(self, rollout: Rollout) -> None:
        """Take in a horizon of steps."""
        self._carry[:, self.count % self.steps // self.horizon] = rollout.carry
        self._write(rollout)
        self._read_facts()

    def cut(self, index: int) -> None:
        """End the episodes that go on in one Session: its environments were made anew, so that none is complete."""
        super().cut(index)
        if self.count:
            self._facts[index, (self.count - 1) % self.steps, :, DONE] = 1.0
            self._read_facts()

    def _read_facts(self) -> None:
        slots, exists = self._slots(0, self.kept)
        facts = self._facts.index_select(1, slots).transpose(0, 1)
        self.reward = facts[..., REWARD]
        self.done, self.valid = (facts[..., column] * exists.view(-1, 1, 1) for column in (DONE, VALID))

    def _slots(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where in the rings steps `start` to `end` of the W are, and 1 for those that there have been.

        The first step of all stands for what is before it, so that networks see nothing that could not be.
        """
        steps = np.arange(start, end) + self.count - self.kept
        slots = torch.from_numpy(np.maximum(steps, 0) % self.steps).to(self.device)
        return slots, torch.from_numpy((steps >= 0).astype(np.float32)).to(self.device)

    def read_block(self, index: int, statistics: Statistics | None) -> Rollout:
        """Return the steps of a block, normalized by the statistics of now."""
        start, end = index * self.block, (index + 1) * self.block
        slots, _ = self._slots(start, end + 1)
        observation = self._observation.index_select(1, slots)
        if statistics:
            flat = statistics.normalize_observations(observation.flatten(1, 2))
            observation = flat.unflatten(1, (len(slots), self.num_envs))
        reward, done, valid = (steps[start:end] for steps in (self.reward, self.done, self.valid))
        first = max(self.count - self.kept + start, 0) % self.steps // self.horizon
        return Rollout(
            observation=observation.transpose(0, 1),
            action=self._action.index_select(1, slots[:-1]).transpose(0, 1),
            reward=statistics.normalize_rewards(reward) if statistics else reward,
            terminated=done,
            truncated=torch.zeros_like(done),
            valid=valid,
            carry=self._carry[:, first],
        )

    def save(self, index: int, folder: Path, write: Callable[[Path, dict[str, Any]], None]) -> dict[str, Any]:
        """Write what is new in one Session, as Replay does."""
        return super().save(index, folder, write) | {"carry": self._carry[index].cpu().clone()}

    def restore(self, index: int, state: dict[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]) -> None:
        """Set one Session's steps to what they were when `save` returned `state`."""
        super().restore(index, state, folder, read)
        self._carry[index] = state["carry"].to(self.device)
        self._read_facts()
