"""Isolates environments that draw from the process's global random generators: numpy.random, random and torch."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorWrapper

from lab.env.guard import close, guard

NUMPY, PYTHON, TORCH = "numpy.random", "random", "torch"
GLOBAL_RNGS = (NUMPY, PYTHON, TORCH)
CONSTRUCTION, EPISODES = 0, 1  # purposes that states are seeded for
MT19937_BYTES = 2500  # size of a Mersenne twister's state
DRY_RUN_STEPS = 100

_python: Any = vars(random).get("_inst")
_numpy: Any = np.random  # its annotations lack get_bit_generator and set_bit_generator


class RngStates:
    """States of the global generators that belong to one environment; used as a context, the process has them."""

    def __init__(self, names: Iterable[str], seed: int, purpose: int = EPISODES) -> None:
        """Seed states of the generators with these names, which are among GLOBAL_RNGS."""
        self.names = tuple(name for name in GLOBAL_RNGS if name in tuple(names))
        self.seed(seed, purpose)

    def seed(self, seed: int, purpose: int = EPISODES) -> None:
        """Seed the states again."""
        sequence = np.random.SeedSequence((seed, purpose))
        number = int.from_bytes(sequence.generate_state(4).tobytes(), "little")
        self._outer: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        if NUMPY in self.names:
            self._own[NUMPY] = np.random.MT19937(sequence)  # the kind that numpy.random.seed can seed
        if PYTHON in self.names:
            self._own[PYTHON] = random.Random(number).getstate()  # noqa: S311 - for environments
        if TORCH in self.names and "torch" in sys.modules:
            self._own[TORCH] = sys.modules["torch"].Generator().manual_seed(number % 2**63).get_state()

    def __enter__(self) -> RngStates:
        for name, own in self._own.items():
            self._outer[name] = _swap(name, own)
        return self

    def __exit__(self, *_: object) -> None:
        for name, outer in self._outer.items():
            self._own[name] = _swap(name, outer)
        self._outer = {}


def _swap(name: str, state: Any) -> Any:
    """Set a global generator's state and return the one before."""
    if name == NUMPY:
        before: Any = _numpy.get_bit_generator()
        _numpy.set_bit_generator(state)
    elif name == PYTHON:
        before = random.getstate()
        random.setstate(state)
    else:
        before = sys.modules["torch"].get_rng_state()
        sys.modules["torch"].set_rng_state(state)
    return before


class RngWatch:
    """Detects which global generators were drawn from since it was made."""

    def __init__(self, names: Iterable[str] = GLOBAL_RNGS) -> None:
        self._before = {name: _fingerprint(name) for name in names}

    def changed(self) -> list[str]:
        """Return the names of the generators whose state changed."""
        return [name for name, before in self._before.items() if _fingerprint(name) != before]


def _fingerprint(name: str) -> Any:
    if name == PYTHON:
        return _python_fingerprint()
    if name == TORCH:
        return sys.modules[TORCH].get_rng_state().numpy().tobytes() if TORCH in sys.modules else b""
    generator = _numpy.get_bit_generator()
    if type(generator) is np.random.MT19937:  # reading its `state` takes twenty times as long
        return ctypes.string_at(generator.ctypes.state_address, MT19937_BYTES)
    return repr(generator.state)


def _python_bytes() -> bytes:
    """Return the state of Python's generator as CPython has it in memory, which takes a tenth of `getstate`'s time."""
    return ctypes.string_at(id(_python) + object.__basicsize__, MT19937_BYTES)


def _python_fingerprint() -> Any:
    return (_python_bytes(), _python.gauss_next) if _IS_IN_MEMORY else random.getstate()


def _is_in_memory() -> bool:
    if sys.implementation.name != "cpython" or _python is None:
        return False
    *state, index = _python.getstate()[1]
    return _python_bytes() == np.array([index, *state], np.uint32).tobytes()


_IS_IN_MEMORY = _is_in_memory()


def explain_global_draws(name: str, changed: Iterable[str]) -> str:
    """Return the error for an environment that drew from global generators though its dry run did not."""
    return (
        f"{name} drew from {' and '.join(changed)}, which is global to the process, although it did not in its dry run:"
        " results would depend on what else draws from it. Set env.isolate_rng=always to give each environment its own"
        " states."
    )


class _SwapsStates:
    """A wrapper's methods that swap its environment's states in."""

    env: Any
    rng_states: RngStates

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; a seed also seeds its states."""
        if seed is not None:
            self.rng_states.seed(seed)
        with self.rng_states:
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Take a step."""
        with self.rng_states:
            return self.env.step(action)


class Isolated(_SwapsStates, gym.Wrapper[Any, Any, Any, Any]):
    """An environment with its own states of the global generators with these names."""

    def __init__(self, env: gym.Env[Any, Any], names: Iterable[str]) -> None:
        gym.Wrapper.__init__(self, env)
        self.rng_states = RngStates(names, 0)


class IsolatedVector(_SwapsStates, VectorWrapper[Any, Any, Any, Any, Any]):
    """The same for a vector environment implemented as one object."""

    def __init__(self, env: Any, names: Iterable[str]) -> None:
        VectorWrapper.__init__(self, env)
        self.rng_states = RngStates(names, 0)


class DryRun(NamedTuple):
    """What a short run of an environment showed about its random numbers."""

    global_rngs: tuple[str, ...]  # names of the global generators that it draws from
    repeatable: bool  # whether its seed and those of the global generators determine all that it does

    def warnings(self, name: str) -> list[str]:
        """Return warnings for the user, which call the environment `name`."""
        texts = []
        if self.global_rngs:
            texts.append(
                f"{name} draws from {' and '.join(self.global_rngs)}, which is global to the process: each environment"
                " gets its own states, seeded by its Session. Drawing from self.np_random is faster."
            )
        if not self.repeatable:
            texts.append(
                f"{name} behaves differently with the same seed and actions: its results cannot be reproduced. It may"
                " draw from a generator that is not seeded, or depend on the time."
            )
        return texts


def dry_run(make: Callable[[], Any], name: str = "the environment") -> DryRun:
    """Run an environment, or a vector environment, twice with the same seeds and compare the runs."""
    runs = []
    for _ in range(2):
        with RngStates(GLOBAL_RNGS, 0):
            watch = RngWatch()
            runs.append(_run(make, name))
            changed = watch.changed()
    return DryRun(tuple(changed), data_equivalence(runs[0], runs[1], exact=True))


def _run(make: Callable[[], Any], name: str) -> list[Any]:
    """Return what an environment returned, until it raised an exception if it did."""
    results: list[Any] = []
    with suppress(Exception), guard(name):
        env = make()
        try:
            results.append(env.reset(seed=0)[0])
            env.action_space.seed(0)
            for _ in range(DRY_RUN_STEPS):
                step = env.step(env.action_space.sample())[:4]
                results.append(step)
                if step[2] is True or step[3] is True:  # a vector environment resets itself
                    results.append(env.reset()[0])
        finally:
            close(name, env.close)
            env.closed = True  # otherwise a vector environment is closed again when it is garbage-collected
    return results
