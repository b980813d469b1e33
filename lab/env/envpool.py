"""Environments of EnvPool, which steps many in compiled code (Weng et al. 2022)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from lab.common.conf import install_command
from lab.common.imports import import_named
from lab.env.spaces import is_image
from lab.env.spec import EnvSpec
from lab.errors import LabError, did_you_mean

# Arguments that decide how a pool is stepped, of which `num_threads` alone may be chosen: it changes no result.
RESERVED = ("num_envs", "batch_size", "max_num_players", "thread_affinity_offset", "base_path", "seed", "env_seed")


class EnvPoolVector(VectorEnv[Any, Any, Any]):
    """A pool of one kind of environments, each with a seed of its own.

    The pool is made at a reset with seeds, because EnvPool takes them then only. It resets an environment at the step
    after its episode's last. Images have their channels last, as networks take them.
    """

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        """Read the spaces, or raise LabError if EnvPool is not installed or does not have the environment."""
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        self._pool: Any = None
        package = _import(spec)
        arguments = {"num_threads": 1, **spec.arguments}
        self._make: Callable[..., Any] = functools.partial(
            package.make, spec.id, env_type="gymnasium", num_envs=num_envs, **arguments
        )
        known = package.make_spec(spec.id)
        for name in arguments:
            allowed = [field for field in known.config._fields if field not in RESERVED]
            if name not in allowed:
                raise LabError(
                    f"env.kwargs.{name} is not an argument of {spec.id} with env.backend=envpool."
                    f"{did_you_mean(name, allowed)} It takes {', '.join(allowed)}."
                )
        space, actions = _read_spaces(package.make_spec(spec.id, **arguments))
        self._channels_first = is_image(space) and space.shape[0] < min(space.shape[1:])
        if self._channels_first:
            low, high = (np.moveaxis(bound, 0, -1) for bound in (space.low, space.high))
            space = gym.spaces.Box(low, high, dtype=space.dtype)
        self.single_observation_space, self.single_action_space = space, actions
        self.observation_space = batch_space(space, num_envs)
        self.action_space = batch_space(actions, num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset every environment, with a list of seeds or one from which they count up."""
        if seed is not None or self._pool is None:
            first = 0 if seed is None else seed
            self.close_extras()
            seeds = first if isinstance(first, list) else list(range(first, first + self.num_envs))
            self._pool = self._make(seed=seeds)
            _read_spaces(self._pool)  # which it keeps
        return self._channels_last(self._pool.reset()[0]), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended at the last step."""
        observation, reward, terminated, truncated, _ = self._pool.step(actions)
        return self._channels_last(observation), reward, terminated, truncated, {}

    def _channels_last(self, observation: Any) -> Any:
        return np.moveaxis(observation, 1, -1) if self._channels_first else observation

    def close_extras(self, **_: Any) -> None:
        """End the pool's threads."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class EnvPoolEnv(gym.Env[Any, Any]):
    """A pool of one environment."""

    def __init__(self, spec: EnvSpec) -> None:
        """Make it; the errors are those of EnvPoolVector."""
        self._vector = EnvPoolVector(spec, 1)
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        return self._first(self._vector.reset(seed=seed)[0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        observation, *rest, _ = self._vector.step(np.asarray(action)[None])
        reward, terminated, truncated = (column[0].item() for column in rest)
        return self._first(observation), reward, terminated, truncated, {}

    def _first(self, observations: Any) -> Any:
        return next(iter(iterate(self._vector.observation_space, observations)))

    def close(self) -> None:
        """End the pool's threads."""
        self._vector.close()


def _read_spaces(described: Any) -> tuple[Any, Any]:
    """Return the spaces of a pool or its spec, without the warning that it gives bounds in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return described.observation_space, described.action_space


def _import(spec: EnvSpec) -> Any:
    """Return the package, or raise LabError if it is not installed or does not have the environment."""
    try:
        package: Any = import_named("envpool")
    except ImportError as error:
        raise LabError(
            f"env.backend=envpool needs a package that is not installed: {install_command('envpool')}"
        ) from error
    known: Sequence[str] = package.list_all_envs()
    if spec.id not in known:
        raise LabError(f"env.id={spec.id} does not exist in EnvPool.{did_you_mean(spec.id, known)}")
    return package
