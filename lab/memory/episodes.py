"""A replay memory of finished episodes: observations, actions and the returns that followed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.common.transfer import upload
from lab.memory.replay import Replay
from lab.memory.rings import CONTINUES, REWARD
from lab.memory.spec import ReplaySpec
from lab.memory.sum_tree import SumTree

if TYPE_CHECKING:
    from lab.env.spaces import Spaces
    from lab.memory.rollout import Rollout, Statistics


class EpisodeReplay(Replay):
    """Steps of a stack that can be drawn once their episode has ended; until then their priority is 0.

    The return replaces a step's reward then, and its discount is 0. The return of a truncated episode ends with the
    value of its last state. Steps that leave the capacity before their episode ends are lost.

    Returns, and the values that complete them, are stored in the environment's own units and scaled when they are
    drawn. Rewards are not clipped one by one: only the statistics of a single moment could do that.
    """

    KEY = "algo.sil.memory"

    def __init__(
        self, spec: ReplaySpec, spaces: Spaces, actions: torch.Tensor, stack: int, num_envs: int, horizon: int
    ) -> None:
        """Make an empty memory; the arguments are those of Rings."""
        super().__init__(spec, spaces, actions, stack, num_envs, horizon)
        self._tree = SumTree(stack, self.ring_length * num_envs)  # with priorities of 1 if it is not prioritized
        self._episode_start = np.zeros((stack, num_envs), np.int64)  # first step of the current episode
        # Returns are computed on the host, which is to wait for the device once in a horizon.
        self._rewards = np.zeros((stack, self.ring_length, num_envs), np.float32)

    @property
    def has_episodes(self) -> np.ndarray:
        """Whether each Session has a step that can be drawn, [S]."""
        assert self._tree
        result: np.ndarray = self._tree.totals > 0
        return result

    def add_episodes(self, rollout: Rollout, next_value: torch.Tensor, gamma: torch.Tensor | float) -> None:
        """Add a horizon of steps, and compute the returns of the episodes that ended in it.

        Args:
            rollout: the steps.
            next_value: value of the state that each step led to, in the current units of rewards, [T, S, E].
            gamma: discount, [S, 1].
        """
        start = self.count
        self._write(rollout)
        self._clear_old_priorities()
        if rollout.statistics:
            next_value = rollout.statistics.unscale_returns(next_value)
        last_values = torch.where(rollout.terminated > 0, 0.0, next_value)
        reward = (rollout.raw or rollout).reward
        parts = [reward, rollout.done, last_values, torch.zeros_like(reward) + gamma]
        rewards, done, values, gammas = torch.stack(parts).cpu().numpy()
        slot = start % self.ring_length
        self._rewards[:, slot : slot + self.horizon] = rewards.swapaxes(0, 1)
        positions, returns = [], []
        for t, s, e in np.argwhere(done > 0):
            steps = np.arange(max(self._episode_start[s, e], self.count - self.capacity), start + t + 1)
            self._episode_start[s, e] = start + t + 2  # after the autoreset step
            if len(steps):
                slots = steps % self.ring_length
                own = (slots * self.num_envs + e)[None]
                self._set_priorities(own, np.full(own.shape, self._max_priority[s]), s)
                positions.append(own[0] + s * self._rewards[0].size)
                returns.append(_returns(self._rewards[s, slots, e], float(values[t, s, e]), float(gammas[t, s, e])))
        if positions:
            rows = upload(np.concatenate(positions), self.device)
            scalars = self._scalars.view(-1, self._scalars.shape[-1])
            scalars[:, REWARD].index_copy_(0, rows, upload(np.concatenate(returns), self.device))
            scalars[:, CONTINUES].index_fill_(0, rows, 0.0)

    def cut_episodes(self, index: int) -> None:
        """Exclude one Session's current episodes, because its environments were made again."""
        super().cut_episodes(index)
        self._episode_start[index] = self.count

    def draw(self, uniforms: np.ndarray, progress: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw steps, whose rewards are returns; all importance weights of a Session without episodes are 0."""
        position, importance = super().draw(uniforms, progress)
        assert importance is not None
        importance[~self.has_episodes] = 0.0
        return position, importance

    def _normalize_rewards(self, reward: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        return statistics.scale_returns(reward)

    def _read_changed(self, index: int, changed: np.ndarray) -> dict[str, torch.Tensor | None]:
        scalars = self._scalars[index].flatten(0, 1)[changed]
        return super()._read_changed(index, changed) | {"changed_scalars": scalars}

    def _write_changed(self, index: int, changed: np.ndarray, content: dict[str, Any]) -> None:
        super()._write_changed(index, changed, content)
        scalars = self._scalars[index].view(-1, self._scalars.shape[-1])
        scalars[changed] = content["changed_scalars"].to(self.device)

    def save(self, index: int, folder: Path, write: Callable[[Path, dict[str, Any]], None]) -> dict[str, Any]:
        """Write one Session's steps and returns that are new since its last save, as Rings does."""
        return super().save(index, folder, write) | {"episode_start": self._episode_start[index].tolist()}

    def restore(self, index: int, state: dict[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]) -> None:
        """Restore one Session's memory from what `save` returned."""
        super().restore(index, state, folder, read)
        self._episode_start[index] = state["episode_start"]
        self._rewards[index] = self._scalars[index, ..., REWARD].cpu().numpy()


def _returns(rewards: np.ndarray, following: float, gamma: float) -> np.ndarray:
    """Return the discounted return of each step of an episode, whose last one is followed by that of `following`."""
    returns = rewards.tolist()
    for k in reversed(range(len(returns))):
        returns[k] = following = returns[k] + gamma * following
    return np.array(returns, np.float32)
