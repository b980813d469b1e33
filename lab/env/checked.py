"""Environments whose returned values are checked before anything else, such as numpy's broadcasting, sees them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers import HumanRendering, OrderEnforcing, RenderCollection, TimeLimit

from lab.env.contract import LARGEST, check_reset, check_step, check_vector_step

SQUARES = 1e38  # below it a sum of squares is one of finite numbers that float32 can hold
NUMBERS = frozenset((float, np.float64, np.float32, int))  # types of almost all rewards
WHOLE = frozenset((int, np.int64))
BOOLS = frozenset((bool, np.bool_))
OUTER = (HumanRendering, RenderCollection, TimeLimit, OrderEnforcing)  # what gym.make puts around every environment


def add_checks(env: gym.Env[Any, Any], name: str) -> gym.Env[Any, Any]:
    """Put checks around an environment, within what `gym.make` puts around it, as that unpacks what it returns.

    Args:
        env: as `gym.make` made it.
        name: what errors call it.
    """
    if isinstance(env, OUTER):
        env.env = add_checks(env.env, name)
        return env
    return Checked(env, name)


class Checked(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that raises a LabError, a sentence, where it does not do what Gymnasium asks of it.

    What is as it should be is seen fast, and all else checked at leisure. Infos are left out, as nothing reads them.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._spaces = _own_spaces(env.unwrapped)
        self._name, self._space = name, env.observation_space
        self._is_usual = usual_observations(self._space)

    @property
    def spec(self) -> Any:  # type: ignore[override]
        """The environment's own, of which this is no part."""
        return self.env.spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed is that of the environment's spaces, too, from which some draw what they return.

        Raises:
            LabError: what the environment returned is no observation of its space and a dict.
        """
        if seed is not None:
            for space in self._spaces:
                space.seed(seed)
        return check_reset(self._name, self._space, self.env.reset(seed=seed, options=options))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step.

        Raises:
            LabError: what the environment returned is no observation of its space, number, two bools and a dict.
        """
        returned: Any = self.env.step(action)
        if type(returned) is tuple and len(returned) == 5:
            observation, reward, terminated, truncated, info = returned
            if (
                type(reward) in NUMBERS
                and -LARGEST <= reward <= LARGEST
                and type(terminated) in BOOLS
                and type(truncated) in BOOLS
                and type(info) is dict
                and self._is_usual(observation)
            ):
                return observation, float(reward), bool(terminated), bool(truncated), {}
        return check_step(self._name, self._space, returned)


def _own_spaces(env: gym.Env[Any, Any]) -> list[gym.Space[Any]]:
    """Give an environment spaces of its own, as those of a class are shared by all of its environments; return them."""
    spaces = []
    for name in ("observation_space", "action_space"):
        with suppress(Exception):  # an attribute that it does not have, or that cannot be set
            setattr(env, name, copy.deepcopy(getattr(env, name)))
            spaces.append(getattr(env, name))
    return spaces


class CheckedVector(VectorWrapper[Any, Any, Any, Any, Any]):
    """The same for a vector environment that is one object."""

    def __init__(self, env: VectorEnv[Any, Any, Any], name: str) -> None:
        super().__init__(env)
        self._name, self._space = name, env.observation_space
        self._is_usual = usual_observations(self._space)
        self._rows = (env.num_envs,)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes.

        Raises:
            LabError: what the environment returned are no observations of its space and a dict.
        """
        return check_reset(self._name, self._space, self.env.reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take a step in every environment.

        Raises:
            LabError: what was returned are no observations of its space, numbers, bools and a dict.
        """
        returned: Any = self.env.step(actions)
        if type(returned) is tuple and len(returned) == 5:
            observation, reward, terminated, truncated, info = returned
            if (
                type(reward) is type(terminated) is type(truncated) is np.ndarray
                and reward.shape == terminated.shape == truncated.shape == self._rows
                and reward.dtype.kind == "f"
                and terminated.dtype == truncated.dtype == np.bool_
                and reward.dot(reward) < SQUARES
                and type(info) is dict
                and self._is_usual(observation)
            ):
                return observation, reward, terminated, truncated, {}
        return check_vector_step(self._name, self._space, self.num_envs, returned)


def usual_observations(space: gym.Space[Any]) -> Callable[[Any], bool]:
    """Return a fast test that most observations of a space pass, and no others; the slow one is to say of the rest."""
    if isinstance(space, gym.spaces.Discrete):
        return partial(_is_choice, int(space.start), int(space.start + space.n))
    if isinstance(space, gym.spaces.Box):
        real = space.dtype.kind == "f"
        return partial(_is_real, space.shape) if real else partial(_is_whole, space.shape, space.dtype)
    return _is_unknown


def _is_real(shape: tuple[int, ...], observation: Any) -> bool:
    if type(observation) is not np.ndarray or observation.shape != shape or observation.dtype.kind != "f":
        return False
    row = observation if len(shape) == 1 else observation.ravel("K")
    return row.dot(row) < SQUARES


def _is_whole(shape: tuple[int, ...], dtype: np.dtype[Any], observation: Any) -> bool:
    return type(observation) is np.ndarray and observation.shape == shape and observation.dtype == dtype


def _is_choice(start: int, end: int, observation: Any) -> bool:
    return type(observation) in WHOLE and start <= observation < end


def _is_unknown(observation: Any) -> bool:
    return False
