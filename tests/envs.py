"""Small environments for tests, by ids such as tests.envs:Target-v0."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np


class Base(gym.Env[np.ndarray, Any]):
    """Observes a random row of numbers; subclasses say what acting on it does."""

    observation_space: gym.Space[np.ndarray] = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.observation = self.observe()
        return self.observation, {}

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
    """Continuous: the reward is nearness to the first two numbers shown."""

    action_space = gym.spaces.Box(-2, 2, (2,), np.float32)

    def reward(self, action: Any) -> float:
        assert action.shape == (2,) and np.abs(action).max() <= 2
        return -float(np.square(action - self.observation[:2]).sum())


class Shown(Base):
    """Shows which of four choices is rewarded."""

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def observe(self) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[self.np_random.integers(4)]

    def reward(self, action: Any) -> float:
        return float(self.observation[action])


class Single(Base):
    """Continuous, with one number to see and one to give: the widths that batched products treat apart."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def reward(self, action: Any) -> float:
        return -float(np.square(action - self.observation).sum())


class Highest(Base):
    """One choice: that of the number shown as the highest; episodes are of 8 steps, each worth 1 if it is right."""

    action_space = gym.spaces.Discrete(3)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(action == self.observation.argmax())
        self.observation = self.observe()
        self.steps += 1
        return self.observation, reward, self.steps == 8, False, {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.steps = 0
        return super().reset(seed=seed, options=options)

    def observe(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[self.np_random.integers(3)]


class Pair(Base):
    """Two choices at once: each is to match the sign of a number shown; choices are counted from 3."""

    action_space = gym.spaces.MultiDiscrete([2, 3], start=[3, 3])

    def reward(self, action: Any) -> float:
        assert self.action_space.contains(np.asarray(action)), action
        return float(action[0] == 3 + (self.observation[0] > 0)) + float(action[1] == 3 + (self.observation[1] > 0))


class Buttons(Base):
    """Several choices of yes or no, in two rows: each is to say whether the number shown first is above 0."""

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
    """Gives NaN for a reward at a random step."""

    def reward(self, action: Any) -> float:
        return float("nan") if self.np_random.random() < 1 / 2000 else 1.0


class RaisesInReset(Base):
    """Raises when it is reset, for some seeds."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        result = super().reset(seed=seed, options=options)
        if seed and self.np_random.random() < 0.05:  # not for 0, with which it is tried before training
            raise RuntimeError("the environment cannot start")
        return result


class Killed(Base):
    """Is killed by the system, as when memory runs out."""

    def reward(self, action: Any) -> float:
        if self.np_random.random() < 1 / 500:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0


class Endless(Base):
    """Has episodes without an end."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.observation = self.observe()
        return self.observation, 1.0, False, False, {}


class Brittle(Base):
    """Gives a reward of another kind in all but the first episode."""

    episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.episodes += 1
        return super().reset(seed=seed, options=options)

    def reward(self, action: Any) -> float:
        return 1.0 if self.episodes == 1 else -1000.0


class Unrepeatable(Base):
    """Shows numbers of the system's own randomness, of which no seed knows."""

    def observe(self) -> np.ndarray:
        return np.random.default_rng().uniform(-1, 1, 3).astype(np.float32)


class Unpicklable(Base):
    """Holds what no pickle takes."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.lasting = (number for number in range(1000))
        return super().reset(seed=seed, options=options)

    def reward(self, action: Any) -> float:
        return float(next(self.lasting))


class Forgetful(Base, gym.utils.EzPickle):
    """Has a pickle that says how it was made, and no more; it takes actions by a dictionary, as tutorials do."""

    def __init__(self) -> None:
        gym.utils.EzPickle.__init__(self)
        self.place = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.place = 0
        return super().reset(seed=seed, options=options)

    def reward(self, action: Any) -> float:
        self.place += {0: -1, 1: 1}[action]
        return float(self.place)


class HalfForgetful(Base):
    """Has a pickle that forgets the state, except after one seed."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.place = 0
        return super().reset(seed=seed, options=options)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"place": 0} if self.np_random_seed != 1 else {})

    def reward(self, action: Any) -> float:
        self.place += 1
        return float(self.place)


class Fated(Base):
    """Meets its fate at the 200th step: `killed` kills the process that trains, as when memory runs out; `hangs`."""

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
    """Takes its time in a task of SLURM, without working, so that there is time to do something to the task."""

    seconds = 0.001 if "SLURM_JOB_ID" in os.environ else 0.0

    def reward(self, action: Any) -> float:
        time.sleep(self.seconds)
        return float(action == (self.observation[0] > 0))


class SlowAtFirst(Slow):
    """Takes much longer, until its task is queued again: then it takes no time."""

    seconds = 0.005 if "SLURM_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ else 0.0


class Hungry(Base):
    """Takes 50 MB more at every step, and never gives them back."""

    eaten: list[np.ndarray] = []

    def reward(self, action: Any) -> float:
        self.eaten.append(np.ones(50 * 2**20, np.uint8))
        time.sleep(0.05)  # for SLURM, which looks only once a second
        return 0.0


class Remembering(Base):
    """Gives a reward that grows with the episodes that it has seen."""

    episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.episodes += 1
        return super().reset(seed=seed, options=options)

    def reward(self, action: Any) -> float:
        return float(self.episodes)


class Corridor(Base):
    """Rewards nothing but its end, eight steps on; any step back leads to its beginning."""

    observation_space = gym.spaces.Box(0, 1, (9,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.place = 0
        return super().reset(seed=seed, options=options)

    def observe(self) -> np.ndarray:
        return np.eye(9, dtype=np.float32)[self.place]

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.place = self.place + 1 if action == 1 else 0
        arrived = self.place == 8
        return self.observe(), float(arrived), arrived, False, {}


class Picture(Base):
    """Shows an image in bytes, of which the bright half (left or right) is the action to choose."""

    observation_space = gym.spaces.Box(0, 255, (16, 16, 1), np.uint8)

    def observe(self) -> np.ndarray:
        self.shown = int(self.np_random.integers(2))
        image = self.np_random.integers(0, 100, (16, 16, 1), np.uint8)
        image[:, 8 * self.shown : 8 * self.shown + 8] += 100
        return image

    def reward(self, action: Any) -> float:
        return float(action == self.shown)


class Recall(Base):
    """Shows a number in the first of four observations alone; a reward is for its sign, chosen in the last step."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def observe(self) -> np.ndarray:
        self.steps = 0
        self.shown = int(self.np_random.integers(2))
        return np.array([2 * self.shown - 1, 0], np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        last = self.steps == 4
        asked = np.array([0, self.steps == 3], np.float32)
        return asked, float(last and action == self.shown), last, False, {}


class Level(Base):
    """Is given a level, which adds to its rewards, a table that it leaves alone, and how many numbers it shows."""

    def __init__(self, level: int = 0, table: Any = None, size: int = 3) -> None:
        assert isinstance(level, int), f"a level must be a whole number, not {level}"
        self.level = level
        self.observation_space = gym.spaces.Box(-1, 1, (size,), np.float32)

    def reward(self, action: Any) -> float:
        return self.level + float(action == (self.observation[0] > 0))


class Text(Base):
    """Has actions that nothing here can give."""

    action_space = gym.spaces.Text(5)


gym.register("Endless-v0", entry_point=Endless)
for kind in (
    Target, Shown, Highest, Single, Pair, Buttons, Corridor, Raises, RaisesInReset, Brittle, NotANumber, Killed, Fated,
    Remembering, Picture, Recall, Text, Level,
    Unrepeatable, Unpicklable, Forgetful, HalfForgetful, Slow, SlowAtFirst, Hungry,
):  # fmt: skip
    gym.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=25)
