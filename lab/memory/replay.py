"""A replay memory: the newest transitions of every Session, for off-policy learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.common.imports import torch
from lab.common.transfer import upload
from lab.memory.rings import CONTINUES, DONE, REWARD, VALID, Rings
from lab.memory.spec import ReplaySpec

if TYPE_CHECKING:
    from lab.env.spaces import Spaces
    from lab.memory.rollout import Rollout, Statistics


@dataclass
class Batch:
    """Transitions drawn from a memory.

    Attributes:
        observation: [S, B, ...].
        action: [S, B, ...].
        reward: sum of the discounted rewards of up to n steps, [S, B].
        discount: of the value of `next_observation`, [S, B]; 0 where the episode terminated.
        next_observation: [S, B, ...]; at an episode's end, its true last observation.
        weight: weight of each transition in its Session's loss, [S, B]: 0 for autoreset steps; importance weights if
            the memory is prioritized.
    """

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    discount: torch.Tensor
    next_observation: torch.Tensor
    weight: torch.Tensor


class Replay(Rings):
    """Rings of steps, from which transitions of up to n rewards are drawn.

    Observations and rewards are normalized when they are drawn, by the statistics of that moment. A position is the
    index of a step in a Session's ring with L and E flattened.
    """

    def __init__(
        self,
        spec: ReplaySpec,
        spaces: Spaces,
        actions: torch.Tensor,
        stack: int,
        num_envs: int,
        horizon: int,
        n: int = 1,
    ) -> None:
        """Make an empty memory of transitions of `n` rewards; the other arguments are those of Rings."""
        super().__init__(spec, spaces, actions, stack, num_envs, horizon)
        self.n = n
        numbers = (spec.alpha, spec.eps, spec.beta, spec.beta_final)
        self._alpha, self._eps, self._beta, self._beta_final = (
            torch.as_tensor(number).expand(stack, 1).flatten().tolist() for number in numbers
        )

    @property
    def num_available(self) -> int:
        """Transitions that can be drawn now, including autoreset steps."""
        return max(min(self.count, self.capacity) - (self.n - 1), 0) * self.num_envs

    def add(self, rollout: Rollout) -> None:
        """Add a horizon of steps."""
        self._write(rollout)
        if self._tree:
            self._clear_old_priorities()
            ready = np.arange(self.count - self.horizon - self.n + 1, self.count - self.n + 1)
            ready = ready[ready >= 0]
            slots = upload(ready % self.ring_length, self.device)
            valid = self._scalars.index_select(1, slots)[..., VALID].flatten(1).cpu().numpy()
            self._set_priorities(self._positions(ready), valid * self._max_priority[:, None])

    def _clear_old_priorities(self) -> None:
        """Set the priorities of the steps to 0 that left the capacity with the last horizon."""
        old = np.arange(self.count - self.horizon - self.capacity, self.count - self.capacity)
        self._set_priorities(self._positions(old), np.zeros((len(self._max_priority), len(old) * self.num_envs)))

    def _positions(self, steps: np.ndarray) -> np.ndarray:
        """Return the positions [1, N * E] of steps [N] of all environments."""
        positions: np.ndarray = (steps % self.ring_length)[:, None] * self.num_envs + np.arange(self.num_envs)
        return positions.reshape(1, -1)

    def _set_priorities(self, positions: np.ndarray, values: np.ndarray, session: int | None = None) -> None:
        """Set priorities [S, B], or [1, B] of one Session."""
        assert self._tree
        rows = slice(None) if session is None else slice(session, session + 1)
        positions = np.broadcast_to(positions, values.shape)
        self._tree.set(positions, values, None if session is None else np.array([session]))
        np.put_along_axis(self._changed[rows], positions, True, 1)

    def cut_episodes(self, index: int) -> None:
        """Exclude one Session's last step, because its environments were made again and its next state is unknown."""
        if self.count:
            last = np.array([self.count - 1])
            self._scalars[index, last % self.ring_length, :, VALID] = 0.0
            if self._tree:
                self._set_priorities(self._positions(last), np.zeros((1, self.num_envs)), index)

    def draw(self, uniforms: np.ndarray, progress: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw a minibatch for every Session, and return positions and importance weights, [S, B].

        Args:
            uniforms: random numbers in [0, 1) of each Session's own stream, [S, B].
            progress: fraction of the Session's frames that are done; beta is annealed by it.
        """
        batch = uniforms.shape[1]
        ring = self.ring_length * self.num_envs
        if self._tree:
            position = self._tree.find((np.arange(batch) + uniforms) / batch)
            if self.spec.combined:
                position[:, -1] = (self.count - self.n) % self.ring_length * self.num_envs + self._draw_env(uniforms)
            return position, self._importance_weights(position, progress)
        drawn = (uniforms * self.num_available).astype(np.int64)
        if self.spec.combined:
            drawn[:, -1] = self.num_available - self.num_envs + self._draw_env(uniforms)
        oldest = self.count - self.num_available // self.num_envs - (self.n - 1)
        return (oldest * self.num_envs + drawn) % ring, None

    def read(
        self,
        position: torch.Tensor,
        importance: torch.Tensor | None,
        gamma: torch.Tensor | float,
        statistics: Statistics | None = None,
    ) -> Batch:
        """Return the transitions that `draw` has drawn.

        Args:
            position: [S, B], on the device of the rings.
            importance: importance weights, [S, B]; None for equal ones.
            gamma: discount, [S, 1].
            statistics: to normalize observations and rewards; None for none.
        """
        reward, discount, valid, length = self._n_step_returns(position, gamma, statistics)
        weight = valid / valid.sum(-1, keepdim=True).clamp(min=1.0)
        if importance is not None:
            weight = weight * importance
        return Batch(
            observation=self._observations(position, statistics),
            action=self._gather(self._action, position),
            reward=reward,
            discount=discount,
            next_observation=self._observations(self._later(position, length), statistics),
            weight=weight,
        )

    def sample(
        self,
        uniforms: np.ndarray,
        gamma: torch.Tensor | float,
        progress: float,
        statistics: Statistics | None = None,
    ) -> tuple[Batch, np.ndarray]:
        """Draw and read a minibatch; return it and its positions [S, B]."""
        position, importance = self.draw(uniforms, progress)
        weights = None if importance is None else upload(importance, self.target)
        return self.read(upload(position, self.device), weights, gamma, statistics), position

    def _draw_env(self, uniforms: np.ndarray) -> np.ndarray:
        """Return the environment [S] whose newest transition is the last of a minibatch (`combined`)."""
        return (uniforms[:, -1] * self.num_envs).astype(np.int64)

    def _later(self, position: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
        """Return the positions some steps later."""
        steps = steps.to(self.device) if isinstance(steps, torch.Tensor) else steps
        return (position + steps * self.num_envs) % (self.ring_length * self.num_envs)

    def _gather(self, ring: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the entries [S, B, ...] of a ring at positions [S, B], on the device of the networks."""
        rows = upload(self._rows(ring, position), self.target)
        return rows.float() if rows.dtype == torch.float16 else rows

    def _rows(self, ring: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the entries [S, B, ...] of a ring at positions [S, B]."""
        flat, stack = ring.flatten(1, 2), len(ring)
        offsets = torch.arange(0, stack * flat.shape[1], flat.shape[1], device=position.device).unsqueeze(1)
        rows = flat.flatten(0, 1).index_select(0, (position + offsets).flatten())
        return rows.view(*position.shape, *ring.shape[3:])

    def _observations(self, position: torch.Tensor, statistics: Statistics | None) -> torch.Tensor:
        frames = [self._gather(self._observation, position)]
        for _ in range(self._frames - 1):
            before = self._later(position, -1)
            # The step before an episode is one of autoreset, or was never taken.
            exists = self._rows(self._scalars, before)[..., VALID] > 0
            position = torch.where(exists, before, position)
            frame = self._gather(self._observation, position)
            if self._zero_padding:
                frame = torch.where(exists.to(frame.device).view(*exists.shape, *[1] * (frame.dim() - 2)), frame, 0)
            frames.insert(0, frame)
        raw = torch.cat(frames, 2) if len(frames) > 1 else frames[0]
        return statistics.normalize_observations(raw) if statistics else raw

    def _normalize_rewards(self, reward: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        return statistics.normalize_rewards(reward)

    def _n_step_returns(
        self, position: torch.Tensor, gamma: torch.Tensor | float, statistics: Statistics | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | int]:
        """Return reward, discount and validity [S, B] of transitions, and their lengths in steps."""
        first = self._gather(self._scalars, position)

        def rewards(step: torch.Tensor) -> torch.Tensor:
            return self._normalize_rewards(step[..., REWARD], statistics) if statistics else step[..., REWARD]

        if self.n == 1:
            return rewards(first), gamma * first[..., CONTINUES], first[..., VALID], 1
        reward, discount = torch.zeros_like(first[..., 0]), torch.ones_like(first[..., 0])
        going, length = discount.clone(), torch.zeros_like(reward)
        for k in range(self.n):
            step = self._gather(self._scalars, self._later(position, k)) if k else first
            going = going * step[..., VALID]
            reward = reward + going * discount * rewards(step)
            discount = torch.where(going > 0, discount * gamma * step[..., CONTINUES], discount)
            length = length + going
            going = going * (1 - step[..., DONE])
        return reward, discount, first[..., VALID], length.long()

    def _importance_weights(self, position: np.ndarray, progress: float) -> np.ndarray:
        """Return importance weights [S, B], each Session's largest being 1 (Schaul et al. 2016, section 3.4)."""
        assert self._tree
        weights = np.empty(position.shape, np.float32)
        # One Session at a time: numpy may round a power differently at another place in an array (law 1).
        for s, total in enumerate(self._tree.totals):
            leaves = self._tree.leaves[s, position[s]]
            probability = np.maximum(leaves, 1e-30) / max(total, 1e-30)
            beta = self._beta[s] + (self._beta_final[s] - self._beta[s]) * progress
            # Priority 0, as the newest step of `combined` may have, must not determine the largest weight.
            row = np.where(leaves > 0, (self.num_available * probability) ** -beta, 0.0)
            weights[s] = row / max(row.max(), 1e-30)
        return weights

    def update_priorities(self, position: np.ndarray, errors: torch.Tensor) -> None:
        """Set the priorities of transitions at positions [S, B] by their errors [S, B]."""
        if not self.spec.prioritized:
            return
        assert self._tree
        magnitudes = errors.detach().abs().cpu().numpy().astype(np.float64)
        priorities = np.empty_like(magnitudes)
        for s, row in enumerate(magnitudes):
            priorities[s] = np.where(np.isfinite(row), row + self._eps[s], 1.0) ** self._alpha[s]
        priorities *= self._tree.leaves[np.arange(len(priorities))[:, None], position] > 0  # not autoreset steps
        self._max_priority = np.maximum(self._max_priority, priorities.max(1))
        self._set_priorities(position, priorities)
