"""A trained agent in its environment's own observations and actions: to play with, to deploy and to export."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from lab import spec as specs
from lab.env.spaces import ActionConverter, flatten, leaves
from lab.env.vector import probe
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.tensor_files import read
from lab.training.agent import Agent


class Policy:
    """The agent of one Session, which acts episode by episode.

    Attributes:
        spec: of the Session, not compiled: to compile may take longer than to play.
        agent: its agent, on the CPU.
        frame: at which its checkpoint was written.
        observation_space: of its environment.
        action_space: of its environment.
        parts: place and space of each part of its observations that is no Dict or Tuple.
    """

    def __init__(self, spec: specs.Spec, state: dict[str, Any], seed: int = 0) -> None:
        """Make the agent that a checkpoint holds; `seed` is the origin of what it draws.

        Raises:
            LabError: the environment cannot be made, or the checkpoint is of another agent.
        """
        self.spec = replace(spec, compile=False)
        spaces = probe(self.spec.env)
        self.observation_space, self.action_space = spaces.original, spaces.action
        self.agent = Agent([self.spec], spaces, torch.device("cpu"))
        self.agent.restore(0, state)
        self.frame = int(state["frame"])
        self.actions = ActionConverter(spaces.action)
        self.parts = list(leaves(spaces.original))
        self._streams = [replace(self.agent.streams[0])]
        self.seed(seed)
        self.reset()

    def another(self, seed: int) -> Policy:
        """Return another policy with the same agent, at the start of an episode."""
        other = object.__new__(Policy)
        other.__dict__.update(self.__dict__, _streams=[replace(self._streams[0])])
        other.seed(seed)
        other.reset()
        return other

    def seed(self, seed: int) -> None:
        """Set the origin of the actions that are drawn."""
        self._streams[0].actions = np.random.default_rng(seed)

    def reset(self, done: Any = None) -> None:
        """Forget what a recurrent agent remembers, at the start of an episode.

        Args:
            done: [N], which of a batch of episodes start; None for all.

        Raises:
            LabError: it is of another number of episodes than `act` was called with.
        """
        if done is None:
            self._carry: torch.Tensor | None = None
        elif self._carry is not None:
            starts = torch.from_numpy(np.asarray(done, bool).reshape(-1))
            if len(starts) != self._carry.shape[1]:
                raise LabError(f"done has {len(starts)} values, and act was called with {self._carry.shape[1]}.")
            self._carry = self._carry.masked_fill(starts[None, :, None], 0.0)

    def act(self, observation: Any, deterministic: bool = True) -> Any:
        """Choose the action for an observation, or the actions for a batch, as the environment takes them.

        Args:
            observation: of the environment's own space; or a batch of them [N, ...], in a Dict or Tuple part by part.
            deterministic: whether to take the likeliest action, or to draw one.

        Raises:
            LabError: it is no such observation, or a recurrent agent acted on a batch of another size before.
        """
        rows, is_batch = self._read(observation)
        actions = self.actions.convert(self.choose(rows, deterministic).cpu().numpy())
        return actions if is_batch else actions[0]

    def choose(self, rows: np.ndarray, deterministic: bool) -> torch.Tensor:
        """Return actions [N, ...] in the policy's units for flat observations [N, ...]."""
        agent, algorithm = self.agent, self.agent.algorithm
        number = len(rows)
        if self._carry is None:
            self._carry = torch.zeros(1, number, algorithm.carry_size)
        elif algorithm.carry_size and self._carry.shape[1] != number:
            raise LabError(
                f"act got {number} observations after {self._carry.shape[1]}, and the agent is recurrent: call reset()"
                " where other episodes start."
            )
        noise = None
        if not deterministic:
            fraction_done = self.frame / self.spec.planned_frames(self.frame)
            noise = algorithm.draw_noise(1, number, self._streams, fraction_done)[0]
        carry = self._carry if algorithm.carry_size else torch.zeros(1, number, 0)
        action, carry = algorithm.act(agent.normalize(torch.from_numpy(rows)[None]), noise, carry)
        self._carry = carry
        return action[0]

    def _read(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Return an observation, or a batch of them, as rows [N, ...] for the networks, and whether it is a batch."""
        sizes = {self._batch_size(place, part, value) for place, part, value in self.values(observation)}
        if len(sizes) > 1:
            raise LabError("The parts of an observation must be of the same batch, or all of one observation.")
        (size,) = sizes
        space, dtype, shape = self.observation_space, self.agent.observations.dtype, self.agent.observations.shape
        if size is None:
            return flatten(space, observation).astype(dtype)[None], False
        if isinstance(space, gym.spaces.Box):
            return np.asarray(observation).astype(dtype).reshape(size, *shape), True
        batch = (flatten(space, _select(space, observation, index)) for index in range(size))
        rows = np.fromiter(batch, np.dtype((dtype, shape)), size) if math.prod(shape) else np.zeros((size, *shape))
        return rows, True

    def values(self, observation: Any) -> Iterator[tuple[str, gym.Space[Any], Any]]:
        """Yield the place, the space and the value of each part."""
        for place, part in self.parts:
            value = observation
            try:
                for key in keys(place):
                    value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                what = f"the part {place} is missing in {type(observation).__name__}"
                raise LabError(f"That is no observation of {self.observation_space}: {what}.") from error
            yield place, part, value

    def _batch_size(self, place: str, space: gym.Space[Any], value: Any) -> int | None:
        """Return how many observations a part holds; None if it is one observation's."""
        shape, own = np.shape(value), space.shape or ()
        if shape == own:
            return None
        if shape[1:] == own and len(shape) == len(own) + 1 and shape[0]:
            return int(shape[0])
        part = f" at {place}" if place else ""
        batch = ", ".join(map(str, ("N", *own))) + ("" if own else ",")
        raise LabError(
            f"An observation of env.id={self.spec.env.id} has the shape {own}{part}, and a batch of N ({batch}): this"
            f" one has {shape}."
        )


def keys(place: str) -> list[Any]:
    """Return the keys in a place, as "['arm'][0]"."""
    import ast

    return [ast.literal_eval(part) for part in place[1:-1].split("][")] if place else []


def _select(space: gym.Space[Any], batch: Any, index: int) -> Any:
    """Return one observation of a batch, whose parts are batches."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _select(part, batch[key], index) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_select(part, values, index) for part, values in zip(space.spaces, batch, strict=True))
    return batch[index]


def batch_of(space: gym.Space[Any], observations: Sequence[Any]) -> Any:
    """Return some observations as a batch, in a Dict or Tuple part by part."""
    if isinstance(space, gym.spaces.Dict):
        return {key: batch_of(part, [each[key] for each in observations]) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(batch_of(part, [each[i] for each in observations]) for i, part in enumerate(space.spaces))
    return np.stack(observations)


def read_policy(directory: RunDir, checkpoint: str = "best", seed: int = 0) -> Policy:
    """Read the policy of a Session.

    What the spec names is imported: within `installed_only`, a stranger's directory runs no code.

    Raises:
        LabError: the spec or the checkpoint cannot be read, or the environment cannot be made.
    """
    spec = specs.load(directory.spec)
    with session_threads(spec):
        return Policy(spec, read(directory.checkpoint(checkpoint)), seed)


@contextmanager
def session_threads(spec: specs.Spec) -> Iterator[None]:
    """Let torch compute with the threads of a Session meanwhile, which decide the last bits of a sum."""
    before = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
