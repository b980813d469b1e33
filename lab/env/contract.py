"""What Gymnasium asks of an environment's `reset` and `step`, and a sentence for anything else that they return."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from lab.errors import LabError

LARGEST = float(np.finfo(np.float32).max)  # rewards and observations are kept in float32
REAL, WHOLE = "fiub", "iub"  # kinds of numpy's dtypes
MOST_TEXT = 60  # characters of a value that a sentence quotes

Fault = tuple[str, str]  # which part of an observation is wrong, as "['position'][0]", and what is


def check_reset(name: str, space: gym.Space[Any], returned: Any) -> tuple[Any, dict[str, Any]]:
    """Return what `reset` returned: an observation and a dict, which is empty here as nothing reads it.

    Args:
        name: of the environment.
        space: of its observations.
        returned: what its `reset` returned.

    Raises:
        LabError: it is something else, or the observation is none of the space.
    """
    pair = isinstance(returned, (tuple, list)) and len(returned) == 2
    if not pair or not isinstance(returned[1], Mapping):
        what = f"two values, of which the second is {describe(returned[1])}" if pair else describe(returned)
        raise LabError(f"{name}: reset returned {what}; it must return an observation and a dict.")
    _check_observation(name, "reset", space, returned[0])
    return returned[0], {}


def check_step(name: str, space: gym.Space[Any], returned: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Return what `step` returned: an observation, a float, two bools and a dict, which is empty here.

    Raises:
        LabError: it is something else, and cannot be taken for these either.
    """
    observation, reward, terminated, truncated = _unpack(name, returned)
    _check_observation(name, "step", space, observation)
    ends = [_to_bool(name, key, value) for key, value in (("terminated", terminated), ("truncated", truncated))]
    return observation, _to_float(name, "reward", reward), ends[0], ends[1], {}


def check_vector_step(
    name: str, space: gym.Space[Any], num_envs: int, returned: Any
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Return what the `step` of a vector environment returned, with rewards and ends as arrays [num_envs].

    Raises:
        LabError: it is something else, and cannot be taken for these either.
    """
    observation, *rest = _unpack(name, returned)
    _check_observation(name, "step", space, observation)
    columns: list[np.ndarray] = []
    checks: tuple[Callable[[str, str, Any], Any], ...] = (_to_float, _to_bool, _to_bool)
    for key, value, check in zip(("reward", "terminated", "truncated"), rest, checks, strict=True):
        column = _to_array(value)
        if column is None or column.shape != (num_envs,):
            raise LabError(f"{name}: the {key} is {describe(value)}; it must be an array of shape ({num_envs},).")
        columns.append(np.array([check(name, key, one) for one in column]))
    return observation, columns[0], columns[1], columns[2], {}


def describe(value: Any) -> str:
    """Say in a few words what a value is."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray) and value.shape:
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)) and len(value) > 1:
        return f"{len(value)} values"
    text = " ".join(repr(value).split())
    text = text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."
    return text if isinstance(value, (bool, int, float)) else f"{text} ({type(value).__name__})"


def _unpack(name: str, returned: Any) -> tuple[Any, Any, Any, Any]:
    if not isinstance(returned, (tuple, list)) or len(returned) != 5:
        old = " (as Gym did before 0.26)" if isinstance(returned, (tuple, list)) and len(returned) == 4 else ""
        raise LabError(
            f"{name}: step returned {describe(returned)}{old}; it must return five: an observation, a reward,"
            " terminated, truncated and a dict."
        )
    observation, reward, terminated, truncated, info = returned
    if not isinstance(info, Mapping):
        raise LabError(f"{name}: the fifth value that step returned is {describe(info)}; it must be a dict.")
    return observation, reward, terminated, truncated


def _to_float(name: str, key: str, value: Any) -> float:
    number: Any = value
    if not isinstance(value, numbers.Real):
        array = _to_array(value)
        if array is None or array.size != 1 or array.dtype.kind not in REAL:
            raise LabError(f"{name}: the {key} that step returned is {describe(value)}; it must be a number.")
        number = array.item()
    if not -LARGEST <= number <= LARGEST:
        what = "NaN" if number != number else "infinite" if abs(number) == np.inf else f"{describe(number)}, too large"
        raise LabError(f"{name}: the {key} that step returned is {what}; it must be a finite number of float32.")
    return float(number)


def _to_bool(name: str, key: str, value: Any) -> bool:
    array = _to_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in WHOLE or array.item() not in (0, 1):
        raise LabError(f"{name}: {key}, as step returned it, is {describe(value)}; it must be True or False.")
    return bool(array.item())


def _check_observation(name: str, method: str, space: gym.Space[Any], observation: Any) -> None:
    fault = _find_fault(space, observation)
    if fault:
        raise LabError(f"{name}: the observation{fault[0]} that {method} returned {fault[1]}.")


def _find_fault(space: gym.Space[Any], observation: Any) -> Fault | None:
    """Return what makes an observation none of a space, except for the bounds of a Box; None if it is one."""
    if observation is None:
        return "", "is None"
    if isinstance(space, gym.spaces.Box):
        return _find_fault_in_box(space, observation)
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
        return _find_fault_in_choice(space, observation)
    if isinstance(space, (gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
        observation = _to_array(observation)
    try:
        contained = observation is not None and space.contains(observation)
    except Exception:
        contained = False
    return None if contained else ("", f"is {describe(observation)}, which is not in its space {space}")


def _find_fault_in_parts(parts: dict[Any, tuple[gym.Space[Any], Any]]) -> Fault | None:
    for key, (space, observation) in parts.items():
        fault = _find_fault(space, observation)
        if fault:
            return f"[{key!r}]{fault[0]}", fault[1]
    return None


def _find_fault_in_choice(space: gym.spaces.Discrete, observation: Any) -> Fault | None:
    array = _to_array(observation)
    if array is None or array.shape or array.dtype.kind not in WHOLE:
        return "", f"is {describe(observation)}; its space is {space}"
    if not space.start <= array.item() < space.start + space.n:
        return "", f"is {array.item()}; its space {space} goes from {space.start} to {space.start + space.n - 1}"
    return None


def _find_fault_in_box(space: gym.spaces.Box, observation: Any) -> Fault | None:
    array = _to_array(observation)
    if array is None or array.dtype.kind not in REAL:
        kind = "" if array is None or array.ndim == 0 else f" of {array.dtype}"
        return "", f"is {describe(observation)}{kind}; its space holds numbers ({space.dtype})"
    if array.shape != space.shape:
        what = f"has the shape {array.shape}" if array.shape else f"is a single number ({array.item()})"
        return "", f"{what}; its space has the shape {space.shape}"
    if space.dtype.kind in WHOLE:
        return _find_fault_in_whole(space, array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        value = "NaN" if np.isnan(array[tuple(where)]) else "infinite"
        return "", f"is {value}" + (f" at index {', '.join(map(str, where))}" if where else "")
    if array.size and np.abs(array).max() > LARGEST:
        return "", "has a number that is too large for float32"
    return None


def _find_fault_in_whole(space: gym.spaces.Box, array: np.ndarray) -> Fault | None:
    if array.dtype.kind not in WHOLE:
        return "", f"holds {array.dtype}, which would be cut to its space's {space.dtype}"
    if array.size and space.dtype.kind != "b" and not np.can_cast(array.dtype, space.dtype):
        limits = np.iinfo(space.dtype.type)  # type: ignore[type-var] # which is a whole number's
        if not limits.min <= array.min() <= array.max() <= limits.max:
            return "", f"goes from {array.min()} to {array.max()}, more than its space's {space.dtype} can hold"
    return None


def _to_array(value: Any) -> np.ndarray | None:
    """Return a value as an array, or None if it cannot be one."""
    try:
        return np.asarray(value)
    except Exception:  # ragged lists, tensors of another device: whatever its type raises
        return None
