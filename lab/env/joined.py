"""Vector environments that step the environments of several Sessions in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import VectorEnv


class Joined(Protocol):
    """One vector environment over several others, the parts: part after part along the axis of environments.

    Each environment behaves to the last bit as in its part, from whose generator it draws.
    """

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take a step in every environment of every part; the parts themselves do not change."""

    def split(self) -> None:
        """Set each part to the state that its environments have reached."""


def join(parts: Sequence[VectorEnv[Any, Any, Any]]) -> Joined | None:
    """Return one environment over the parts, or None if their class offers none.

    A vector class of your own offers it by a static method `join`, which takes the parts, after their reset, and
    returns a Joined.
    """
    kind = type(parts[0])
    if kind is CartPoleVectorEnv:
        return JoinedCartPole(parts)
    offered = getattr(kind, "join", None)
    return offered(parts) if offered else None


class JoinedCartPole(CartPoleVectorEnv):
    """Gymnasium's vectorized CartPole over several parts."""

    STATE = ("state", "steps", "prev_done")  # arrays [..., number of environments]

    def __init__(self, parts: Sequence[Any]) -> None:
        first = parts[0]
        sizes = [part.num_envs for part in parts]
        super().__init__(sum(sizes), first.max_episode_steps, sutton_barto_reward=first._sutton_barto_reward)
        self._parts, self._ends = parts, np.cumsum(sizes)[:-1]
        self._np_random: Any = _PartDraws(self)
        self.action_space: Any = _AnyAction()  # a policy's actions need no check at each step
        self.low, self.high = first.low, first.high
        for name in self.STATE:
            setattr(self, name, np.concatenate([getattr(part, name) for part in parts], -1))

    def split(self) -> None:
        """Set each part to the state that its environments have reached."""
        for name in self.STATE:
            for part, values in zip(self._parts, np.split(getattr(self, name), self._ends, -1), strict=True):
                setattr(part, name, values.copy())


class _PartDraws:
    """Draws the states of the environments that are reset, from the generator of each one's part."""

    def __init__(self, joined: JoinedCartPole) -> None:
        self._joined = joined

    def uniform(self, low: float, high: float, size: tuple[int, int]) -> np.ndarray:
        if not size[1]:
            return np.empty(size)
        counts = [int(done.sum()) for done in np.split(self._joined.prev_done, self._joined._ends)]
        pairs = zip(self._joined._parts, counts, strict=True)
        return np.concatenate(
            [part.np_random.uniform(low, high, (size[0], count)) for part, count in pairs if count], 1
        )


class _AnyAction:
    def contains(self, _: Any) -> bool:
        return True
