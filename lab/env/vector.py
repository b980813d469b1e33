"""The vector environment of one Session: any Gymnasium id, behind a policy's own observations and actions."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import FlattenObservation

from lab.env.async_vector import Workers
from lab.env.closing import CLOSE_SECONDS, close
from lab.env.dry_run import Draws, find_draws
from lab.env.generators import SHARED, Generators
from lab.env.guard import guard, guarded, refuse_end
from lab.env.make import is_native, isolate, make_single, sentence, vectorize
from lab.env.restore import Restorable, detect_single_method, detect_vector_method, pickled, unpickled
from lab.env.spec import EnvSpec
from lab.env.sync_vector import SideBySide, is_image
from lab.errors import LabError

HIGHEST_SEED = 2**31  # above those that environments are reset with


@dataclass
class Spaces:
    """What an algorithm needs to know of an environment.

    Attributes:
        observation: one environment's observations: a Box of shape [D] in float32, or of an image's own shape, in
            float32 or uint8.
        action: one environment's actions: Discrete, MultiDiscrete, MultiBinary or a Box.
        original: one environment's observations as it has them itself.
    """

    observation: gym.spaces.Box
    action: gym.Space[Any]
    original: gym.Space[Any]


def probe(spec: EnvSpec) -> Spaces:
    """Make one environment, look at its spaces, reset it, take one step, and close it.

    Raises:
        LabError: it cannot be made, has a space that no policy here can serve, or breaks in the reset or the step.
    """
    env, name = make_single(spec), f"env.id={spec.id}"
    try:
        with guard(name):
            spaces = _find_spaces(spec, env)
            _try_out(spec, env)
    finally:
        close(name, env.close)
    if spec.vectorize in ("auto", "native"):
        envs = vectorize(spec, 2, None)
        try:
            if not isinstance(envs, SideBySide):
                with guard(name):
                    _try_out(spec, envs)
        finally:
            close_all(name, envs)
    return spaces


def close_all(name: str, envs: VectorEnv[Any, Any, Any]) -> None:
    """Close environments that are stepped side by side, as far as they can be closed."""
    if isinstance(envs, SideBySide):
        close(name, *(env.close for env in envs.envs))
    elif isinstance(envs, Workers):
        close(name, envs.close, seconds=2 * CLOSE_SECONDS)  # its workers take theirs
        envs.end()
    else:
        close(name, envs.close)
    envs.closed = True  # or they would be closed again when nobody refers to them any more


def _try_out(spec: EnvSpec, env: Any) -> None:
    """Reset an environment and take a step, to find mistakes in it before the first frame."""
    method = "reset"
    try:
        with Generators(SHARED, 0):
            env.reset(seed=0)
            method = "step"
            env.action_space.seed(0)
            env.step(env.action_space.sample())
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"env.id={spec.id} raised {type(error).__name__} in {method}: {sentence(error)}") from error


def _find_spaces(spec: EnvSpec, env: gym.Env[Any, Any]) -> Spaces:
    observation, action = env.observation_space, env.action_space
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
        return Spaces(gym.spaces.Box(0, 255, observation.shape, kind), action, observation)
    size = int(np.prod(flat.shape))
    return Spaces(gym.spaces.Box(-np.inf, np.inf, (size,), np.float32), action, observation)


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


@guarded("reset", "renew", "state", "restore")
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
            way: how their state is brought back, as `detect_restore_method` says; null if it never is.
        """
        self.num_envs = num_envs
        self._rng, self._way, self._spec = rng, way, spec
        self._origin = rng.bit_generator.state  # of the last reset
        with guard(f"env.id={spec.id}"):
            self._envs = self._base = self._make()
            self._flatten()

    @property
    def exposed(self) -> tuple[str, ...]:
        """Generators that all of this process share, and these environments among others, though they are not to."""
        if self._spec.isolate_rng == "never":
            return ()
        return tuple(name for name in SHARED if name not in isolated_generators(self._spec))

    def _make(self) -> VectorEnv[Any, Any, Any]:
        # What constructors draw from shared generators is seeded as the next reset will be; no stream goes on by it.
        seeds = copy.deepcopy(self._rng).integers(HIGHEST_SEED, size=self.num_envs)
        return vectorize(self._spec, self.num_envs, self._way, seeds.tolist(), isolated_generators(self._spec))

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
        if isinstance(self._base, (SideBySide, AsyncVectorEnv)):
            seeds: Any = [int(seed) for seed in self._rng.integers(HIGHEST_SEED, size=self.num_envs)]
        else:
            seeds = int(self._rng.integers(HIGHEST_SEED))
        return self._envs.reset(seed=seeds)[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Step every environment.

        Args:
            action: in a policy's units, [E] for one discrete choice, [E, K] for several, [E, A] for continuous ones.

        Returns:
            observation [E, ...], reward [E], terminated [E], truncated [E].
        """
        try:
            return self._envs.step(self._units.convert(action))[:4]
        except Exception:
            raise
        except BaseException as error:
            refuse_end(error, f"env.id={self._spec.id}")
            raise

    def renew(self) -> np.ndarray:
        """Make the environments anew and reset them, so that nothing is left of what they were; return observations."""
        self.close()
        self._envs = self._base = self._make()
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
            self.close()
            self._envs = self._base = unpickled(state["envs"][0])
            self._flatten()

    @staticmethod
    def _restorable(envs: SideBySide) -> list[Restorable]:
        return [env for env in envs.envs if isinstance(env, Restorable)]

    def close(self) -> None:
        """Close every environment, as far as it can be closed."""
        close_all(f"env.id={self._spec.id}", self._base)


def detect_restore_method(spec: EnvSpec) -> str:
    """Return how the environments of a Session are brought back with a checkpoint: `pickle`, `replay` or `reset`.

    Raises:
        LabError: the spec asks for a way that does not serve them.
    """
    if spec.restore != "auto":
        if spec.restore == "replay" and is_native(spec):
            raise LabError(
                f"env.restore=replay is not possible: {spec.id} is stepped by its own vector implementation."
                " Try env.vectorize=sync."
            )
        return spec.restore
    names = () if spec.isolate_rng == "never" else SHARED
    name = f"env.id={spec.id}"
    if is_native(spec):
        return detect_vector_method(lambda: vectorize(spec, 2, None, names=names), name)
    return detect_single_method(lambda: isolate(make_single(spec), names), name)


_draws: dict[str, Draws] = {}  # by the spec; a process makes environments of few, and again and again


def draws_of(spec: EnvSpec) -> Draws:
    """Return where the environments' random numbers come from, as a short play shows."""
    key = repr(spec)
    if key not in _draws:
        native = is_native(spec)
        _draws[key] = find_draws(
            lambda: vectorize(spec, 2, None, [None, None]) if native else make_single(spec, seed=None),
            f"env.id={spec.id}",
        )
    return _draws[key]


def warnings_of(spec: EnvSpec) -> list[str]:
    """Return what a user should know of the environments' random numbers."""
    return draws_of(spec).warnings(f"env.id={spec.id}") if spec.isolate_rng == "auto" else []


def isolated_generators(spec: EnvSpec) -> tuple[str, ...]:
    """Return the shared generators of which each environment gets states of its own."""
    if spec.isolate_rng == "never":
        return ()
    # Where environments are in processes of their own, it costs no time that matters.
    return SHARED if spec.isolate_rng == "always" or spec.vectorize == "async" else draws_of(spec).shared
