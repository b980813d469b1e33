"""The vector environment of one Session: any Gymnasium id, behind a policy's own observations and actions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import re
import signal
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.wrappers.vector import FlattenObservation

from lab.env.restore import Restorable, pickled, unpickled, way_for, way_for_vector
from lab.env.side_by_side import SideBySide
from lab.env.spec import EnvSpec
from lab.errors import LabError
from lab.imports import import_named

# Namespaces that Gymnasium knows only once the module that registers them is imported.
PACKAGES = {"ALE": "ale_py", "phys2d": "gymnasium.envs.phys2d"}

DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


@dataclass
class Spaces:
    """What an algorithm needs to know of an environment.

    Attributes:
        observation: one environment's observations: a Box of shape [D] in float32, or of an image's own shape, in
            float32 or uint8.
        action: one environment's actions: Discrete, MultiDiscrete, MultiBinary or a Box.
    """

    observation: gym.spaces.Box
    action: gym.Space[Any]


def make_single(spec: EnvSpec, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make one environment as Gymnasium makes it.

    Raises:
        LabError: the id does not exist, its package is not installed, or its constructor refuses the arguments.
    """
    namespace, module = spec.id.split("/")[0], spec.id.rpartition(":")[0]
    try:
        if namespace in PACKAGES:
            import_named(PACKAGES[namespace])
        if module:
            import_named(module)
        # The passive checker looks at every step of every environment; it is for those who write environments.
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        return gym.make(spec.id, disable_env_checker=True, **rendering, **spec.kwargs)
    except gym.error.DependencyNotInstalled as error:
        raise LabError(f"env.id={spec.id} needs a package that is not installed: {_pip_command(error)}") from error
    except gym.error.UnregisteredEnv as error:
        raise LabError(f"env.id={spec.id} does not exist: {_sentence(error)}") from error
    except ModuleNotFoundError as error:
        package = str(error.name or module).split(".")[0]
        raise LabError(
            f"env.id={spec.id} needs the module {package!r}, which is not installed: pip install"
            f" {package.replace('_', '-')}"
        ) from error
    except Exception as error:
        arguments = f" with env.kwargs={spec.kwargs}" if spec.kwargs else ""
        raise LabError(f"env.id={spec.id} cannot be made{arguments}: {_sentence(error)}") from error


def probe(spec: EnvSpec) -> Spaces:
    """Make one environment, look at its spaces, and close it.

    Raises:
        LabError: it cannot be made, or it has a space that no policy here can serve.
    """
    env = make_single(spec)
    try:
        observation, action = env.observation_space, env.action_space
    finally:
        env.close()
    try:
        flat = gym.spaces.flatten_space(observation)
    except NotImplementedError as error:
        raise LabError(f"env.id={spec.id} has observations that cannot be made flat: {observation}.") from error
    if not isinstance(flat, gym.spaces.Box):
        raise LabError(f"env.id={spec.id} has observations without a fixed size: {observation}.")
    served = (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary, gym.spaces.Box)
    if not isinstance(action, served) or not np.issubdtype(action.dtype, np.number):
        raise LabError(
            f"env.id={spec.id} has the action space {action}, which no algorithm here can serve:"
            " it must be Discrete, MultiDiscrete, MultiBinary or Box."
        )
    if isinstance(action, gym.spaces.MultiDiscrete) and len(action.shape) != 1:
        raise LabError(f"env.id={spec.id} has actions of shape {action.shape}: MultiDiscrete must be one row.")
    if is_image(observation):
        kind: Any = np.uint8 if observation.dtype == np.uint8 else np.float32
        return Spaces(gym.spaces.Box(0, 255, observation.shape, kind), action)
    size = int(np.prod(flat.shape))
    return Spaces(gym.spaces.Box(-np.inf, np.inf, (size,), np.float32), action)


def is_image(space: gym.Space[Any]) -> bool:
    """Say whether observations have rows, columns and channels, which are kept for networks that look at them."""
    return isinstance(space, gym.spaces.Box) and len(space.shape or ()) == 3


def flatten(space: gym.Space[Any], observation: Any) -> np.ndarray:
    """Return one observation as the networks take it: an image as it is, anything else flat."""
    if is_image(space):
        return np.asarray(observation, np.uint8 if space.dtype == np.uint8 else np.float32)
    if isinstance(space, gym.spaces.Box):
        return np.asarray(observation, np.float32).ravel()
    return np.asarray(gym.spaces.flatten(space, observation), np.float32)


class ActionUnits:
    """Turns a policy's actions into an environment's own units.

    Policies act in units of their own: a whole number from 0 for each discrete choice, 1 or 0 for yes or no, and for a
    bounded Box numbers from -1 to 1, which are spread over its bounds. Beyond a bound they are clipped to it.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        """Make it for one environment's action space."""
        self._shape, self._dtype = space.shape or (), space.dtype
        self._start: Any = getattr(space, "start", 0)
        self._continuous = isinstance(space, gym.spaces.Box)
        self._binary = isinstance(space, gym.spaces.MultiBinary)
        if isinstance(space, gym.spaces.Box):
            self._low, self._high = space.low.ravel().astype(float), space.high.ravel().astype(float)
            self._bounded = bool(np.isfinite(self._low).all() and np.isfinite(self._high).all())

    def convert(self, action: np.ndarray) -> np.ndarray:
        """Turn actions [E, ...] as a policy gives them into [E, *shape] as the environment takes them."""
        if self._binary:
            return action.reshape(len(action), *self._shape).astype(self._dtype)
        if not self._continuous:
            return action + self._start
        if self._bounded:
            action = self._low + (np.clip(action, -1.0, 1.0) + 1.0) * (0.5 * (self._high - self._low))
        if np.issubdtype(self._dtype, np.integer):
            action = np.rint(action)
        action = np.clip(action, self._low, self._high)
        return action.reshape(len(action), *self._shape).astype(self._dtype)


class Environments:
    """The environments of one Session, stepped side by side.

    An environment that ended at one step is reset at the next, which is a step without an action, a reward or a
    lesson (Gymnasium's next-step autoreset): its last observation is a true one, to bootstrap from at a truncation.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, rng: np.random.Generator, way: str | None = None) -> None:
        """Make the environments.

        Args:
            spec: of one of them.
            num_envs: how many.
            rng: draws their seeds.
            way: how their state is brought back, as `way_of` says; null if it never is.
        """
        self.num_envs = num_envs
        self._rng, self._way, self._spec = rng, way, spec
        self._origin = rng.bit_generator.state  # of the last reset
        self._envs = self._base = _vectorise(spec, num_envs, way)
        self._flatten()

    def _flatten(self) -> None:
        self._units = ActionUnits(self._envs.single_action_space)
        if isinstance(self._envs, SideBySide):
            return
        space = self._envs.single_observation_space
        if not is_image(space) and (not isinstance(space, gym.spaces.Box) or len(space.shape) != 1):
            self._envs = FlattenObservation(self._envs)

    def reset(self) -> np.ndarray:
        """Seed and reset every environment; return their observations [E, ...]."""
        self._origin = self._rng.bit_generator.state
        high = 2**31
        if isinstance(self._base, (SideBySide, AsyncVectorEnv)):
            seeds: Any = [int(seed) for seed in self._rng.integers(high, size=self.num_envs)]
        else:
            seeds = int(self._rng.integers(high))
        return self._envs.reset(seed=seeds)[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Step every environment.

        Args:
            action: in a policy's units, [E] for one discrete choice, [E, K] for several, [E, A] for continuous ones.

        Returns:
            observation [E, ...], reward [E], terminated [E], truncated [E].
        """
        return self._envs.step(self._units.convert(action))[:4]

    def renew(self) -> np.ndarray:
        """Make the environments anew and reset them, so that nothing is left of what they were; return observations."""
        self.close()
        self._envs = self._base = _vectorise(self._spec, self.num_envs, self._way)
        self._flatten()
        return self.reset()

    def state(self) -> dict[str, Any]:
        """Return plain data from which `restore` goes on; where the way is `reset`, only just after one."""
        if self._way == "reset":
            return {"origin": self._origin}
        if isinstance(self._base, SideBySide):
            return {"envs": [env.snapshot for env in self._restorable(self._base)]}
        if isinstance(self._base, AsyncVectorEnv):
            return {"envs": list(self._base.get_attr("snapshot"))}
        return {"envs": [pickled(self._base)]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; the stream that seeds them is restored elsewhere."""
        if self._way == "reset":
            after, self._rng.bit_generator.state = self._rng.bit_generator.state, state["origin"]
            self.renew()
            self._rng.bit_generator.state = after
            return
        if isinstance(self._base, SideBySide):
            for env, snapshot in zip(self._restorable(self._base), state["envs"], strict=True):
                env.snapshot = snapshot
        elif isinstance(self._base, AsyncVectorEnv):
            self._base.set_attr("snapshot", state["envs"])
        else:
            self._base.close()
            self._envs = self._base = unpickled(state["envs"][0])
            self._flatten()

    @staticmethod
    def _restorable(envs: SideBySide) -> list[Restorable]:
        return [env for env in envs.envs if isinstance(env, Restorable)]

    def close(self) -> None:
        """Close every environment."""
        if isinstance(self._base, AsyncVectorEnv) and self._base._state is not AsyncState.DEFAULT:
            # Its workers are in the midst of a step, and it would wait for answers that have been taken.
            for process in self._base.processes:
                process.kill()
            self._base.closed = True
            return
        self._envs.close()


def way_of(spec: EnvSpec) -> str:
    """Return how the environments of a Session are brought back with a checkpoint: `pickle`, `replay` or `reset`.

    Raises:
        LabError: the spec asks for a way that does not serve them.
    """
    if spec.restore != "auto":
        if spec.restore == "replay" and _is_native(spec):
            raise LabError(
                f"env.restore=replay is not possible: {spec.id} is stepped by its own vector implementation."
                " Try env.vectorise=sync."
            )
        return spec.restore
    if _is_native(spec):
        return way_for_vector(lambda: _vectorise(spec, 2, None))
    return way_for(lambda: make_single(spec))


def _is_native(spec: EnvSpec) -> bool:
    """Say whether the environments are stepped by a vector implementation of their own."""
    return spec.vectorise in ("auto", "native") and not isinstance(_vectorise(spec, 1, None), SideBySide)


def _vectorise(spec: EnvSpec, num_envs: int, way: str | None) -> VectorEnv[Any, Any, Any]:
    single = make_single(spec)
    registered = single.spec
    single.close()
    assert registered is not None
    native = registered.vector_entry_point is not None and not registered.additional_wrappers
    if spec.vectorise == "native" and not native:
        raise LabError(f"env.vectorise=native is not possible: {spec.id} has no vector implementation of its own.")
    # For one environment, what steps arrays of them takes longer than the environment itself.
    if spec.vectorise == "native" or (spec.vectorise == "auto" and native and spec.num_envs > 1):
        try:
            envs = gym.make_vec(spec.id, num_envs, vectorization_mode="vector_entry_point", **spec.kwargs)
        except Exception as error:
            raise LabError(
                f"env.id={spec.id} cannot be made by its own vector implementation with env.kwargs={spec.kwargs}:"
                f" {_sentence(error)} Try env.vectorise=sync."
            ) from error
        if envs.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
            return envs
        envs.close()
        if spec.vectorise == "native":
            raise LabError(
                f"env.vectorise=native is not possible: {spec.id}'s own vector implementation does not reset at the"
                " step after an episode's last (next-step autoreset)."
            )
    if spec.vectorise == "async":
        # Forked from this process, and so killed with it where its group is.
        return AsyncVectorEnv([functools.partial(_make_in_worker, spec, way)] * num_envs, context="fork")
    return SideBySide([functools.partial(_make_restorable, spec, way)] * num_envs, flatten)


def _make_restorable(spec: EnvSpec, way: str | None) -> gym.Env[Any, Any]:
    single = make_single(spec)
    return Restorable(single, way) if way in ("pickle", "replay") else single


def _make_in_worker(spec: EnvSpec, way: str | None) -> gym.Env[Any, Any]:
    # Ctrl-C reaches every process of a terminal, and a signal to a cluster's job every process of the job; it is for
    # the one that trains to say when its workers end, and they end with it.
    if multiprocessing.parent_process() is not None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(AttributeError, OSError):  # of Linux alone
            ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    return _make_restorable(spec, way)


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).replace("`", "'").split()) or type(error).__name__
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _pip_command(error: Exception) -> str:
    commands = re.findall(r"pip install [^`\n]+", str(error).replace('\\"', '"'))
    return " && ".join(command.rstrip(". ") for command in commands) or _sentence(error)
