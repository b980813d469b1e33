"""Small environments for tests, by ids such as tests.envs:Target-v0."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np


class Base(gym.Env[np.ndarray, Any]):
    """Observes three random numbers; episodes end with probability 0.1; subclasses define the reward."""

    observation_space: gym.Space[np.ndarray] = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.start()
        self.observation = self.observe()
        return self.observation, {}

    def start(self) -> None:
        """Prepare an episode."""

    def observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, self.observation_space.shape).astype(np.float32)

    def reward(self, action: Any) -> float:
        return 0.0

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self.reward(action)
        terminated = bool(self.np_random.random() < 0.1)
        self.observation = self.observe()
        return self.observation, reward, terminated, False, {}


class Target(Base):
    """Continuous: the reward is the nearness to the first two numbers of the observation."""

    action_space = gym.spaces.Box(-2, 2, (2,), np.float32)

    def reward(self, action: Any) -> float:
        assert action.shape == (2,) and np.abs(action).max() <= 2
        return -float(np.square(action - self.observation[:2]).sum())


class Shown(Base):
    """Shows which of four actions is rewarded."""

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def observe(self) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[self.np_random.integers(4)]

    def reward(self, action: Any) -> float:
        return float(self.observation[action])


class Single(Base):
    """Continuous, with observations and actions of width 1, which batched products treat differently."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def reward(self, action: Any) -> float:
        return -float(np.square(action - self.observation).sum())


class Highest(Base):
    """Rewards the action that is the index of the highest number; episodes have 8 steps."""

    action_space = gym.spaces.Discrete(3)

    def start(self) -> None:
        self.steps = 0

    def observe(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[self.np_random.integers(3)]

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(action == self.observation.argmax())
        self.observation = self.observe()
        self.steps += 1
        return self.observation, reward, self.steps == 8, False, {}


class Pair(Base):
    """Two choices at once, counted from 3; each must match the sign of a number."""

    action_space = gym.spaces.MultiDiscrete([2, 3], start=[3, 3])

    def reward(self, action: Any) -> float:
        assert self.action_space.contains(np.asarray(action)), action
        return float(action[0] == 3 + (self.observation[0] > 0)) + float(action[1] == 3 + (self.observation[1] > 0))


class Buttons(Base):
    """Binary choices in two rows; each must say whether the first number is above 0."""

    action_space = gym.spaces.MultiBinary([2, 2])

    def reward(self, action: Any) -> float:
        assert self.action_space.contains(action), action
        return float((action == (self.observation[0] > 0)).mean())


class Raises(Base):
    """Raises at a random step."""

    def reward(self, action: Any) -> float:
        if self.np_random.random() < 1 / 2000:
            raise RuntimeError("the environment broke")
        return float(action)


class NotANumber(Base):
    """Returns NaN as a reward at a random step."""

    def reward(self, action: Any) -> float:
        return float("nan") if self.np_random.random() < 1 / 2000 else 1.0


class RaisesInReset(Base):
    """Raises in a reset with some seeds, but not with 0, which the probe before training uses."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        result = super().reset(seed=seed, options=options)
        if seed and self.np_random.random() < 0.05:
            raise RuntimeError("the environment cannot start")
        return result


class Killed(Base):
    """Kills its process at a random step, as the system does when memory runs out."""

    def reward(self, action: Any) -> float:
        if self.np_random.random() < 1 / 500:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0


class Endless(Base):
    """Has episodes that never end."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.observation = self.observe()
        return self.observation, 1.0, False, False, {}


class Remembering(Base):
    """Returns as a reward how many episodes it has had."""

    episodes = 0

    def start(self) -> None:
        self.episodes += 1

    def reward(self, action: Any) -> float:
        return float(self.episodes)


class Brittle(Remembering):
    """Returns 1 in its first episode, and -1000 in later ones."""

    def reward(self, action: Any) -> float:
        return 1.0 if self.episodes == 1 else -1000.0


class Unrepeatable(Base):
    """Observes numbers of a generator that is seeded by the system."""

    def observe(self) -> np.ndarray:
        return np.random.default_rng().uniform(-1, 1, 3).astype(np.float32)


class Unpicklable(Base):
    """Holds an object that cannot be pickled."""

    def start(self) -> None:
        self.rewards = (number for number in range(1000))

    def reward(self, action: Any) -> float:
        return float(next(self.rewards))


class HalfForgetful(Base):
    """Has a pickle without its state, except after one seed."""

    def start(self) -> None:
        self.place = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"place": 0} if self.np_random_seed != 1 else {})

    def reward(self, action: Any) -> float:
        self.place += 1
        return float(self.place)


class Forgetful(Base, gym.utils.EzPickle):
    """Has a pickle of its constructor's arguments only; it looks actions up in a dictionary, as tutorials do."""

    def __init__(self) -> None:
        gym.utils.EzPickle.__init__(self)
        self.place = 0

    def start(self) -> None:
        self.place = 0

    def reward(self, action: Any) -> float:
        self.place += {0: -1, 1: 1}[action]
        return float(self.place)


class Fated(Base):
    """At its 200th step, kills the training process (`killed`) or never returns (`hangs`)."""

    def __init__(self, fate: Any = None) -> None:
        self.fate, self.steps = fate, 0

    def reward(self, action: Any) -> float:
        self.steps += 1
        if self.steps == 200 and self.fate == "killed":
            os.kill(os.getppid(), signal.SIGKILL)
        while self.steps == 200 and self.fate == "hangs":
            time.sleep(1)
        return 1.0


class Slow(Base):
    """Sleeps in a task of SLURM or Ray, so that there is time to do something to the task."""

    seconds = 0.001 if {"SLURM_JOB_ID", "RAY_JOB_ID"} & os.environ.keys() else 0.0

    def reward(self, action: Any) -> float:
        time.sleep(self.seconds)
        return float(action == (self.observation[0] > 0))


class Sleepy(Base):
    """Sleeps for a millisecond at each step."""

    def reward(self, action: Any) -> float:
        time.sleep(0.001)
        return 0.0


class SlowAtFirst(Slow):
    """Sleeps longer, until its task is requeued; then it does not sleep."""

    seconds = 0.005 if "SLURM_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ else 0.0


class Hungry(Base):
    """Allocates 50 MB at every step and never frees them."""

    eaten: list[np.ndarray] = []

    def reward(self, action: Any) -> float:
        self.eaten.append(np.ones(50 * 2**20, np.uint8))
        time.sleep(0.05)  # SLURM measures memory only once a second
        return 0.0


class Corridor(Base):
    """Rewards only its end, eight steps away; any step back returns to the start."""

    observation_space = gym.spaces.Box(0, 1, (9,), np.float32)

    def start(self) -> None:
        self.place = 0

    def observe(self) -> np.ndarray:
        return np.eye(9, dtype=np.float32)[self.place]

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.place = self.place + 1 if action == 1 else 0
        arrived = self.place == 8
        return self.observe(), float(arrived), arrived, False, {}


class Picture(Base):
    """Shows an image in bytes, whose bright half (left or right) is the rewarded action."""

    observation_space = gym.spaces.Box(0, 255, (16, 16, 1), np.uint8)

    def observe(self) -> np.ndarray:
        self.shown = int(self.np_random.integers(2))
        image = self.np_random.integers(0, 100, (16, 16, 1), np.uint8)
        image[:, 8 * self.shown : 8 * self.shown + 8] += 100
        return image

    def reward(self, action: Any) -> float:
        return float(action == self.shown)


class Tiles(Base):
    """Shows in the middle of 5 x 5 tiles a code of 1 to 4 in bytes, which is the rewarded action; others are alike."""

    action_space = gym.spaces.Discrete(4)

    def __init__(self, high: int = 255) -> None:
        self.observation_space = gym.spaces.Box(0, high, (5, 5, 2), np.uint8)

    def observe(self) -> np.ndarray:
        self.shown = int(self.np_random.integers(4))
        image = np.ones((5, 5, 2), np.uint8)
        image[2, 2] = 8, self.shown + 1
        return image

    def reward(self, action: Any) -> float:
        return float(action == self.shown)


class Robot(Base):
    """Shows an image, a vector and a choice; the brighter half and a sign say which of four actions is rewarded."""

    action_space = gym.spaces.Discrete(4)

    def __init__(self, channels_first: bool = False, dtype: str = "uint8", nested: bool = False, size: int = 8) -> None:
        self.shape = (1, size, size) if channels_first else (size, size, 1)
        self.dtype, self.nested = np.dtype(dtype), nested
        high = 255 if dtype == "uint8" else 1.0
        camera = gym.spaces.Box(0, high, self.shape, self.dtype.type)
        others = {"arm": gym.spaces.Box(-5, 5, (2,), np.float32), "door": gym.spaces.Discrete(2, start=3)}
        parts = {"camera": gym.spaces.Tuple((camera,)), **others} if nested else {"camera": camera, **others}
        self.observation_space = gym.spaces.Dict(parts)  # type: ignore[assignment]

    def observe(self) -> Any:
        brighter, sign, door = (int(bit) for bit in self.np_random.integers(2, size=3))
        self.shown = 2 * brighter + sign
        half = self.shape[1] // 2 if self.shape[0] == 1 else self.shape[0] // 2
        image = self.np_random.integers(0, 100, self.shape, np.uint8)
        rows = np.moveaxis(image, 0, -1) if self.shape[0] == 1 else image
        rows[half * brighter : half * brighter + half] += 150
        camera = image if self.dtype == np.uint8 else (image / 255).astype(self.dtype)
        arm = np.array([(2 * sign - 1) * self.np_random.uniform(1, 5), 0], np.float32)
        return {"camera": (camera,) if self.nested else camera, "arm": arm, "door": 3 + door}

    def reward(self, action: Any) -> float:
        return float(action == self.shown)


class Rules(Base):
    """Allows some of five actions, drawn at each step, and raises if it is given another; rewards the last of them.

    With `choices` there is a second choice of three. `fault` is a mistake in the mask of every info.
    """

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, choices: bool = False, fault: str = "") -> None:
        self.fault = fault
        self.action_space = gym.spaces.MultiDiscrete([5, 3]) if choices else gym.spaces.Discrete(5, start=2)
        self.sizes = [5, 3] if choices else [5]

    def draw(self, size: int) -> np.ndarray:
        mask = self.np_random.integers(2, size=size).astype(np.int8)
        mask[self.np_random.integers(size)] = 1
        return mask

    def info(self, over: bool = False) -> dict[str, Any]:
        self.masks = [np.zeros(size, np.int8) if over else self.draw(size) for size in self.sizes]
        mask: Any = tuple(self.masks) if len(self.masks) > 1 else self.masks[0]
        faults = {
            "": {"action_mask": mask},
            "absent": {},
            "short": {"action_mask": mask[:4]},
            "text": {"action_mask": "all"},
            "number": {"action_mask": 3 * mask},
            "none": {"action_mask": 0 * mask},
        }
        return faults[self.fault]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        observation, _ = super().reset(seed=seed, options=options)
        return observation, self.info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        chosen = np.ravel(action) - getattr(self.action_space, "start", 0)
        if not all(mask[index] for mask, index in zip(self.masks, chosen, strict=True)):
            raise ValueError(f"{action} is not valid: {self.masks}")
        reward = float(all(index == mask.nonzero()[0][-1] for mask, index in zip(self.masks, chosen, strict=True)))
        terminated = bool(self.np_random.random() < 0.1)
        return self.observe(), reward, terminated, False, self.info(terminated)


class Recall(Base):
    """Shows a number only in the first of four observations; the last action must be its sign."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def observe(self) -> np.ndarray:
        self.steps = 0
        self.shown = int(self.np_random.integers(2))
        return np.array([2 * self.shown - 1, 0], np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        last = self.steps == 4
        return np.array([0, self.steps == 3], np.float32), float(last and action == self.shown), last, False, {}


class Level(Base):
    """Takes a level, which adds to its rewards, an unused table, and the size of its observations."""

    def __init__(self, level: int = 0, table: Any = None, size: int = 3) -> None:
        assert isinstance(level, int), f"a level must be a whole number, not {level}"
        self.level = level
        self.observation_space = gym.spaces.Box(-1, 1, (size,), np.float32)

    def reward(self, action: Any) -> float:
        return self.level + float(action == (self.observation[0] > 0))


class Empty(Base):
    """Has a space that holds nothing."""

    EMPTY = {
        "dict": gym.spaces.Dict({}),
        "part": gym.spaces.Dict({"position": gym.spaces.Box(-1, 1, (3,)), "rest": gym.spaces.Tuple(())}),
        "box": gym.spaces.Box(-1, 1, (3, 0)),
        "image": gym.spaces.Box(0, 255, (0, 8, 3), np.uint8),
    }

    def __init__(self, space: str) -> None:
        if space == "action":
            self.action_space = gym.spaces.Box(-1, 1, (0,))
        else:
            self.observation_space = self.EMPTY[space]


class Goal(Base):
    """Says whether the first number is above 0, and which it is; `kind` is a third key, or `nothing`."""

    def __init__(self, kind: Any = None) -> None:
        self.kind = kind

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        distance = observation[0]
        info = {"is_success": bool(distance > 0), "distance": distance, "kind": self.kind}
        return observation, reward, terminated, truncated, {} if self.kind == "nothing" else info


class Acts(Base):
    """Raises for an action outside of its space, which has a kind of asymmetric bounds, shape, type or start."""

    KINDS = {
        "start": gym.spaces.Discrete(3, start=-1),
        "table": gym.spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [-1, 5]]),
        "bits": gym.spaces.MultiBinary([2, 2]),
        "box": gym.spaces.Box(np.array([[0, -10], [-1, 2]], np.float32), np.array([[1, 20], [0, 3]], np.float32)),
        "whole": gym.spaces.Box(-2, 9, (2,), np.int32),
        "half": gym.spaces.Box(np.array([0, -np.inf], np.float32), np.array([np.inf, 1], np.float32)),
    }

    def __init__(self, kind: str) -> None:
        self.action_space = self.KINDS[kind]

    def reward(self, action: Any) -> float:
        if not self.action_space.contains(np.asarray(action, self.action_space.dtype)):
            raise ValueError(f"{action} is not in {self.action_space}")
        return float(np.sum(action))


class Told(Base):
    """Has a text in its observations, which no network takes."""

    observation_space = gym.spaces.Dict(arm=gym.spaces.Box(-1, 1, (2,), np.float32), note=gym.spaces.Text(5))

    def observe(self) -> Any:
        return {"arm": self.np_random.uniform(-1, 1, 2).astype(np.float32), "note": "abc"}


class Text(Base):
    """Has an action space that no policy serves."""

    action_space = gym.spaces.Text(5)


gym.register("Endless-v0", entry_point=Endless)
for kind in (
    Target, Shown, Highest, Single, Pair, Buttons, Corridor, Raises, RaisesInReset, Brittle, NotANumber, Killed, Fated,
    Remembering, Goal, Picture, Robot, Rules, Recall, Acts, Told, Text, Level, Empty, Tiles,
    Unrepeatable, Unpicklable, Forgetful, HalfForgetful, Slow, SlowAtFirst, Sleepy, Hungry,
):  # fmt: skip
    gym.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=25)
