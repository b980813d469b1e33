"""A replay memory: the newest transitions of every Session, for off-policy learning."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.common.text import format_bytes
from lab.common.transfer import upload
from lab.memory.spec import FLOAT16_MAX, ReplaySpec, place
from lab.memory.sum_tree import SumTree

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.memory.rollout import Rollout, Statistics

REWARD, CONTINUES, DONE, VALID = range(4)  # columns of a step's scalars


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


class Replay:
    """Ring buffers [S, L, E, ...] of a stack's steps; the next observation of a step is that of the step after it.

    Observations and rewards are stored as the environments gave them. They are normalized when they are drawn, by the
    statistics of that moment. A position is the index of a step in a Session's ring with L and E flattened.

    Attributes:
        count: steps added so far, for each environment.
        capacity: newest steps of each environment that can be drawn.
        ring_length: L, whole horizons that hold the capacity and one more observation.
        device: of the rings: that of the networks, or the CPU if they do not fit there.
        target: device of the networks.
    """

    KEY = "algo.memory"  # config group of the settings
    READ_ONLY = True  # whether learning steps write to none of its tensors, so that a CUDA graph needs no copy of them
    MAY_LIE_ON_HOST = True  # whether minibatches can be read from another device than that of the networks

    def __init__(
        self,
        spec: ReplaySpec,
        observations: Box,
        actions: torch.Tensor,
        stack: int,
        num_envs: int,
        horizon: int,
        n: int = 1,
    ) -> None:
        """Make an empty memory, or raise LabError if it does not fit.

        Args:
            spec: the settings; numbers with a decimal point are vectors [S, 1].
            observations: one environment's observations.
            actions: an example of a policy's action, with its shape, dtype and device.
            stack: S.
            num_envs: E.
            horizon: steps added at a time, T.
            n: rewards in a transition.
        """
        self.spec, self.num_envs, self.horizon, self.n, self.target = spec, num_envs, horizon, n, actions.device
        self.capacity = -(-spec.size // num_envs)
        self.ring_length = (-(-self.capacity // horizon) + 1) * horizon
        dtype = torch.uint8 if observations.dtype == np.uint8 else getattr(torch, spec.dtype)
        ring = (stack, self.ring_length, num_envs)
        arrays = [((*ring, *observations.shape), dtype), ((*ring, *actions.shape), actions.dtype), ((*ring, 4), None)]
        self.size_bytes = sum(math.prod(shape) * (dtype or torch.float32).itemsize for shape, dtype in arrays)
        places = [self.target, torch.device("cpu")] if self.MAY_LIE_ON_HOST else [self.target]
        self.device = place(self.size_bytes, places, *self._size_setting)
        self._observation, self._action, self._scalars = (
            torch.zeros(shape, dtype=dtype, device=self.device) for shape, dtype in arrays
        )
        self.count = 0
        self._tree = SumTree(stack, self.ring_length * num_envs) if spec.prioritized else None
        self._changed = np.zeros((stack, self.ring_length * num_envs), bool)  # positions with a new priority
        self._max_priority = np.ones(stack)  # priority of new transitions
        numbers = (spec.alpha, spec.eps, spec.beta, spec.beta_final)
        self._alpha, self._eps, self._beta, self._beta_final = (
            torch.as_tensor(number).expand(stack, 1).flatten().tolist() for number in numbers
        )
        self._segments: list[list[dict[str, Any]]] = [
            [] for _ in range(stack)
        ]  # files, each of the steps since the last
        self._referenced: list[deque[set[str]]] = [deque(maxlen=2) for _ in range(stack)]  # by the last checkpoints

    @property
    def _size_setting(self) -> tuple[str, str]:
        """The setting that determines the size, and advice if it is too large."""
        return f"{self.KEY}.size={self.spec.size}", f"try a smaller one, or {self.KEY}.dtype=float16"

    @property
    def description(self) -> str:
        """A sentence on how much a Session stores."""
        size = format_bytes(self.size_bytes / len(self._max_priority))
        place = "" if self.device == self.target else f" of this machine's memory, as {self.target} has not enough"
        return f"the replay memory holds {self.capacity * self.num_envs:,} transitions in {size}{place}"

    @property
    def frames(self) -> int:
        """Frames added so far."""
        return self.count * self.num_envs

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

    def _write(self, rollout: Rollout) -> None:
        start = self.count % self.ring_length
        raw = rollout.raw or rollout
        observation = raw.observation
        if self._observation.dtype == torch.float16:
            observation = observation.clamp(-FLOAT16_MAX, FLOAT16_MAX)
        observation = observation.to(self._observation.dtype)
        scalars = torch.stack([raw.reward, 1 - rollout.terminated, rollout.done, rollout.valid], -1)
        for ring, steps in (
            (self._observation, observation[:-1]),
            (self._action, rollout.action),
            (self._scalars, scalars),
        ):
            ring.narrow(1, start, self.horizon).copy_(steps.transpose(0, 1))
        self.count += self.horizon
        self._observation[:, self.count % self.ring_length] = observation[-1]

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
        flat, stack = ring.flatten(1, 2), len(ring)
        offsets = torch.arange(0, stack * flat.shape[1], flat.shape[1], device=position.device).unsqueeze(1)
        rows = flat.flatten(0, 1).index_select(0, (position + offsets).flatten()).view(*position.shape, *ring.shape[3:])
        rows = upload(rows, self.target)
        return rows.float() if rows.dtype == torch.float16 else rows

    def _observations(self, position: torch.Tensor, statistics: Statistics | None) -> torch.Tensor:
        raw = self._gather(self._observation, position)
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

    def save(self, index: int, folder: Path, write: Callable[[Path, dict[str, Any]], None]) -> dict[str, Any]:
        """Write one Session's steps since its last save to a file, and return plain data for the checkpoint."""
        segments = self._segments[index]
        first = max(segments[-1]["last"] if segments else 0, self.count - self.ring_length + 1)
        if first < self.count:
            slots = torch.arange(first, self.count + 1) % self.ring_length
            changed = np.flatnonzero(self._changed[index])
            content = {
                "observation": self._observation[index, slots],
                "action": self._action[index, slots[:-1]],
                "scalars": self._scalars[index, slots[:-1]],
                "changed": torch.from_numpy(changed),
                **self._read_changed(index, changed),
            }
            path = folder / f"{first}-{self.count}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, {name: value if value is None else value.cpu() for name, value in content.items()})
            self._changed[index] = False
            segments.append({"name": path.name, "first": first, "last": self.count})
        segments[:] = [segment for segment in segments if segment["last"] > self.count - self.capacity]
        self._referenced[index].append({segment["name"] for segment in segments})
        return {"count": self.count, "max_priority": float(self._max_priority[index]), "segments": list(segments)}

    def _read_changed(self, index: int, changed: np.ndarray) -> dict[str, torch.Tensor | None]:
        """Return what changed at positions [N] of one Session since the last save, of earlier steps too."""
        return {"priorities": torch.from_numpy(self._tree.leaves[index, changed]) if self._tree else None}

    def _write_changed(self, index: int, changed: np.ndarray, content: dict[str, Any]) -> None:
        """Set positions [N] of one Session to what `_read_changed` returned."""
        if self._tree:
            self._tree.leaves[index, changed] = content["priorities"].numpy()

    def remove_unused_files(self, index: int, folder: Path) -> None:
        """Remove one Session's files that neither of its last two checkpoints refers to."""
        referenced = set().union(*self._referenced[index])
        for path in folder.glob("*.pt"):
            if re.fullmatch(r"\d+-\d+\.pt", path.name) and path.name not in referenced:
                path.unlink()

    def restore(self, index: int, state: dict[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]) -> None:
        """Restore one Session's memory from what `save` returned, or raise LabError if a file is damaged."""
        self.count = state["count"]
        self._max_priority[index] = state["max_priority"]
        self._segments[index] = list(state["segments"])
        self._referenced[index] = deque([{segment["name"] for segment in state["segments"]}], maxlen=2)
        for segment in state["segments"]:
            content = read(folder / segment["name"])
            slots = torch.arange(segment["first"], segment["last"] + 1) % self.ring_length
            self._observation[index, slots] = content["observation"].to(self.device)
            self._action[index, slots[:-1]] = content["action"].to(self.device)
            self._scalars[index, slots[:-1]] = content["scalars"].to(self.device)
            self._write_changed(index, content["changed"].numpy(), content)
        if self._tree:
            self._tree.rebuild()
        self._changed[index] = False
