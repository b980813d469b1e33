"""A replay memory of finished episodes: what was seen and done, and the return that followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.memory.replay import CONTINUES, REWARD, Batch, Replay
from lab.memory.spec import ReplaySpec
from lab.memory.sum_tree import SumTree

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.memory.rollout import Rollout
    from lab.memory.statistics import Statistics


class EpisodeReplay(Replay):
    """Steps of a stack, which can be drawn from when their episode has ended.

    Then a step's return takes the place of its reward, and nothing is left that follows: the discount is 0. Until
    then its priority is 0. The return of a truncated episode is completed by the value of the state it stopped in, as
    truncations are everywhere. An episode of which the beginning is no longer kept is remembered without it.

    Returns are kept in the environment's own units, the value that completes one included, and scaled when they are
    drawn. Their rewards are not clipped one by one, which only the statistics of one moment could do.
    """

    KEY = "algo.sil.memory"

    def __init__(
        self, spec: ReplaySpec, observations: Box, actions: torch.Tensor, stack: int, num_envs: int, horizon: int
    ) -> None:
        """Make an empty memory; the arguments are those of Replay."""
        super().__init__(spec, observations, actions, stack, num_envs, horizon)
        self._tree = SumTree(stack, self.steps * num_envs)  # of ones, if priorities are not asked for
        self._begun = np.zeros((stack, num_envs), np.int64)  # the step in which the episode that goes on began

    @property
    def known(self) -> np.ndarray:
        """Whether each Session has a step that can be drawn, [S]."""
        assert self._tree
        known: np.ndarray = self._tree.totals > 0
        return known

    def add_episodes(self, rollout: Rollout, next_value: torch.Tensor, gamma: torch.Tensor | float) -> None:
        """Take in a horizon of steps, and find the returns of the episodes that ended in it.

        Args:
            rollout: the steps.
            next_value: value of the state that each step led to, [T, S, E], of rewards as they are normalized now.
            gamma: discount, [S, 1].
        """
        start = self.count
        self._write(rollout)
        self._forget()
        if rollout.statistics:
            next_value = rollout.statistics.unscale_returns(next_value)
        gammas = torch.as_tensor(gamma).flatten().tolist()
        going, values = 1 - rollout.terminated.cpu().numpy(), next_value.cpu().numpy()
        for t, s, e in np.argwhere(rollout.done.cpu().numpy() > 0):
            steps = np.arange(max(self._begun[s, e], self.count - self.kept), start + t + 1)
            self._begun[s, e] = start + t + 2  # after the step in which the environment is reset
            if len(steps):
                self._complete(s, e, steps, float(going[t, s, e] and values[t, s, e]), gammas[s])

    def _complete(self, s: int, e: int, steps: np.ndarray, following: float, gamma: float) -> None:
        """Set the returns of the steps of an episode, after which `following` comes."""
        slots = steps % self.steps
        rewards = self._facts[s, slots, e, REWARD].tolist()
        for k in reversed(range(len(rewards))):
            rewards[k] = following = rewards[k] + gamma * following
        self._facts[s, slots, e, REWARD] = self._facts.new_tensor(rewards)
        self._facts[s, slots, e, CONTINUES] = 0.0
        self._set_priority(s, slots * self.num_envs + e, self._highest[s])

    def cut(self, index: int) -> None:
        """Leave the episodes out that go on in one Session: its environments were made anew."""
        self._begun[index] = self.count

    def sample(
        self,
        shares: np.ndarray,
        gamma: torch.Tensor | float,
        progress: float,
        statistics: Statistics | None = None,
    ) -> Batch:
        """Draw a minibatch for every Session, whose rewards are returns; weights are 0 where none is known."""
        batch = super().sample(shares, gamma, progress, statistics)
        batch.weight[torch.from_numpy(~self.known).to(self.device)] = 0.0
        return batch

    def _scale(self, reward: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        return statistics.scale_returns(reward)

    def _changes(self, index: int, changed: np.ndarray) -> dict[str, torch.Tensor | None]:
        return super()._changes(index, changed) | {"changed_facts": self._facts[index].flatten(0, 1)[changed]}

    def _change(self, index: int, changed: np.ndarray, content: dict[str, Any]) -> None:
        super()._change(index, changed, content)
        self._facts[index].view(-1, self._facts.shape[-1])[changed] = content["changed_facts"].to(self.device)

    def save(self, index: int, folder: Path, write: Callable[[Path, dict[str, Any]], None]) -> dict[str, Any]:
        """Write what is new in one Session, as Replay does: the returns that became known since are part of it."""
        return super().save(index, folder, write) | {"begun": self._begun[index].tolist()}

    def restore(self, index: int, state: dict[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]) -> None:
        """Set one Session's memory to what it was when `save` returned `state`."""
        super().restore(index, state, folder, read)
        self._begun[index] = state["begun"]
