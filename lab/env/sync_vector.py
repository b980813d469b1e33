"""Environments stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv


def is_image(space: gym.Space[Any]) -> bool:
    """Say whether observations have rows, columns and channels, which are kept for networks that look at them."""
    return isinstance(space, gym.spaces.Box) and len(space.shape or ()) == 3


def flatten(space: gym.Space[Any], observation: Any) -> np.ndarray:
    """Return one observation as the networks take it: an image as it is, anything else flat."""
    if is_image(space):
        return np.asarray(observation, np.uint8 if space.dtype == np.uint8 else np.float32)
    if isinstance(space, gym.spaces.Box):
        return np.asarray(observation, np.float32).ravel()
    return np.asarray(gym.spaces.flatten(space, observation), np.float32)


class SideBySide(VectorEnv[Any, Any, Any]):
    """What Gymnasium's SyncVectorEnv does with next-step autoreset, with less beside it.

    Observations are those that the networks take, and nothing is asked of what else environments tell of a step.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        """Make the environments."""
        self.envs = [make() for make in makers]
        self.num_envs = len(self.envs)
        self.inner_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self._done = [False] * self.num_envs

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset every environment, each with a seed of its own from a list; return observations [E, ...]."""
        seeds = seed if isinstance(seed, list) else [seed] * self.num_envs
        found = [env.reset(seed=one, options=options)[0] for env, one in zip(self.envs, seeds, strict=True)]
        self._done = [False] * self.num_envs
        return self._rows(found), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment, or reset it if it ended at the last step; return [E, ...] each."""
        found: list[Any] = []
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for e, env in enumerate(self.envs):
            if self._done[e]:
                found.append(env.reset()[0])
            else:
                observation, reward[e], terminated[e], truncated[e], _ = env.step(actions[e])
                found.append(observation)
        self._done = (terminated | truncated).tolist()
        return self._rows(found), reward, terminated, truncated, {}

    def _rows(self, observations: list[Any]) -> np.ndarray:
        return np.array([flatten(self.inner_space, observation) for observation in observations])

    def close(self, **_: Any) -> None:
        """Close every environment."""
        self.closed = True
        for env in self.envs:
            env.close()
