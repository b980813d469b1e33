"""Validates what an environment's `reset` and `step` return, before numpy's broadcasting or a network sees it.

Valid values pass a fast test of their types. Any others go through `check_reset`, `check_step` or
`check_vector_step`, which convert what is equivalent (a list, a 0-d array) and raise LabError for the rest.
"""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import HumanRendering, OrderEnforcing, RenderCollection, TimeLimit

from lab.errors import LabError, plain_numbers

LARGEST = float(np.finfo(np.float32).max)  # rewards and observations are stored in float32
MAX_SQUARES = 1e38  # a sum of squares below this has only finite terms that float32 can hold
REAL, INTEGER = "fiub", "iub"  # kinds of numpy's dtypes
FLOATS = frozenset((float, np.float64, np.float32, int))  # types of almost all rewards
INTS = frozenset((int, np.int64))
BOOLS = frozenset((bool, np.bool_))
MAX_TEXT = 60  # characters of a value that a message quotes
OUTER = (HumanRendering, RenderCollection, TimeLimit, OrderEnforcing)  # wrappers that gym.make adds

Step = tuple[Any, float, bool, bool, dict[str, Any]]
VectorStep = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
Fault = tuple[str, str]  # the part of an observation, as "['position'][0]", and what is wrong with it


def add_validation(env: gym.Env[Any, Any], name: str, infos: bool = False) -> gym.Env[Any, Any]:
    """Validate an environment inside the wrappers that `gym.make` adds, because those unpack what it returns."""
    if isinstance(env, OUTER):
        env.env = add_validation(env.env, name, infos)
        return env
    return Validated(env, name, infos, _copy_spaces(env.unwrapped))


class Validated(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose `reset` and `step` raise LabError for values that break Gymnasium's interface.

    Infos are dropped unless `infos` is true, because workers would send them.
    """

    def __init__(
        self, env: gym.Env[Any, Any], name: str, infos: bool = False, spaces: Sequence[gym.Space[Any]] = ()
    ) -> None:
        """Wrap an environment; `spaces` are seeded with it."""
        super().__init__(env)
        self._offers_mask = False
        self._infos, self._spaces = infos, spaces
        self._name, self._space = name, env.observation_space
        self._is_valid = fast_test(self._space)

    @property
    def spec(self) -> Any:  # type: ignore[override]
        """The environment's own spec, without this wrapper."""
        return self.env.spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; a seed also seeds the spaces, because some environments sample from them."""
        if seed is not None:
            for space in self._spaces:
                space.seed(seed)
        observation, info = self._check_reset(self.env.reset(seed=seed, options=options))
        return observation, info if self._infos else {}

    def _check_reset(self, result: Any) -> tuple[Any, dict[str, Any]]:
        checked = check_reset(self._name, self._space, result)
        self._offers_mask = "action_mask" in checked[1]
        return checked

    def step(self, action: Any) -> Step:
        """Take a step."""
        return self._check(self.env.step(action))

    def _check(self, result: Any) -> Step:
        if type(result) is tuple and len(result) == 5:
            observation, reward, terminated, truncated, info = result
            if (
                type(reward) in FLOATS
                and -LARGEST <= reward <= LARGEST
                and type(terminated) in BOOLS
                and type(truncated) in BOOLS
                and type(info) is dict
                and self._is_valid(observation)
            ):
                return observation, float(reward), bool(terminated), bool(truncated), info if self._infos else {}
        checked = check_step(self._name, self._space, result)
        return checked if self._infos else (*checked[:4], {})


class ValidatedVector(VectorWrapper[Any, Any, Any, Any, Any]):
    """The same for a vector environment implemented as one object."""

    def __init__(self, env: VectorEnv[Any, Any, Any], name: str) -> None:
        super().__init__(env)
        self.check = VectorCheck(name, env.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes."""
        return check_reset(self.check.name, self.check.space, self.env.reset(seed=seed, options=options))

    def step(self, actions: Any) -> VectorStep:
        """Take a step in every environment."""
        return self.check(self.env.step(actions))


class VectorCheck:
    """Validates what `step` of a vector environment returned."""

    def __init__(self, name: str, single: gym.Space[Any], num_envs: int) -> None:
        self.name, self.single, self.num_envs = name, single, num_envs
        self.space = batch_space(single, num_envs)
        self._is_valid = fast_test(self.space)
        self._shape = (num_envs,)

    def passes(self, result: Any) -> bool:
        """Test it fast; no invalid and almost every valid result passes."""
        if type(result) is not tuple or len(result) != 5:
            return False
        observation, reward, terminated, truncated, info = result
        return (
            type(reward) is type(terminated) is type(truncated) is np.ndarray
            and reward.shape == terminated.shape == truncated.shape == self._shape
            and reward.dtype.kind == "f"
            and terminated.dtype == truncated.dtype == np.bool_
            and reward.dot(reward) < MAX_SQUARES
            and isinstance(info, dict)
            and self._is_valid(observation)
        )

    def __call__(self, result: Any) -> VectorStep:
        """Return the arrays and the info, or raise LabError if a value is invalid."""
        if self.passes(result):
            return *result[:4], result[4]
        return check_vector_step(self.name, self.space, self.num_envs, result)


def _copy_spaces(env: gym.Env[Any, Any]) -> list[gym.Space[Any]]:
    """Replace an environment's spaces by copies, because a class may give the same ones to all its environments."""
    spaces = []
    for name in ("observation_space", "action_space"):
        with suppress(Exception):  # a missing or read-only attribute
            setattr(env, name, copy.deepcopy(getattr(env, name)))
            spaces.append(getattr(env, name))
    return spaces


def fast_test(space: gym.Space[Any]) -> Callable[[Any], bool]:
    """Return a fast test that no invalid and almost every valid observation of a space passes; it can be pickled."""
    if isinstance(space, gym.spaces.Discrete):
        return partial(_is_choice, int(space.start), int(space.start + space.n))
    if not isinstance(space, gym.spaces.Box):
        return _is_never
    if space.dtype.kind != "f":
        return partial(_is_array, space.shape, space.dtype)
    return partial(_is_finite_array, space.shape)


def _is_choice(start: int, end: int, value: Any) -> bool:
    return type(value) in INTS and start <= value < end


def _is_never(_: Any) -> bool:
    return False


def _is_array(shape: tuple[int, ...], dtype: np.dtype[Any], value: Any) -> bool:
    return type(value) is np.ndarray and value.shape == shape and value.dtype == dtype


def _is_finite_array(shape: tuple[int, ...], value: Any) -> bool:
    if type(value) is not np.ndarray or value.shape != shape or value.dtype.kind != "f":
        return False
    row = value if len(shape) == 1 else value.ravel("K")
    return row.dot(row) < MAX_SQUARES


def check_reset(name: str, space: gym.Space[Any], result: Any) -> tuple[Any, dict[str, Any]]:
    """Return the observation and the info that `reset` returned; raise LabError if either is invalid."""
    pair = isinstance(result, (tuple, list)) and len(result) == 2
    if not pair or not isinstance(result[1], Mapping):
        what = f"two values, of which the second is {describe(result[1])}" if pair else describe(result)
        raise LabError(f"{name}: reset returned {what}; it must return an observation and a dict.")
    _check_observation(name, "reset", space, result[0])
    return result[0], dict(result[1])


def check_step(name: str, space: gym.Space[Any], result: Any) -> Step:
    """Return what `step` returned, with a float and two bools, or raise LabError if a value is invalid."""
    observation, reward, terminated, truncated, info = _unpack(name, result)
    _check_observation(name, "step", space, observation)
    ends = [_to_bool(name, key, value) for key, value in (("terminated", terminated), ("truncated", truncated))]
    return observation, _to_float(name, "reward", reward), ends[0], ends[1], info


def check_vector_step(name: str, space: gym.Space[Any], num_envs: int, result: Any) -> VectorStep:
    """Return the same for a vector environment, with arrays [num_envs] of floats and bools."""
    observation, *rest, info = _unpack(name, result)
    _check_observation(name, "step", space, observation)
    columns: list[np.ndarray] = []
    convert: tuple[Callable[[str, str, Any], Any], ...] = (_to_float, _to_bool, _to_bool)
    for key, value, to_type in zip(("reward", "terminated", "truncated"), rest, convert, strict=True):
        column = _to_array(value)
        if column is None or column.shape != (num_envs,):
            raise LabError(f"{name}: the {key} is {describe(value)}; it must be an array of shape ({num_envs},).")
        columns.append(np.array([to_type(name, key, item) for item in column]))
    return observation, columns[0], columns[1], columns[2], info


def describe(value: Any) -> str:
    """Return a short description of a value for an error message."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray) and value.shape:
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)) and len(value) > 1:
        return f"{len(value)} values"
    text = plain_numbers(" ".join(repr(value).split()))
    text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
    return text if isinstance(value, (bool, int, float)) else f"{text} ({type(value).__name__})"


def _unpack(name: str, result: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    if not isinstance(result, (tuple, list)) or len(result) != 5:
        old = " (as Gym did before 0.26)" if isinstance(result, (tuple, list)) and len(result) == 4 else ""
        raise LabError(
            f"{name}: step returned {describe(result)}{old}; it must return five: an observation, a reward,"
            " terminated, truncated and a dict."
        )
    observation, reward, terminated, truncated, info = result
    if not isinstance(info, Mapping):
        raise LabError(f"{name}: the fifth value that step returned is {describe(info)}; it must be a dict.")
    return observation, reward, terminated, truncated, dict(info)


def to_number(value: Any) -> Any:
    """Return a value as one number of Python, infinite if it is too large for a float; None if it is none."""
    if not isinstance(value, numbers.Real):
        array = _to_array(value)
        return None if array is None or array.size != 1 or array.dtype.kind not in REAL else array.item()
    try:
        return float(value)
    except OverflowError:  # whole numbers and fractions have no bounds
        return -math.inf if value < 0.0 else math.inf


def _to_float(name: str, key: str, value: Any) -> float:
    number = to_number(value)
    if number is None:
        raise LabError(f"{name}: the {key} that step returned is {describe(value)}; it must be a number.")
    if not -LARGEST <= number <= LARGEST:
        what = "NaN" if number != number else "infinite" if abs(number) == np.inf else f"{describe(number)}, too large"
        raise LabError(f"{name}: the {key} that step returned is {what}; it must be a finite number of float32.")
    return float(number)


def _to_bool(name: str, key: str, value: Any) -> bool:
    array = _to_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in INTEGER or array.item() not in (0, 1):
        raise LabError(f"{name}: {key}, as step returned it, is {describe(value)}; it must be True or False.")
    return bool(array.item())


def _to_array(value: Any) -> np.ndarray | None:
    try:
        return np.asarray(value)
    except Exception:  # ragged lists, tensors of another device: any type of exception
        return None


def _check_observation(name: str, method: str, space: gym.Space[Any], observation: Any) -> None:
    fault = _find_fault(space, observation)
    if fault:
        raise LabError(f"{name}: the observation{fault[0]} that {method} returned {fault[1]}.")


def _find_fault(space: gym.Space[Any], observation: Any) -> Fault | None:
    """Return why an observation is not in a space, or None if it is; the bounds of a Box are not checked."""
    if observation is None:
        return "", "is None"
    if isinstance(space, gym.spaces.Box):
        what = _describe_fault_in_box(space, observation)
        return ("", what) if what else None
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(observation, Mapping):
            return "", f"is {describe(observation)}; its space is a dict of {', '.join(map(str, space.spaces))}"
        if set(observation) != set(space.spaces):
            keys = ", ".join(map(str, observation)) or "none"
            return "", f"has the keys {keys}; its space has {', '.join(map(str, space.spaces))}"
        return _find_fault_in_parts({key: (part, observation[key]) for key, part in space.spaces.items()})
    if isinstance(space, gym.spaces.Tuple):
        if not isinstance(observation, (tuple, list)) or len(observation) != len(space.spaces):
            return "", f"is {describe(observation)}; its space is a tuple of {len(space.spaces)}"
        return _find_fault_in_parts(dict(enumerate(zip(space.spaces, observation, strict=True))))
    if isinstance(space, gym.spaces.Discrete):
        array = _to_array(observation)
        if array is None or array.shape or array.dtype.kind not in INTEGER:
            return "", f"is {describe(observation)}; its space is {space}"
        if not space.start <= array.item() < space.start + space.n:
            return "", f"is {array.item()}; its space {space} goes from {space.start} to {space.start + space.n - 1}"
        return None
    if isinstance(space, (gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
        observation = _to_array(observation)
    with suppress(Exception):
        if observation is not None and space.contains(observation):
            return None
    return "", f"is {describe(observation)}, which is not in its space {space}"


def _find_fault_in_parts(parts: dict[Any, tuple[gym.Space[Any], Any]]) -> Fault | None:
    for key, (space, observation) in parts.items():
        fault = _find_fault(space, observation)
        if fault:
            return f"[{key!r}]{fault[0]}", fault[1]
    return None


def _describe_fault_in_box(space: gym.spaces.Box, observation: Any) -> str | None:
    array = _to_array(observation)
    if array is None or array.dtype.kind not in REAL:
        kind = "" if array is None or array.ndim == 0 else f" of {array.dtype}"
        return f"is {describe(observation)}{kind}; its space holds numbers ({space.dtype})"
    if array.shape != space.shape:
        what = f"has the shape {array.shape}" if array.shape else f"is a single number ({array.item()})"
        return f"{what}; its space has the shape {space.shape}"
    if space.dtype.kind in INTEGER:
        if array.dtype.kind not in INTEGER:
            return f"holds {array.dtype}, which would be cut to its space's {space.dtype}"
        if array.size and space.dtype.kind != "b" and not np.can_cast(array.dtype, space.dtype):
            limits = np.iinfo(space.dtype.type)  # type: ignore[type-var] # an integer type
            if not limits.min <= array.min() <= array.max() <= limits.max:
                return f"goes from {array.min()} to {array.max()}, more than its space's {space.dtype} can hold"
        return None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        value = "NaN" if np.isnan(array[tuple(where)]) else "infinite"
        return f"is {value}" + (f" at index {', '.join(map(str, where))}" if where else "")
    if array.size and np.abs(array).max() > LARGEST:
        return "has a number that is too large for float32"
    return None
