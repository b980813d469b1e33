"""Making environments, one or several side by side, as a spec says."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from lab.common.imports import import_named
from lab.env.async_vector import Workers
from lab.env.checked import CheckedVector, add_checks
from lab.env.closing import close
from lab.env.generators import CONSTRUCTION, SHARED, Generators, Isolated, IsolatedVector
from lab.env.guard import guard
from lab.env.restore import Restorable
from lab.env.spec import EnvSpec
from lab.env.sync_vector import SideBySide
from lab.errors import LabError

# Namespaces that Gymnasium knows only once the module that registers them is imported.
PACKAGES = {"ALE": "ale_py", "phys2d": "gymnasium.envs.phys2d"}


def make_single(spec: EnvSpec, render_mode: str | None = None, seed: int | None = 0) -> gym.Env[Any, Any]:
    """Make one environment as Gymnasium makes it, with checks of what it returns.

    Args:
        spec: of it.
        render_mode: how it is shown.
        seed: of what its constructor draws from the generators that the whole process shares; None to leave these.

    Raises:
        LabError: the id does not exist, its package is not installed, or its constructor refuses the arguments.
    """
    namespace, module = spec.id.split("/")[0], spec.id.rpartition(":")[0]
    name = f"env.id={spec.id}"
    try:
        with guard(name), _seeded(0):  # a module that is imported is the same for every seed
            for package in filter(None, (PACKAGES.get(namespace), module)):
                import_named(package)
        # The passive checker looks at every step of every environment; it is for those who write environments.
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        with guard(name), _seeded(seed):
            env = gym.make(spec.id, disable_env_checker=True, **rendering, **spec.kwargs)
        return add_checks(env, name)
    except gym.error.DependencyNotInstalled as error:
        raise LabError(f"env.id={spec.id} needs a package that is not installed: {_pip_command(error)}") from error
    except gym.error.UnregisteredEnv as error:
        raise LabError(f"env.id={spec.id} does not exist: {sentence(error)}") from error
    except ModuleNotFoundError as error:
        package = str(error.name or module).split(".")[0]
        raise LabError(
            f"env.id={spec.id} needs the module {package!r}, which is not installed: pip install"
            f" {package.replace('_', '-')}"
        ) from error
    except LabError:
        raise
    except Exception as error:
        arguments = f" with env.kwargs={spec.kwargs}" if spec.kwargs else ""
        raise LabError(f"env.id={spec.id} cannot be made{arguments}: {sentence(error)}") from error


def _seeded(seed: int | None) -> contextlib.AbstractContextManager[Any]:
    """Seed the generators that the whole process shares for as long as something is made; None to leave them."""
    return contextlib.nullcontext() if seed is None else Generators(SHARED, seed, CONSTRUCTION)


def is_native(spec: EnvSpec) -> bool:
    """Say whether the environments are stepped by a vector implementation of their own."""
    return spec.vectorize in ("auto", "native") and not isinstance(vectorize(spec, 1, None), SideBySide)


def vectorize(
    spec: EnvSpec,
    num_envs: int,
    way: str | None,
    seeds: Sequence[int | None] | None = None,
    names: tuple[str, ...] = (),
) -> VectorEnv[Any, Any, Any]:
    """Make environments side by side.

    Args:
        spec: of one of them.
        num_envs: how many.
        way: how their state is brought back; None if it never is.
        seeds: for each, of what its constructor draws from shared generators: 0 if not given, None to leave these.
        names: of the shared generators of which each gets states of its own.

    Raises:
        LabError: they cannot be made, or not as the spec says.
    """
    seeds = [0] * num_envs if seeds is None else seeds
    single = make_single(spec)
    registered = single.spec
    close(f"env.id={spec.id}", single.close)
    assert registered is not None
    native = registered.vector_entry_point is not None and not registered.additional_wrappers
    if spec.vectorize == "native" and not native:
        raise LabError(f"env.vectorize=native is not possible: {spec.id} has no vector implementation of its own.")
    # For one environment, what steps arrays of them takes longer than the environment itself.
    if spec.vectorize == "native" or (spec.vectorize == "auto" and native and spec.num_envs > 1):
        try:
            with _seeded(seeds[0]):
                envs = gym.make_vec(spec.id, num_envs, vectorization_mode="vector_entry_point", **spec.kwargs)
        except Exception as error:
            raise LabError(
                f"env.id={spec.id} cannot be made by its own vector implementation with env.kwargs={spec.kwargs}:"
                f" {sentence(error)} Try env.vectorize=sync."
            ) from error
        if envs.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
            checked = CheckedVector(envs, f"env.id={spec.id}")
            return IsolatedVector(checked, names) if names else checked
        close(f"env.id={spec.id}", envs.close)
        if spec.vectorize == "native":
            raise LabError(
                f"env.vectorize=native is not possible: {spec.id}'s own vector implementation does not reset at the"
                " step after an episode's last (next-step autoreset)."
            )
    makers = [functools.partial(_make_restorable, spec, way, names, seed) for seed in seeds]
    return Workers(f"env.id={spec.id}", makers) if spec.vectorize == "async" else SideBySide(makers)


def _make_restorable(spec: EnvSpec, way: str | None, names: tuple[str, ...], seed: int | None) -> gym.Env[Any, Any]:
    single = isolate(make_single(spec, seed=seed), names)
    return Restorable(single, way, f"env.id={spec.id}") if way in ("pickle", "replay") else single


def isolate(env: gym.Env[Any, Any], names: tuple[str, ...]) -> gym.Env[Any, Any]:
    """Give an environment states of its own of the shared generators with these names."""
    return Isolated(env, names) if names else env


def sentence(error: Exception) -> str:
    """Return the message of an error as one sentence."""
    text = " ".join(str(error).replace("`", "'").split()) or type(error).__name__
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _pip_command(error: Exception) -> str:
    commands = re.findall(r"pip install [^`\n]+", str(error).replace('\\"', '"'))
    return " && ".join(command.rstrip(". ") for command in commands) or sentence(error)
