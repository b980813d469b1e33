"""Wrappers by the names and arguments that they have in Stable-Baselines3 and RL Zoo, and a scale of rewards."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class ClipRewardEnv(gym.RewardWrapper[Any, Any]):
    """Gives the sign of each reward: -1, 0 or 1."""

    def reward(self, reward: Any) -> float:
        """Return the sign."""
        return float(np.sign(float(reward)))


class ScaleReward(gym.RewardWrapper[Any, Any]):
    """Multiplies rewards by `scale`."""

    def __init__(self, env: gym.Env[Any, Any], scale: float) -> None:
        super().__init__(env)
        self._scale = float(scale)

    def reward(self, reward: Any) -> float:
        """Return the reward times the scale."""
        return float(reward) * self._scale


class TimeFeatureWrapper(gym.ObservationWrapper[Any, Any, Any]):
    """Appends the fraction of an episode that is left to a row of observations (Pardo et al. 2018).

    The longest episode is that of the environment's own time limit or, without one, has `max_steps` steps. In test mode
    the fraction stays 1.
    """

    def __init__(self, env: gym.Env[Any, Any], max_steps: int = 1000, test_mode: bool = False) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise TypeError(f"the observations must be a row of numbers, not {space}")
        dtype: Any = space.dtype.type if space.dtype.kind == "f" else np.float32  # an integer is no fraction
        low, high = (np.append(bound, end).astype(dtype) for bound, end in ((space.low, 0), (space.high, 1)))
        self.observation_space = gym.spaces.Box(low, high, dtype=dtype)
        limit = env.spec.max_episode_steps if env.spec else None
        self._max_steps, self._test_mode, self._step = limit or max_steps, test_mode, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._step = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._step += 1
        return super().step(action)

    def observation(self, observation: Any) -> np.ndarray:
        """Return the observation with the fraction that is left."""
        left = 1.0 if self._test_mode else 1.0 - self._step / self._max_steps
        return np.append(observation, left).astype(self.observation_space.dtype)


class VecFrameStack(gym.ObservationWrapper[Any, Any, Any]):
    """Joins the newest observations along their channels, the newest last; before an episode there are zeros.

    The channels are the last axis, or the first one of an image that has them there; `channels_order` chooses.
    """

    def __init__(self, env: gym.Env[Any, Any], n_stack: int, channels_order: str | None = None) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Box) or not space.shape:
            raise TypeError(f"the observations must be an array of numbers, not {space}")
        if n_stack < 1:
            raise ValueError(f"n_stack is {n_stack}; it must be 1 or more")
        if channels_order not in (None, "first", "last"):
            raise ValueError(f"channels_order is {channels_order!r}; it must be first, last or null")
        shape = space.shape
        first = len(shape) == 3 and shape[0] < min(shape[1:]) if channels_order is None else channels_order == "first"
        self._axis, self._width = (0, shape[0]) if first else (-1, shape[-1])
        low, high = (np.repeat(bound, n_stack, self._axis) for bound in (space.low, space.high))
        self.observation_space = gym.spaces.Box(low, high, dtype=space.dtype.type)
        self._stacked = np.zeros(self.observation_space.shape, space.dtype)
        # Memories store a frame once if frames are stacked along the first axis.
        self.stacked_frames = (n_stack, True) if first or len(shape) == 1 else (1, False)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._stacked = np.zeros_like(self._stacked)
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> np.ndarray:
        """Return the newest observations."""
        older = np.moveaxis(self._stacked, self._axis, 0)[self._width :]
        newest = np.moveaxis(np.asarray(observation), self._axis, 0)
        self._stacked = np.moveaxis(np.concatenate([older, newest]), 0, self._axis)
        return self._stacked
