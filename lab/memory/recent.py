"""The newest steps of every environment in their order, for learning from episodes longer than a horizon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.common.text import format_bytes
from lab.common.transfer import upload
from lab.memory.replay import Replay
from lab.memory.rings import DONE, REWARD, VALID
from lab.memory.rollout import Rollout
from lab.memory.spec import ReplaySpec

if TYPE_CHECKING:
    from lab.env.spaces import Spaces
    from lab.memory.rollout import Statistics

MIN_BLOCK_STEPS = 64  # shorter horizons are merged into a block, because networks are slow on few samples
MAX_BLOCKS = 256


class RecentSteps(Replay):
    """The last W steps of every environment, which are read in blocks of whole horizons.

    Attributes:
        block: steps in a block.
        blocks: number of blocks; W = block * blocks.
        reward: of each step as the environment gave it, [W, S, E].
        done: 1 where an episode ended or was cut, [W, S, E].
        valid: 1 for steps that can be learned from, [W, S, E]; 0 for autoreset steps and before the first step.
    """

    KEY = "algo.episode_steps"
    MAY_LIE_ON_HOST = False

    def __init__(
        self,
        steps: int,
        spaces: Spaces,
        actions: torch.Tensor,
        stack: int,
        num_envs: int,
        horizon: int,
        carry_size: int,
    ) -> None:
        """Make it empty; it keeps at least `steps` of each environment, the other arguments are those of Rings."""
        self._min_steps = steps
        self.block = -(-max(MIN_BLOCK_STEPS, -(-steps // MAX_BLOCKS)) // horizon) * horizon
        self.blocks = -(-steps // self.block)
        size = self.block * self.blocks * num_envs
        spec = ReplaySpec(size, "float32", combined=False, prioritized=False, alpha=0, beta=0, beta_final=0, eps=1)
        super().__init__(spec, spaces, actions, stack, num_envs, horizon)
        self._carry = torch.zeros(stack, self.ring_length // horizon, num_envs, carry_size, device=self.device)
        self._read_scalars()

    @property
    def _size_setting(self) -> tuple[str, str]:
        return f"{self.KEY}={self._min_steps}", "try fewer"

    @property
    def description(self) -> str:
        """A sentence on how much a Session stores."""
        size = format_bytes(self.size_bytes / len(self._max_priority))
        return f"the last {self.capacity:,} steps of each environment are kept, in {size}"

    def add(self, rollout: Rollout) -> None:
        """Add a horizon of steps."""
        self._carry[:, self.count % self.ring_length // self.horizon] = rollout.carry
        self._write(rollout)
        self._read_scalars()

    def cut_episodes(self, index: int) -> None:
        """End one Session's current episodes, because its environments were made again."""
        super().cut_episodes(index)
        if self.count:
            self._scalars[index, (self.count - 1) % self.ring_length, :, DONE] = 1.0
            self._read_scalars()

    def _read_scalars(self) -> None:
        slots, exists = self._slots(0, self.capacity)
        scalars = self._scalars.index_select(1, slots).transpose(0, 1)
        self.reward = scalars[..., REWARD]
        self.done, self.valid = (scalars[..., column] * exists.view(-1, 1, 1) for column in (DONE, VALID))

    def _slots(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slots in the rings of steps `start` to `end` of the W, and 1 for those that were added.

        The slot of the first step stands for those before it, so that networks see only real observations.
        """
        steps = np.arange(start, end) + self.count - self.capacity
        slots = upload(np.maximum(steps, 0) % self.ring_length, self.device)
        return slots, upload((steps >= 0).astype(np.float32), self.device)

    def read_block(self, index: int, statistics: Statistics | None) -> Rollout:
        """Return the steps of a block, normalized by the current statistics."""
        start, end = index * self.block, (index + 1) * self.block
        slots, _ = self._slots(start, end + 1)
        position = slots.unsqueeze(1) * self.num_envs + torch.arange(self.num_envs, device=self.device)
        flat = self._observations(position.flatten().expand(len(self._observation), -1), statistics)
        observation = flat.unflatten(1, (len(slots), self.num_envs))
        reward, done, valid = (steps[start:end] for steps in (self.reward, self.done, self.valid))
        first = max(self.count - self.capacity + start, 0) % self.ring_length // self.horizon
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
        """Write one Session's steps that are new since its last save, as Rings does."""
        return super().save(index, folder, write) | {"carry": self._carry[index].cpu().clone()}

    def restore(self, index: int, state: dict[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]) -> None:
        """Restore one Session's steps from what `save` returned."""
        super().restore(index, state, folder, read)
        self._carry[index] = state["carry"].to(self.device)
        self._read_scalars()
