"""Makes environments, single or vectorized, from a spec."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import FrameStackObservation

from lab.common.imports import describe_error, import_named
from lab.env.action_mask import WithActionMask
from lab.env.envpool import EnvPoolEnv, EnvPoolVector
from lab.env.guard import close, guard
from lab.env.monitor import Monitor, Report
from lab.env.packages import (
    advise_version,
    explain_missing,
    find_registered,
    import_package,
    pip_command,
    quiet_mujoco,
    suggest_id,
)
from lab.env.restore import Restorable
from lab.env.rng_isolation import CONSTRUCTION, GLOBAL_RNGS, Isolated, IsolatedVector, RngStates
from lab.env.spec import EnvSpec
from lab.env.validation import OUTER, Validated, ValidatedVector, add_validation
from lab.env.vector_envs import AsyncVector, SyncVector
from lab.env.wrappers import apply_wrappers, layer_names, wrapper_name
from lab.errors import LabError, require, to_sentence

ATARI = "ale_py.env:AtariEnv"  # the entry point of all Atari games


def make_single(spec: EnvSpec, render_mode: str | None = None, seed: int | None = 0) -> gym.Env[Any, Any]:
    """Make one environment by `gym.make` and validate what it returns, or raise LabError if it cannot be made.

    `seed` is that of the process's global generators while the constructor runs; None leaves them alone.
    """
    name = f"env.id={spec.id}"
    try:
        with guard(name), _seeded(0):  # an imported module must be the same for every seed
            import_package(spec.id)
        if spec.backend == "envpool":
            if render_mode is not None:
                raise LabError(f"{name} cannot be shown with env.backend=envpool. Try env.backend=gymnasium.")
            return add_validation(EnvPoolEnv(spec), name)
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        with guard(name), _seeded(seed):
            quiet_mujoco(spec.id)
            registered, arguments = _find(spec)
            env = gym.make(registered, disable_env_checker=True, **rendering, **arguments)
        return _wrap(env, spec, name, seed)
    except gym.error.DependencyNotInstalled as error:
        command = pip_command(str(error)) or to_sentence(error)
        raise LabError(f"{name} needs a package that is not installed: {command}") from error
    except gym.error.UnregisteredEnv as error:
        raise LabError(
            f"{name} does not exist: {to_sentence(error).partition(' Did you mean')[0]}{suggest_id(spec.id)}"
        ) from error
    except ModuleNotFoundError as error:
        raise LabError(f"{name} needs {explain_missing(spec.id, error)}") from error
    except LabError:
        raise
    except Exception as error:
        what = f" with {spec.arguments}" if spec.arguments else ""
        advice = advise_version(spec.id)
        raise LabError(f"{name} cannot be made{what}: {describe_error(error)}{advice}") from error


def _find(spec: EnvSpec) -> tuple[str | gym.envs.registration.EnvSpec, dict[str, Any]]:
    """Return what `gym.make` takes, and the arguments of the constructor; Atari games are made by Lab's class."""
    registered = find_registered(spec.id)
    if registered is None or registered.entry_point != ATARI:
        return spec.id, spec.arguments
    game: Any = import_named("lab.env.atari").AtariGame
    names = [wrapper_name(item).rpartition(".")[2] for item in spec.wrappers]
    screens = {"screens": True} if "AtariWrapper" in names else {}
    for key in ("continuous", "frameskip", "obs_type"):
        free = not screens or key not in spec.kwargs
        require(free, f"env.kwargs.{key}", spec.kwargs.get(key), "left out with AtariWrapper, which decides it")
    return dataclasses.replace(registered, entry_point=game, vector_entry_point=None), spec.arguments | screens


def _wrap(env: gym.Env[Any, Any], spec: EnvSpec, name: str, seed: int | None) -> gym.Env[Any, Any]:
    """Validate an environment, apply its wrappers, and let it report its own score (see lab.env.monitor)."""
    env = add_validation(env, name, infos=bool(spec.wrapping_keys))
    if not spec.reported:
        return WithActionMask(env, name) if spec.action_mask else env
    layers = [*layer_names(spec.wrappers, name), ""]
    monitor = Monitor(env, layers[0])
    with guard(name), _seeded(seed):
        wrapped = apply_wrappers(monitor, spec.wrappers, name)
    if spec.action_mask:
        wrapped = WithActionMask(wrapped, name, infos=True)
    return Report(wrapped, monitor, spec.metrics, name)


def count_frames(env: gym.Env[Any, Any]) -> tuple[int, bool]:
    """Return how many of the newest frames an observation stacks along its first axis; 1 if none are known to be.

    And whether zeros stand for frames before an episode, in place of its first one.
    """
    while isinstance(env, (*OUTER, Report, Validated, gym.RewardWrapper, gym.ActionWrapper)):
        env = env.env
    if isinstance(env, FrameStackObservation):
        is_known = isinstance(env.observation_space, gym.spaces.Box) and env.padding_type in ("reset", "zero")
        return (env.stack_size, env.padding_type == "zero") if is_known else (1, False)
    stacked: tuple[int, bool] = getattr(env, "stacked_frames", (1, False))  # which Lab's wrappers and yours may have
    return stacked


def _seeded(seed: int | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if seed is None else RngStates(GLOBAL_RNGS, seed, CONSTRUCTION)


def is_native(spec: EnvSpec) -> bool:
    """Whether the environments are stepped by one object: their own vector implementation, or EnvPool."""
    return spec.vectorization_mode in ("auto", "native") and not isinstance(vectorize(spec, 1), SyncVector)


def vectorize(
    spec: EnvSpec,
    num_envs: int,
    restore_method: str | None = None,
    seeds: Sequence[int | None] | None = None,
    isolated: tuple[str, ...] = (),
) -> VectorEnv[Any, Any, Any]:
    """Make a vector environment, or raise LabError if it cannot be made as the spec says.

    Args:
        spec: of one environment.
        num_envs: number of environments.
        restore_method: how their state is restored; None if it never is.
        seeds: as `make_single` takes it, for each environment; 0 by default.
        isolated: names of the global generators of which each environment gets its own states.
    """
    seeds, name = [0] * num_envs if seeds is None else seeds, f"env.id={spec.id}"
    single = make_single(spec)
    registered = single.spec
    close(name, single.close)
    if spec.backend == "envpool":
        return ValidatedVector(EnvPoolVector(spec, num_envs), name)
    assert registered is not None
    own = registered.vector_entry_point is not None and not registered.additional_wrappers
    native = own and not spec.wrapping_keys  # that of Gymnasium takes no wrapper of one environment
    if spec.vectorization_mode == "native" and not native:
        raise LabError(
            f"env.vectorization_mode=native is not possible: {spec.id} has no vector implementation of its own."
        )
    # For one environment, the overhead of its vector implementation exceeds the environment's own time.
    if spec.vectorization_mode == "native" or (spec.vectorization_mode == "auto" and native and spec.num_envs > 1):
        try:
            with _seeded(seeds[0]):
                envs = gym.make_vec(spec.id, num_envs, vectorization_mode="vector_entry_point", **spec.arguments)
        except Exception as error:
            raise LabError(
                f"{name} cannot be made by its own vector implementation with {spec.arguments}:"
                f" {to_sentence(error)} Try env.vectorization_mode=sync."
            ) from error
        if envs.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
            validated = ValidatedVector(envs, name)
            return IsolatedVector(validated, isolated) if isolated else validated
        close(name, envs.close)
        if spec.vectorization_mode == "native":
            raise LabError(
                f"env.vectorization_mode=native is not possible: {spec.id}'s own vector implementation does not reset"
                " at the step after an episode's last (next-step autoreset)."
            )
    makers = [functools.partial(_make_restorable, spec, restore_method, isolated, seed) for seed in seeds]
    if spec.vectorization_mode == "async":
        return AsyncVector(name, makers)
    return SyncVector(makers, len(spec.reported))


def _make_restorable(
    spec: EnvSpec, restore_method: str | None, isolated: tuple[str, ...], seed: int | None
) -> gym.Env[Any, Any]:
    env = isolate(make_single(spec, seed=seed), isolated)
    return Restorable(env, restore_method, f"env.id={spec.id}") if restore_method in ("pickle", "replay") else env


def isolate(env: gym.Env[Any, Any], names: tuple[str, ...]) -> gym.Env[Any, Any]:
    """Give an environment its own states of the global generators with these names."""
    return Isolated(env, names) if names else env
