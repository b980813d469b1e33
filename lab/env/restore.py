"""Restores environments from a checkpoint: from their pickle, or by replaying the actions of their episode."""

from __future__ import annotations

import copy
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv

from lab.env.guard import close, guard
from lab.env.rng_isolation import Isolated

EARLIER_EPISODES = 3  # before a trial, so that environments that remember earlier episodes are detected
EARLIER_STEPS = 5  # steps of each of them; resets show more than steps
TRIAL_STEPS = 10  # steps before and after the state is saved
LATER_STEPS = 5  # steps of the episode after that
TRIAL_SEEDS = 2  # trials, because an environment may raise for its own reasons, or pass one by chance


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
        try:
            return pickle.dumps((state, self._ended), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception:  # of any type: lambdas, of which Gymnasium's wrappers are full
            return cloudpickle.dumps((state, self._ended), protocol=pickle.HIGHEST_PROTOCOL)

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


def detect_single_method(
    make: Callable[[], gym.Env[Any, Any]],
    name: str = "the environment",
    methods: Sequence[str] = ("pickle", "replay"),
) -> str:
    """Return the method that restores environments exactly, or `reset` if none does.

    Pickles are tried too, because some hold only the arguments of an environment's constructor.
    """
    for method in methods:
        results = []
        for seed in range(TRIAL_SEEDS):
            try:
                results.append(_is_restored(make, method, name, seed))
            except Exception:  # noqa: S112 - an environment that raises, for any reason, decides nothing
                continue
            if not results[-1]:
                break
        if results and all(results):
            return method
    return "reset"


def _is_restored(make: Callable[[], gym.Env[Any, Any]], method: str, name: str, seed: int) -> bool:
    original, twin = Restorable(make(), method, name), Restorable(make(), method, name)

    def restore() -> Restorable:
        twin.snapshot = original.snapshot
        return twin

    try:
        with guard(name):
            return _continues(original, restore, seed)
    finally:
        close(name, original.close, twin.close)


def detect_vector_method(make: Callable[[], VectorEnv[Any, Any, Any]], name: str = "the environment") -> str:
    """Return the same for a vector environment implemented as one object: `pickle` or `reset`."""
    envs: list[VectorEnv[Any, Any, Any]] = []

    def restore() -> VectorEnv[Any, Any, Any]:
        envs.append(pickle.loads(pickle.dumps(envs[0])))  # noqa: S301 - pickled here
        return envs[-1]

    try:
        envs.append(make())
        with guard(name):
            return "pickle" if _continues(envs[0], restore, 0) else "reset"
    except Exception:
        return "reset"
    finally:
        close(name, *(env.close for env in envs))


def _continues(original: Any, restore: Callable[[], Any], seed: int) -> bool:
    """Whether what `restore` returns continues like the original, in the same episode and in the next one."""
    original.action_space.seed(0)
    original.reset(seed=seed)
    for _ in range(EARLIER_EPISODES):
        _run(original, EARLIER_STEPS)
        original.reset()
    _run(original, TRIAL_STEPS)
    for _ in range(TRIAL_STEPS):  # to the midst of an episode, because there is less to restore after a reset
        if len(_run(original, 1)[0]) == 1:
            break
    twin = restore()
    if not data_equivalence(_wrapper_states(original), _wrapper_states(twin), exact=True):
        return False
    if not _run_alike(original, twin, TRIAL_STEPS):
        return False
    if not data_equivalence(original.reset()[0], twin.reset()[0], exact=True):
        return False
    return _run_alike(original, twin, LATER_STEPS)


def _wrapper_states(env: Any) -> list[Any]:
    """Return what the wrappers of an environment keep, as far as it is plain, such as a count of episodes."""
    states = []
    while isinstance(env, gym.Wrapper):
        states.append({} if isinstance(env, Restorable) else _keep_plain(vars(env)))
        env = env.env
    return states


def _keep_plain(value: Any) -> Any:
    """Return plain data and arrays, without what else a container holds."""
    if isinstance(value, dict):
        return {key: _keep_plain(item) for key, item in value.items() if isinstance(key, (str, int))}
    if isinstance(value, (list, tuple, deque)):
        return [_keep_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, np.ndarray, np.generic)) else None


def _run(env: Any, count: int, actions: Sequence[Any] = ()) -> tuple[list[Any], list[Any]]:
    """Take steps, by random actions unless some are given; return what they returned, and the actions."""
    results, chosen = [], []
    for index in range(count):
        chosen.append(actions[index] if actions else env.action_space.sample())  # one may depend on the state
        step = env.step(chosen[-1])[:4]
        results.append(step)
        if step[2] is True or step[3] is True:  # a vector environment resets itself
            results.append(env.reset()[0])
    return results, chosen


def _run_alike(original: Any, twin: Any, count: int) -> bool:
    """Whether two environments return the same for the same random actions."""
    results, actions = _run(original, count)
    return data_equivalence(results, _run(twin, count, actions)[0], exact=True)
