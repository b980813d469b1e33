"""The random generators that a whole process shares: an environment that draws from them gets states of its own."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

NUMPY, PYTHON, TORCH = "numpy.random", "random", "torch"
SHARED = (NUMPY, PYTHON, TORCH)
CONSTRUCTION, EPISODES = 0, 1  # what states are seeded for
_numpy: Any = np.random  # whose annotations lack some of its functions
TWISTER_BYTES = 2500  # of a Mersenne twister's state


class Generators:
    """States of shared generators that are one environment's own: within this context, the process has them."""

    def __init__(self, names: Iterable[str], seed: int, purpose: int = EPISODES) -> None:
        """Make states.

        Args:
            names: of the generators, among SHARED.
            seed: origin of the states.
            purpose: what else they are seeded by.
        """
        self.names = tuple(name for name in SHARED if name in tuple(names))
        self.seed(seed, purpose)

    def seed(self, seed: int, purpose: int = EPISODES) -> None:
        """Begin anew from a seed."""
        sequence = np.random.SeedSequence((seed, purpose))
        number = int.from_bytes(sequence.generate_state(4).tobytes(), "little")
        self._outer: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        if NUMPY in self.names:
            self._own[NUMPY] = np.random.MT19937(sequence)  # the kind that numpy.random.seed can seed
        if PYTHON in self.names:
            self._own[PYTHON] = random.Random(number).getstate()  # noqa: S311 - for environments
        if TORCH in self.names and "torch" in sys.modules:
            self._own[TORCH] = _torch().Generator().manual_seed(number % 2**63).get_state()

    def __enter__(self) -> Generators:
        for name, own in self._own.items():
            self._outer[name] = _exchange(name, own)
        return self

    def __exit__(self, *_: object) -> None:
        for name, outer in self._outer.items():
            self._own[name] = _exchange(name, outer)
        self._outer = {}


def _exchange(name: str, state: Any) -> Any:
    """Set a shared generator to a state, and return the one that it had."""
    if name == NUMPY:
        before: Any = _numpy.get_bit_generator()
        _numpy.set_bit_generator(state)
    elif name == PYTHON:
        before = random.getstate()
        random.setstate(state)
    else:
        before = _torch().get_rng_state()
        _torch().set_rng_state(state)
    return before


class Watch:
    """Tells which shared generators were drawn from since it was made."""

    def __init__(self, names: Iterable[str] = SHARED) -> None:
        self._before = {name: _fingerprint(name) for name in names}

    def changed(self) -> list[str]:
        """Return the names of the generators that are not in the states that they were in."""
        return [name for name, before in self._before.items() if _fingerprint(name) != before]


def _fingerprint(name: str) -> Any:
    if name == PYTHON:
        return random.getstate()
    if name == TORCH:
        return _torch().get_rng_state().numpy().tobytes() if TORCH in sys.modules else b""
    shared = _numpy.get_bit_generator()
    if type(shared) is np.random.MT19937:  # whose `state` takes twenty times as long
        return ctypes.string_at(shared.ctypes.state_address, TWISTER_BYTES)
    return repr(shared.state)


def _torch() -> Any:
    return sys.modules["torch"]


def shared_draws(name: str, changed: Iterable[str]) -> str:
    """Say what is wrong with an environment that drew from shared generators although its trial did not show it."""
    return (
        f"{name} drew from {' and '.join(changed)}, which all of a process share, as it did not in its trial: results"
        " would depend on what else draws from there. Set env.isolate_rng=always to give each environment states of"
        " its own."
    )


class Isolated(gym.Wrapper[Any, Any, Any, Any]):
    """An environment with states of shared generators that are its own; a reset with a seed seeds them, too.

    Attributes:
        generators: these states.
    """

    def __init__(self, env: gym.Env[Any, Any], names: Iterable[str]) -> None:
        """Wrap an environment that draws from generators of these names."""
        super().__init__(env)
        self.generators = Generators(names, 0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        if seed is not None:
            self.generators.seed(seed)
        with self.generators:
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        with self.generators:
            return self.env.step(action)


class IsolatedVector(VectorWrapper[Any, Any, Any, Any, Any]):
    """The same for a vector environment that is one object."""

    def __init__(self, env: VectorEnv[Any, Any, Any], names: Iterable[str]) -> None:
        super().__init__(env)
        self.generators = Generators(names, 0)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes."""
        if seed is not None:
            self.generators.seed(seed)
        with self.generators:
            return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step in every environment."""
        with self.generators:
            return self.env.step(actions)
