"""Rings of a stack's newest steps, and the files that hold them beside a checkpoint."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.common.text import format_bytes
from lab.memory.spec import FLOAT16_MAX, ReplaySpec, place
from lab.memory.sum_tree import SumTree

if TYPE_CHECKING:
    from lab.env.spaces import Spaces
    from lab.memory.rollout import Rollout

REWARD, CONTINUES, DONE, VALID = range(4)  # columns of a step's scalars


class Rings:
    """Ring buffers [S, L, E, ...] of a stack's steps; the next observation of a step is that of the step after it.

    Observations and rewards are stored as the environments gave them, of stacked frames the newest alone.

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
        spaces: Spaces,
        actions: torch.Tensor,
        stack: int,
        num_envs: int,
        horizon: int,
    ) -> None:
        """Make an empty memory, or raise LabError if it does not fit.

        Args:
            spec: the settings; numbers with a decimal point are vectors [S, 1].
            spaces: what the environments observe.
            actions: an example of a policy's action, with its shape, dtype and device.
            stack: S.
            num_envs: E.
            horizon: steps added at a time, T.
        """
        self.spec, self.num_envs, self.horizon, self.target = spec, num_envs, horizon, actions.device
        self.capacity = -(-spec.size // num_envs)
        self._frames, self._zero_padding = spaces.frame_stack, spaces.zero_padding
        self._oldest = self.capacity + self._frames - 1  # newest steps that are read
        self.ring_length = (-(-self._oldest // horizon) + 1) * horizon
        observations = spaces.observation
        frame = (observations.shape[0] // self._frames, *observations.shape[1:])
        dtype = torch.uint8 if observations.dtype == np.uint8 else getattr(torch, spec.dtype)
        ring = (stack, self.ring_length, num_envs)
        arrays = [((*ring, *frame), dtype), ((*ring, *actions.shape), actions.dtype), ((*ring, 4), None)]
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
        # Files, each of the steps since the last.
        self._segments: list[list[dict[str, Any]]] = [[] for _ in range(stack)]
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

    def _write(self, rollout: Rollout) -> None:
        start = self.count % self.ring_length
        raw = rollout.raw or rollout
        frame = self._observation.shape[3]
        observation = raw.observation[:, :, :, -frame:]
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

    def save(self, index: int, folder: Path, write: Callable[[Path, dict[str, Any]], None]) -> dict[str, Any]:
        """Write one Session's steps since its last save to a file, and return plain data for the checkpoint."""
        segments = self._segments[index]
        last = segments[-1]["last"] if segments else 0
        if last < self.count:
            # From the last step of the file before, which may have been excluded since (`cut_episodes`).
            first = max(last - 1, self.count - self.ring_length + 1, 0)
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
        segments[:] = [segment for segment in segments if segment["last"] > self.count - self._oldest]
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
