"""Environments that draw from global generators or return invalid values, by ids such as tests.rogue:Dice-v0."""

from __future__ import annotations

import random
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

EPISODE_STEPS = 8


class Dice(gym.Env[np.ndarray, int]):
    """Draws from a global generator (`kind`): numpy.random, random or torch.

    It draws in `reset` and `step`, only in its constructor (`at=made`), or once and late (`at=rare`).
    """

    observation_space = gym.spaces.Box(0, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, kind: str = "numpy", at: str = "always", length: int = EPISODE_STEPS) -> None:
        self.kind, self.at, self.length, self.steps, self.total = kind, at, length, 0, 0
        self.level = self.draw() if at == "made" else 0.0

    def draw(self) -> float:
        if self.kind == "numpy":
            return float(np.random.rand())  # noqa: NPY002
        return random.random() if self.kind == "random" else float(torch.rand(()))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps, self.total = self.steps + 1, self.total + 1
        observation = self.observe()
        return observation, float(observation[0]), self.steps == self.length, False, {}

    def observe(self) -> np.ndarray:
        draws = self.at == "always" or (self.at == "rare" and self.total == 150)
        return np.array(
            [self.draw() if draws else self.level, self.np_random.random(), self.steps / EPISODE_STEPS], np.float32
        )


class DiceVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A native vector environment that draws from numpy.random."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    single_observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def __init__(self, num_envs: int, wrong: Any = None) -> None:
        self.num_envs, self.wrong, self.steps = num_envs, wrong, 0
        self.observation_space = gym.spaces.Box(0, 1, (num_envs, 1), np.float32)
        self.action_space = gym.spaces.MultiDiscrete([2] * num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return np.random.rand(self.num_envs, 1).astype(np.float32)  # noqa: NPY002

    def step(self, actions: np.ndarray) -> Any:
        self.steps += 1
        ended = np.full(self.num_envs, self.steps % EPISODE_STEPS == 0)
        observation = self.observe()
        reward = observation[:, 0].astype(float)
        if self.wrong == "rewards":
            reward = reward[:1]
        elif self.wrong == "one reward":
            reward[-1] = np.nan
        elif self.wrong == "observations":
            observation = observation[:, 0]
        return observation, reward, ended, np.zeros(self.num_envs, bool), {}


class OneDie(Dice):
    """The single environment of DiceVector."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)

    def __init__(self, wrong: Any = None) -> None:
        super().__init__()

    def observe(self) -> np.ndarray:
        return super().observe()[:1]


class Sampled(Dice):
    """Samples its observations from their space, which is an attribute of the class."""

    def observe(self) -> np.ndarray:
        return self.observation_space.sample()


class Unseeded(Dice):
    """Draws from a generator that is seeded by the system."""

    def draw(self) -> float:
        return float(np.random.default_rng().random())


# Observation spaces, each with a valid observation.
SPACES: dict[str, tuple[gym.Space[Any], Any]] = {
    "box": (gym.spaces.Box(-1, 1, (4,), np.float32), np.zeros(4, np.float32)),
    "image": (gym.spaces.Box(0, 255, (4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)),
    "whole": (gym.spaces.Box(0, 9, (3,), np.int64), np.zeros(3, np.int64)),
    "discrete": (gym.spaces.Discrete(5), 0),
    "discrete from 2": (gym.spaces.Discrete(3, start=2), 2),
    "multi": (gym.spaces.MultiDiscrete([3, 3]), np.zeros(2, np.int64)),
    "binary": (gym.spaces.MultiBinary(3), np.zeros(3, np.int8)),
    "dict": (
        gym.spaces.Dict(place=gym.spaces.Box(-1, 1, (2,), np.float32), door=gym.spaces.Discrete(2)),
        {"place": np.zeros(2, np.float32), "door": 1},
    ),
    "tuple": (
        gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,), np.float32))),
        (1, np.zeros(2, np.float32)),
    ),
}
# Values that replace a part of what `reset` or `step` returns, by name.
VALUES: dict[str, Any] = {
    "none": None,
    "text": "up",
    "scalar": 0.5,
    "one number": np.zeros(1, np.float32),
    "a column": np.zeros((4, 1), np.float32),
    "three": np.zeros(3, np.float32),
    "nan": np.array([0, np.nan, 0, 0], np.float32),
    "infinite": np.array([0, 0, 0, np.inf], np.float32),
    "nan number": float("nan"),
    "infinite number": float("inf"),
    "huge": np.full(4, 1e39),
    "huge number": 1e39,
    "objects": np.array([None, 1, 2, 3], object),
    "texts": np.array(["a", "b", "c", "d"]),
    "complex": np.zeros(4, complex),
    "complex number": 1j,
    "ragged": [[1.0], [1.0, 2.0]],
    "doubles": np.full(4, 0.25),
    "list": [0.0, 0.1, 0.2, 0.3],
    "integers": np.arange(4),
    "out of bounds": np.full(4, 7.0, np.float32),
    "float image": np.full((4, 4, 3), 0.5),
    "large image": np.full((4, 4, 3), 256),
    "wide image": np.full((4, 4, 3), 255),
    "gray image": np.zeros((4, 4), np.uint8),
    "halves": np.full(3, 0.5),
    "5": 5,
    "1": 1,
    "0": 0,
    "1.0": 1.0,
    "two": 2,
    "true": True,
    "numpy true": np.True_,
    "array of true": np.array([True]),
    "2": np.int64(2),
    "float32": np.float32(0.5),
    "one in an array": np.array([0.5]),
    "tensor": torch.tensor(0.5),
    "two in an array": np.zeros(2),
    "choices": np.array([2, 3]),
    "bits": np.array([0, 1, 2]),
    "no door": {"place": np.zeros(2, np.float32)},
    "and a key": {"place": np.zeros(2, np.float32), "door": 1, "key": 0},
    "wrong door": {"place": np.zeros(2, np.float32), "door": 2},
    "nan place": {"place": np.array([np.nan, 0], np.float32), "door": 1},
    "single": (1,),
    "nan in a tuple": (1, np.array([0, np.nan], np.float32)),
    "empty": {},
}


class Wrong(gym.Env[Any, int]):
    """Returns a value of VALUES instead of a valid `part` at one step (`at`; 0 is the reset)."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, space: str = "box", part: str = "", value: str = "none", at: int = 0) -> None:
        self.kind, self.part, self.value, self.at, self.steps = space, part, value, at, 0
        self.observation_space, self.valid = SPACES[space]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        returned = {"observation": self.valid, "info": {}}
        return self.give(returned) if self.at == self.steps == 0 else tuple(returned.values())

    def step(self, action: int) -> Any:
        self.steps += 1
        returned = {
            "observation": self.valid, "reward": 1.0, "terminated": False, "truncated": False, "info": {},
        }  # fmt: skip
        return self.give(returned) if self.at == self.steps else tuple(returned.values())

    def give(self, returned: dict[str, Any]) -> Any:
        value = VALUES[self.value]
        if self.part == "all":
            return value
        if self.part == "alone":
            return returned["observation"]
        if self.part == "old":
            return returned["observation"], 1.0, False, {}
        if self.part == "raises":
            raise ValueError("the battery is empty")
        returned[self.part] = value
        return tuple(returned.values())


gym.register("OneDie-v0", entry_point=OneDie, vector_entry_point=DiceVector)
for kind in (Dice, Sampled, Unseeded):
    gym.register(f"{kind.__name__}-v0", entry_point=kind)
gym.register("Wrong-v0", entry_point=Wrong, max_episode_steps=25)
