"""Bringing an environment back to where it was, in another process: by its pickle, or by replaying its episode."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import islice
from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv

from lab.env.closing import close
from lab.env.generators import Isolated
from lab.env.guard import guard

HISTORY_STEPS = 120  # steps before a trial, so that environments that remember earlier episodes show it
TRIAL_STEPS = 20  # steps of each part of the trial by which a way of restoring is found
TRIAL_SEEDS = 3  # trials, as an environment may raise for reasons of its own, and one may come out right by chance


class Restorable(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose state can be taken, and set in another one of the same kind, in the midst of an episode.

    It resets at the step after an episode's last, also where the vector environment around it was made anew and knows
    nothing of that episode.
    """

    def __init__(self, env: gym.Env[Any, Any], way: str, name: str = "the environment") -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            way: `pickle`, or `replay`: the random state at its reset, and its actions since.
            name: what notices call it.
        """
        super().__init__(env)
        self._way, self._name = way, name
        self._origin: Any = None  # the seed that the episode began with, or else the random states
        self._options: dict[str, Any] | None = None
        self._actions: list[Any] = []
        self._ended = False
        self._restored = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, and remember how it began."""
        self._ended = self._restored = False
        if self._way == "replay":
            self._origin = self._random_states() if seed is None else seed
            self._options, self._actions = options, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; the first one after the state was set resets instead if the episode had ended."""
        if self._restored and self._ended:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        self._restored = False
        if self._way == "replay":
            self._actions.append(copy.deepcopy(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._ended = bool(terminated or truncated)
        return observation, float(reward), terminated, truncated, info

    def _random_states(self) -> tuple[Any, Any]:
        """Return the state of the environment's own generator, and those of the shared ones that it has for itself."""
        generators = copy.deepcopy(self.env.generators) if isinstance(self.env, Isolated) else None
        return self.env.unwrapped.np_random.bit_generator.state, generators

    @property
    def snapshot(self) -> bytes:
        """The state, to be set in another environment of the same kind."""
        state = self.env if self._way == "pickle" else (self._origin, self._options, self._actions)
        return pickle.dumps((state, self._ended), protocol=pickle.HIGHEST_PROTOCOL)

    @snapshot.setter
    def snapshot(self, content: bytes) -> None:
        state, ended = pickle.loads(content)  # noqa: S301 - written by this class, into the user's own directory
        if self._way == "pickle":
            close(self._name, self.env.close)
            self.env = state
        else:
            self._replay(*state)
        self._ended, self._restored = ended, True

    def _replay(self, origin: Any, options: dict[str, Any] | None, actions: list[Any]) -> None:
        if isinstance(origin, int):
            self.reset(seed=origin, options=options)
        else:
            self.env.reset(seed=0)  # makes what carries the random state
            self.env.unwrapped.np_random.bit_generator.state, generators = origin
            if isinstance(self.env, Isolated):
                self.env.generators = generators
            self.reset(options=options)
        for action in actions:
            self.step(action)


def pickled(envs: VectorEnv[Any, Any, Any]) -> bytes:
    """Return the pickle of a vector environment that is one object."""
    return pickle.dumps(envs, protocol=pickle.HIGHEST_PROTOCOL)


def unpickled(content: bytes) -> VectorEnv[Any, Any, Any]:
    """Return the vector environment of a pickle."""
    return pickle.loads(content)  # noqa: S301 - from the user's own directory


def detect_single_method(make: Callable[[], gym.Env[Any, Any]], name: str = "the environment") -> str:
    """Return how environments can be brought back: `pickle`, `replay`, or `reset` where neither gives what it should.

    It is tried, because pickles of some environments hold no more than how they were made.

    Args:
        make: makes an environment.
        name: what notices call it.
    """
    for way in ("pickle", "replay"):
        outcomes = []
        for seed in range(TRIAL_SEEDS):
            try:
                original, twin = Restorable(make(), way, name), Restorable(make(), way, name)
                try:
                    with guard(name):
                        outcomes.append(_survives(original, twin, seed))
                finally:
                    close(name, original.close, twin.close)
            except Exception:  # noqa: S112 - whatever it is that an environment raises, this trial says nothing
                continue
        if outcomes and all(outcomes):
            return way
    return "reset"


def detect_vector_method(make: Callable[[], VectorEnv[Any, Any, Any]], name: str = "the environment") -> str:
    """Return how a vector environment that is one object can be brought back: `pickle` or `reset`."""
    try:
        original = make()
        with guard(name):
            original.reset(seed=0)
            original.action_space.seed(0)
            actions = [original.action_space.sample() for _ in range(2 * TRIAL_STEPS)]
            for action in actions[:TRIAL_STEPS]:
                original.step(action)
            twin = unpickled(pickled(original))
            same = all(
                data_equivalence(original.step(action)[:4], twin.step(action)[:4], exact=True)
                for action in actions[TRIAL_STEPS:]
            )
        close(name, original.close, twin.close)
    except Exception:
        return "reset"
    return "pickle" if same else "reset"


def _survives(original: Restorable, twin: Restorable, seed: int) -> bool:
    """Say whether a twin goes on as the original does, in the same episode and in the next."""
    original.action_space.seed(0)
    actions = iter([original.action_space.sample() for _ in range(HISTORY_STEPS + 3 * TRIAL_STEPS)])
    original.reset(seed=seed)
    _play(original, list(islice(actions, HISTORY_STEPS)))  # of which nothing may be left in the next episode
    original.reset()
    _play(original, list(islice(actions, TRIAL_STEPS)))
    twin.snapshot = original.snapshot
    while part := list(islice(actions, TRIAL_STEPS)):
        if not data_equivalence(_play(original, part), _play(twin, part), exact=True):
            return False
        if not data_equivalence(original.reset()[0], twin.reset()[0], exact=True):
            return False
    return True


def _play(env: Restorable, actions: list[Any]) -> list[Any]:
    steps = []
    for action in actions:
        step = env.step(action)[:4]
        steps.append(step)
        if step[2] or step[3]:
            steps.append(env.reset()[0])
    return steps
