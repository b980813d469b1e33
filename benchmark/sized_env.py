"""An environment of HalfCheetah's sizes that needs no MuJoCo and takes no time: env.id=benchmark.sized_env:Sized-v0."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Sized(gym.Env[np.ndarray, np.ndarray]):
    """Random observations of 17 numbers for actions of 6."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,))
    action_space = gym.spaces.Box(-1.0, 1.0, (6,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode."""
        super().reset(seed=seed)
        return self.np_random.standard_normal(17, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return random numbers and the cost of the action."""
        return self.np_random.standard_normal(17, np.float32), -float(np.square(action).sum()), False, False, {}


gym.register("Sized-v0", Sized, max_episode_steps=1_000)
