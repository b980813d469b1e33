"""Restores environments from a checkpoint: from their pickle, or by replaying the actions of their episode."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import islice
from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv

from lab.env.guard import close, guard
from lab.env.rng_isolation import Isolated

HISTORY_STEPS = 120  # steps before a trial, so that environments that remember earlier episodes are detected
TRIAL_STEPS = 20  # steps of each part of a trial
TRIAL_SEEDS = 3  # trials, because an environment may raise for its own reasons, or pass one by chance


class Restorable(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose state can be saved, and set in another one of the same kind, within an episode.

    If the saved episode had ended, it resets at the first step after the state is set, because the vector environment
    around it does not know of that episode.
    """

    def __init__(self, env: gym.Env[Any, Any], method: str, name: str = "the environment") -> None:
        """Wrap an environment; `method` is `pickle`, or `replay` of the actions since the reset."""
        super().__init__(env)
        self._method, self._name = method, name
        self._origin: Any = None  # the episode's seed or, without one, the random states at its reset
        self._options: dict[str, Any] | None = None
        self._actions: list[Any] = []
        self._ended = False
        self._restored = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, and record how it started."""
        self._ended = self._restored = False
        if self._method == "replay":
            self._origin = self._random_states() if seed is None else seed
            self._options, self._actions = options, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; the first one after the state was set resets instead if the episode had ended."""
        if self._restored and self._ended:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        self._restored = False
        if self._method == "replay":
            self._actions.append(copy.deepcopy(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._ended = bool(terminated or truncated)
        return observation, float(reward), terminated, truncated, info

    def _random_states(self) -> tuple[Any, Any]:
        """Return the states of the environment's own generator, and of its copies of the global ones."""
        states = copy.deepcopy(self.env.rng_states) if isinstance(self.env, Isolated) else None
        return self.env.unwrapped.np_random.bit_generator.state, states

    @property
    def snapshot(self) -> bytes:
        """The state, to be set in another environment of the same kind."""
        state = self.env if self._method == "pickle" else (self._origin, self._options, self._actions)
        return pickle.dumps((state, self._ended), protocol=pickle.HIGHEST_PROTOCOL)

    @snapshot.setter
    def snapshot(self, content: bytes) -> None:
        state, ended = pickle.loads(content)  # noqa: S301 - written by this class, into the user's own directory
        if self._method == "pickle":
            close(self._name, self.env.close)
            self.env = state
        else:
            self._replay(*state)
        self._ended, self._restored = ended, True

    def _replay(self, origin: Any, options: dict[str, Any] | None, actions: list[Any]) -> None:
        if isinstance(origin, int):
            self.reset(seed=origin, options=options)
        else:
            self.env.reset(seed=0)  # creates the generator whose state is set next
            self.env.unwrapped.np_random.bit_generator.state, states = origin
            if isinstance(self.env, Isolated):
                self.env.rng_states = states
            self.reset(options=options)
        for action in actions:
            self.step(action)


def detect_single_method(make: Callable[[], gym.Env[Any, Any]], name: str = "the environment") -> str:
    """Return the method that restores environments exactly: `pickle`, `replay`, or `reset` if neither does.

    Both are tried, because some environments' pickles hold only their constructor's arguments.
    """
    for method in ("pickle", "replay"):
        results = []
        for seed in range(TRIAL_SEEDS):
            try:
                original, twin = Restorable(make(), method, name), Restorable(make(), method, name)
                try:
                    with guard(name):
                        results.append(_is_restored(original, twin, seed))
                finally:
                    close(name, original.close, twin.close)
            except Exception:  # noqa: S112 - an environment that raises, for any reason, decides nothing
                continue
        if results and all(results):
            return method
    return "reset"


def detect_vector_method(make: Callable[[], VectorEnv[Any, Any, Any]], name: str = "the environment") -> str:
    """Return the same for a vector environment implemented as one object: `pickle` or `reset`."""
    try:
        original = make()
        with guard(name):
            original.reset(seed=0)
            original.action_space.seed(0)
            actions = [original.action_space.sample() for _ in range(2 * TRIAL_STEPS)]
            for action in actions[:TRIAL_STEPS]:
                original.step(action)
            twin = pickle.loads(pickle.dumps(original))  # noqa: S301 - pickled here
            same = all(
                data_equivalence(original.step(action)[:4], twin.step(action)[:4], exact=True)
                for action in actions[TRIAL_STEPS:]
            )
        close(name, original.close, twin.close)
    except Exception:
        return "reset"
    return "pickle" if same else "reset"


def _is_restored(original: Restorable, twin: Restorable, seed: int) -> bool:
    """Whether a twin continues like the original, in the same episode and in later ones."""
    original.action_space.seed(0)
    actions = iter([original.action_space.sample() for _ in range(HISTORY_STEPS + 3 * TRIAL_STEPS)])
    original.reset(seed=seed)
    _run(original, list(islice(actions, HISTORY_STEPS)))
    original.reset()
    _run(original, list(islice(actions, TRIAL_STEPS)))
    twin.snapshot = original.snapshot
    while part := list(islice(actions, TRIAL_STEPS)):
        if not data_equivalence(_run(original, part), _run(twin, part), exact=True):
            return False
        if not data_equivalence(original.reset()[0], twin.reset()[0], exact=True):
            return False
    return True


def _run(env: Restorable, actions: list[Any]) -> list[Any]:
    results = []
    for action in actions:
        step = env.step(action)[:4]
        results.append(step)
        if step[2] or step[3]:
            results.append(env.reset()[0])
    return results
