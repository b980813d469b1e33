"""A replay memory: the newest transitions of every Session, for learning off policy."""

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
from lab.memory.size import refuse_if_too_large
from lab.memory.spec import FLOAT16_MOST, ReplaySpec

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.memory.rollout import Rollout
    from lab.memory.statistics import Statistics

REWARD, CONTINUES, DONE, VALID = range(4)  # columns of what is kept of a step beside its observation and action


@dataclass
class Batch:
    """Transitions drawn from a memory.

    Attributes:
        observation: [S, B, ...].
        action: [S, B, ...].
        reward: sum of the discounted rewards of up to n steps, [S, B].
        discount: of the value of the state they led to, 0 where the episode terminated, [S, B].
        next_observation: that state's, the true last one of an episode included, [S, B, ...].
        weight: share of each transition in its Session's loss, [S, B]: 0 for steps that are none, in which an
            environment was reset; with priorities, corrected for the bias of the draw.
        index: which they are, [S, B].
    """

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    discount: torch.Tensor
    next_observation: torch.Tensor
    weight: torch.Tensor
    index: np.ndarray


class Replay:
    """Steps of a stack in rings [S, steps, E, ...]: what a step led to is the observation of the next one.

    Observations and rewards are kept as the environments gave them, and normalized when they are drawn: by the
    statistics of that moment, whenever they were seen.

    Attributes:
        count: steps of every environment that were ever added.
    """

    KEY = "algo.memory"  # the group of its settings

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
        """Make an empty memory.

        Args:
            spec: its settings; numbers with a decimal point are vectors [S, 1].
            observations: one environment's observations.
            actions: any one action of a policy, for its shape, type and device.
            stack: number of Sessions, S.
            num_envs: environments of each, E.
            horizon: steps that are added at a time, T.
            n: rewards in a transition.

        Raises:
            LabError: it does not fit into the memory of this machine.
        """
        from lab.memory.sum_tree import SumTree

        self.spec, self.num_envs, self.horizon, self.n, self.device = spec, num_envs, horizon, n, actions.device
        self.kept = -(-spec.size // num_envs)
        self.steps = (-(-self.kept // horizon) + 1) * horizon  # whole horizons, and a place for the next observation
        kind = torch.uint8 if observations.dtype == np.uint8 else getattr(torch, spec.dtype)
        ring = (stack, self.steps, num_envs)
        shapes = [((*ring, *observations.shape), kind), ((*ring, *actions.shape), actions.dtype), ((*ring, 4), None)]
        self.size_bytes = sum(math.prod(shape) * (kind or torch.float32).itemsize for shape, kind in shapes)
        refuse_if_too_large(self.size_bytes, self.device, *self._too_large)
        self._observation, self._action, self._facts = (
            torch.zeros(shape, dtype=kind, device=self.device) for shape, kind in shapes
        )
        self._first_rows = np.arange(stack)[:, None] * (self.steps * num_envs)
        self.count = 0
        self._tree = SumTree(stack, self.steps * num_envs) if spec.prioritized else None
        self._changed = np.zeros((stack, self.steps * num_envs), bool)
        self._highest = np.ones(stack)  # priority of what was never drawn
        # What a checkpoint knows of is in files, each with the steps of the time since the one before.
        self._segments: list[list[dict[str, Any]]] = [[] for _ in range(stack)]
        self._referenced: list[deque[set[str]]] = [deque(maxlen=2) for _ in range(stack)]

    @property
    def _too_large(self) -> tuple[str, str]:
        """What was asked for, and what to do if that does not fit."""
        return f"{self.KEY}.size={self.spec.size}", f"try a smaller one, or {self.KEY}.dtype=float16"

    @property
    def session_bytes(self) -> float:
        """Bytes that a Session's steps take."""
        return self.size_bytes / len(self._highest)

    @property
    def description(self) -> str:
        """How much a Session remembers, in words."""
        size = format_bytes(self.session_bytes)
        return f"the replay memory holds {self.kept * self.num_envs:,} transitions in {size}"

    @property
    def frames(self) -> int:
        """Frames that were ever added."""
        return self.count * self.num_envs

    @property
    def num_available(self) -> int:
        """Transitions that can be drawn now, counting steps in which an environment was reset."""
        return max(min(self.count, self.kept) - (self.n - 1), 0) * self.num_envs

    def add(self, rollout: Rollout) -> None:
        """Take in a horizon of steps."""
        self._write(rollout)
        if self._tree:
            self._forget()
            ready = np.arange(self.count - self.horizon - self.n + 1, self.count - self.n + 1)
            ready = ready[ready >= 0]
            valid = self._facts[:, ready % self.steps, :, VALID].flatten(1).cpu().numpy()
            self._set_priorities(self._places(ready), valid * self._highest[:, None])

    def _write(self, rollout: Rollout) -> None:
        """Put a horizon of steps into the rings."""
        start = self.count % self.steps
        here = slice(start, start + self.horizon)
        raw = rollout.raw or rollout
        observation = self._to_kept(raw.observation)
        facts = torch.stack([raw.reward, 1 - rollout.terminated, rollout.done, rollout.valid], -1)
        self._observation[:, here] = observation[:-1].transpose(0, 1)
        self._action[:, here] = rollout.action.transpose(0, 1)
        self._facts[:, here] = facts.transpose(0, 1)
        self.count += self.horizon
        self._observation[:, self.count % self.steps] = observation[-1]

    def _to_kept(self, observation: torch.Tensor) -> torch.Tensor:
        """Return observations in the type that they are kept in; what half precision cannot hold is cut to its most."""
        if self._observation.dtype == torch.float16:
            observation = observation.clamp(-FLOAT16_MOST, FLOAT16_MOST)
        return observation.to(self._observation.dtype)

    def _forget(self) -> None:
        """Let no step be drawn any more that has become too old in the last horizon."""
        gone = np.arange(self.count - self.horizon - self.kept, self.count - self.kept)
        self._set_priorities(self._places(gone), np.zeros((len(self._highest), len(gone) * self.num_envs)))

    def _places(self, steps: np.ndarray) -> np.ndarray:
        """Return the places [1, steps * E] of whole steps in a ring laid out flat."""
        places: np.ndarray = (steps % self.steps)[:, None] * self.num_envs + np.arange(self.num_envs)
        return places.reshape(1, -1)

    def _set_priorities(self, places: np.ndarray, values: np.ndarray) -> None:
        assert self._tree
        self._tree.set(np.broadcast_to(places, values.shape), values)
        np.put_along_axis(self._changed, np.broadcast_to(places, values.shape), True, 1)

    def _set_priority(self, index: int, places: np.ndarray, value: float) -> None:
        """Give places [N] of one Session a priority."""
        assert self._tree
        self._tree.set(places[None], np.full((1, len(places)), value), np.array([index]))
        self._changed[index, places] = True

    def cut(self, index: int) -> None:
        """Leave the last step of one Session out: its environments were made anew, and where it led to is not known."""
        if self.count:
            last = (self.count - 1) % self.steps
            self._facts[index, last, :, VALID] = 0.0
            if self._tree:
                self._set_priority(index, self._places(np.array([last]))[0], 0.0)

    def sample(
        self,
        shares: np.ndarray,
        gamma: torch.Tensor | float,
        progress: float,
        statistics: Statistics | None = None,
    ) -> Batch:
        """Draw a minibatch for every Session in one gather.

        Args:
            shares: random numbers from 0 to below 1, [S, B], drawn from each Session's own stream.
            gamma: discount, [S, 1].
            progress: share of the Session's frames that are done, by which beta is annealed.
            statistics: what to normalize observations and rewards by; None for none.
        """
        batch = shares.shape[1]
        newest = self.count - self.n
        if self._tree:
            strata = (np.arange(batch) + shares) / batch
            place = self._tree.find(strata)
            if self.spec.combined:
                place[:, -1] = newest % self.steps * self.num_envs + (shares[:, -1] * self.num_envs).astype(np.int64)
        else:
            drawn = (shares * self.num_available).astype(np.int64)
            if self.spec.combined:
                drawn[:, -1] = self.num_available - self.num_envs + (shares[:, -1] * self.num_envs).astype(np.int64)
            oldest = self.count - self.num_available // self.num_envs - (self.n - 1)
            place = (oldest * self.num_envs + drawn) % (self.steps * self.num_envs)
        index = self._index(place)
        reward, discount, valid, length = self._returns(place, index, gamma, statistics)
        weight = valid / valid.sum(-1, keepdim=True).clamp_(min=1.0)
        if self._tree:
            weight = weight * torch.from_numpy(self._corrections(place, progress)).to(self.device)
        after = (place + length * self.num_envs) % (self.steps * self.num_envs)
        return Batch(
            observation=self._observations(index, statistics),
            action=self._gather(self._action, index),
            reward=reward,
            discount=discount,
            next_observation=self._observations(self._index(after), statistics),
            weight=weight,
            index=place,
        )

    def _index(self, place: np.ndarray) -> torch.Tensor:
        """Return the rows [S, B] of places [S, B] in rings whose first three axes are laid out as one."""
        return torch.from_numpy(place + self._first_rows).to(self.device)

    @staticmethod
    def _gather(ring: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return the entries of a ring [S, steps, E, ...] at rows [S, B]."""
        found = ring.view(-1, *ring.shape[3:]).index_select(0, index.view(-1)).view(*index.shape, *ring.shape[3:])
        return found.float() if found.dtype == torch.float16 else found

    def _observations(self, index: torch.Tensor, statistics: Statistics | None) -> torch.Tensor:
        """Return normalized observations of rows [S, B]."""
        raw = self._gather(self._observation, index)
        return statistics.normalize_observations(raw) if statistics else raw

    def _scale(self, reward: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return what is kept as rewards, [S, B], normalized."""
        return statistics.normalize_rewards(reward)

    def _returns(
        self, place: np.ndarray, index: torch.Tensor, gamma: torch.Tensor | float, statistics: Statistics | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray | int]:
        """Return reward, discount and validity [S, B] of transitions, and the steps they are long."""
        first = self._gather(self._facts, index)

        def rewards(step: torch.Tensor) -> torch.Tensor:
            return self._scale(step[..., REWARD], statistics) if statistics else step[..., REWARD]

        if self.n == 1:
            return rewards(first), gamma * first[..., CONTINUES], first[..., VALID], 1
        reward, discount = torch.zeros_like(first[..., 0]), torch.ones_like(first[..., 0])
        going, length = discount.clone(), torch.zeros_like(reward)
        for k in range(self.n):
            later = (place + k * self.num_envs) % (self.steps * self.num_envs)
            step = self._gather(self._facts, self._index(later)) if k else first
            going = going * step[..., VALID]
            reward = reward + going * discount * rewards(step)
            discount = torch.where(going > 0, discount * gamma * step[..., CONTINUES], discount)
            length = length + going
            going = going * (1 - step[..., DONE])
        return reward, discount, first[..., VALID], length.long().cpu().numpy()

    def _corrections(self, place: np.ndarray, progress: float) -> np.ndarray:
        """Return the importance weights [S, B] of a draw, the largest of each Session being 1 (section 3.4)."""
        assert self._tree
        start, final = (torch.as_tensor(value).flatten().tolist() for value in (self.spec.beta, self.spec.beta_final))
        weights = np.empty(place.shape, np.float32)
        # A Session at a time: powers may round differently at other places of an array (law 1).
        for s, total in enumerate(self._tree.totals):
            leaves = self._tree.leaves[s, place[s]]
            probability = np.maximum(leaves, 1e-30) / max(total, 1e-30)
            beta = start[s] + (final[s] - start[s]) * progress
            # What cannot be drawn, as the newest step of `combined` may be, has no part in the largest.
            row = np.where(leaves > 0, (self.num_available * probability) ** -beta, 0.0)
            weights[s] = row / max(row.max(), 1e-30)
        return weights

    def update_priorities(self, batch: Batch, errors: torch.Tensor) -> None:
        """Set priorities by the errors [S, B] that learning found in a minibatch."""
        if not self.spec.prioritized:
            return
        assert self._tree
        magnitudes = errors.detach().abs().cpu().numpy().astype(np.float64)
        alpha, eps = (torch.as_tensor(value).flatten().tolist() for value in (self.spec.alpha, self.spec.eps))
        priorities = np.empty_like(magnitudes)
        for s, row in enumerate(magnitudes):
            priorities[s] = np.where(np.isfinite(row), row + eps[s], 1.0) ** alpha[s]
        valid = self._tree.leaves[np.arange(len(priorities))[:, None], batch.index] > 0
        priorities *= valid
        self._highest = np.maximum(self._highest, priorities.max(1))
        self._set_priorities(batch.index, priorities)

    def save(self, index: int, folder: Path, write: Callable[[Path, dict[str, Any]], None]) -> dict[str, Any]:
        """Write what is new in one Session since it was last saved, and return what a checkpoint is to know of it.

        The cost is that of the new steps, however much is remembered.
        """
        segments = self._segments[index]
        first = max(segments[-1]["last"] if segments else 0, self.count - self.steps + 1)
        if first < self.count:
            slots = torch.arange(first, self.count) % self.steps
            and_next = torch.arange(first, self.count + 1) % self.steps
            changed = np.flatnonzero(self._changed[index])
            content = {
                "observation": self._observation[index, and_next],
                "action": self._action[index, slots],
                "facts": self._facts[index, slots],
                "changed": torch.from_numpy(changed),
                **self._changes(index, changed),
            }
            path = folder / f"{first}-{self.count}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, {name: value if value is None else value.cpu() for name, value in content.items()})
            self._changed[index] = False
            segments.append({"name": path.name, "first": first, "last": self.count})
        # Whatever is drawn from now on was added, and given its priorities, after these.
        segments[:] = [segment for segment in segments if segment["last"] > self.count - self.kept]
        self._referenced[index].append({segment["name"] for segment in segments})
        return {"count": self.count, "highest": float(self._highest[index]), "segments": list(segments)}

    def _changes(self, index: int, changed: np.ndarray) -> dict[str, torch.Tensor | None]:
        """Return what places [N] of one Session hold that changes after a step was added."""
        return {"priorities": torch.from_numpy(self._tree.leaves[index, changed]) if self._tree else None}

    def _change(self, index: int, changed: np.ndarray, content: dict[str, Any]) -> None:
        """Set places [N] of one Session to what `_changes` returned."""
        if self._tree:
            self._tree.leaves[index, changed] = content["priorities"].numpy()

    def clear(self, index: int, folder: Path) -> None:
        """Remove the files of one Session that none of its last two checkpoints knows of."""
        known = set().union(*self._referenced[index])
        for path in folder.glob("*.pt"):
            if re.fullmatch(r"\d+-\d+\.pt", path.name) and path.name not in known:  # what is not ours stays
                path.unlink()

    def restore(self, index: int, state: dict[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]) -> None:
        """Set one Session's memory to what it was when `save` returned `state`.

        Raises:
            LabError: a file is missing or damaged.
        """
        self.count = state["count"]
        self._highest[index] = state["highest"]
        self._segments[index] = list(state["segments"])
        self._referenced[index] = deque([{segment["name"] for segment in state["segments"]}], maxlen=2)
        for segment in state["segments"]:
            content = read(folder / segment["name"])
            slots = torch.arange(segment["first"], segment["last"] + 1) % self.steps
            self._observation[index, slots] = content["observation"].to(self.device)
            self._action[index, slots[:-1]] = content["action"].to(self.device)
            self._facts[index, slots[:-1]] = content["facts"].to(self.device)
            self._change(index, content["changed"].numpy(), content)
        if self._tree:
            self._tree.rebuild()
        self._changed[index] = False
