"""The environments of one Session, with a policy's own observations and actions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, wraps
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import FlattenObservation

from lab.common.imports import locate_error
from lab.common.text import format_value
from lab.env.action_mask import offers_mask
from lab.env.envpool import EnvPoolVector
from lab.env.guard import CLOSE_SECONDS, close, guard, reject_exit
from lab.env.layer import blame
from lab.env.make import count_frames, is_native, isolate, make_single, vectorize
from lab.env.restore import Restorable, detect_single_method, detect_vector_method
from lab.env.rng_isolation import GLOBAL_RNGS, DryRun, RngStates, dry_run
from lab.env.spaces import ActionConverter, holds_codes, is_flattened_image, is_image, leaves
from lab.env.spaces import Spaces as Spaces
from lab.env.spec import EnvSpec
from lab.env.validation import ValidatedVector
from lab.env.vector_envs import AsyncVector, Steps, SyncVector
from lab.env.wrappers import has_own
from lab.errors import LabError, warn_once

T = TypeVar("T")

# At most, until the end of an episode shows before training whether it has env.metrics, and what wrappers do with it.
EPISODE_STEPS = 500
MAX_SEED = 2**31  # exclusive bound on the seeds of environments


def find_time_limit(spec: EnvSpec) -> int | None:
    """Return the steps after which an episode is cut; None without a limit."""
    env: Any = make_single(spec)
    close(f"env.id={spec.id}", env.close)
    limits: list[int | None] = []
    while isinstance(env, gym.Wrapper):
        limits += [env._max_episode_steps] if isinstance(env, TimeLimit) else []
        env = env.env
    limits.append(getattr(env, "max_episode_steps", None))  # that games of ALE have
    return min(filter(None, limits), default=None)


class Environments:
    """The environments of one Session, E in number, stepped together.

    After an episode's end, the next step resets the environment instead (Gymnasium's next-step autoreset). Its action
    and reward mean nothing, and it is never learned from; so the last observation of an episode is the true one, which
    a truncated return bootstraps from.
    """

    def __init__(
        self, spec: EnvSpec, num_envs: int, rng: np.random.Generator, restore_method: str | None = None
    ) -> None:
        """Make the environments, whose seeds `rng` draws; without a restore method their state cannot be saved."""
        self.num_envs = num_envs
        self._rng, self._method, self._spec, self._name = rng, restore_method, spec, f"env.id={spec.id}"
        self._origin = rng.bit_generator.state  # at the last reset
        with guard(self._name):
            self._make()

    @property
    def shared_rngs(self) -> tuple[str, ...]:
        """Global generators that these environments must not draw from, as they have no own states of them."""
        if self._spec.isolate_rng == "never":
            return ()
        return tuple(name for name in GLOBAL_RNGS if name not in isolated_rngs(self._spec))

    @cached_property
    def time_limit(self) -> int | None:
        """Steps after which an episode is cut; None without a limit."""
        return find_time_limit(self._spec)

    def _make(self) -> None:
        # Constructors' draws from global generators are seeded like the next reset, without advancing the stream.
        seeds = copy.deepcopy(self._rng).integers(MAX_SEED, size=self.num_envs).tolist()
        self._wrap(vectorize(self._spec, self.num_envs, self._method, seeds, isolated_rngs(self._spec)))

    def _wrap(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self._envs = self._base = envs
        self.actions = ActionConverter(envs.single_action_space)
        if not isinstance(envs, SyncVector):
            space = envs.single_observation_space
            if not is_image(space) and (not isinstance(space, gym.spaces.Box) or len(space.shape) != 1):
                self._envs = FlattenObservation(envs)

    def reset(self) -> np.ndarray:
        """Seed and reset every environment; return their observations [E, ...]."""
        self._origin = self._rng.bit_generator.state
        if isinstance(self._base.unwrapped, (SyncVector, AsyncVector, EnvPoolVector)):
            seeds: Any = [int(seed) for seed in self._rng.integers(MAX_SEED, size=self.num_envs)]
        else:
            seeds = int(self._rng.integers(MAX_SEED))
        with guard(self._name):
            return self._envs.reset(seed=seeds)[0]

    def step(self, action: np.ndarray) -> Steps:
        """Step every environment.

        Args:
            action: in a policy's units, [E] for one discrete choice, [E, K] for several, [E, A] for continuous ones.

        Returns:
            observation [E, ...], reward [E], terminated [E], truncated [E], reported [E, R].
        """
        space = self._envs.single_observation_space
        steps = Steps.zeros(1, self.num_envs, space=space, reported=len(self._spec.reported))
        self.step_into(0, self.actions.convert(action), steps)
        return Steps(*(values[0] for values in steps))

    def step_into(self, row: int, action: np.ndarray, steps: Steps) -> None:
        """Step every environment with actions in its own units, and write the results into a row of `steps`."""
        if isinstance(self._base, SyncVector):
            self.call(self._base.step_into, row, action, steps)
        else:
            for values, column in zip(steps, steps.columns(self.call(self._envs.step, action)), strict=False):
                values[row] = column

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of the environments, or raise LabError if it calls `sys.exit`."""
        try:
            return function(*arguments)
        except Exception:
            raise
        except BaseException as error:
            reject_exit(error, self._name)
            raise

    @property
    def native(self) -> ValidatedVector | None:
        """The environments' own vector implementation; None if they are stepped one by one, or need a wrapper."""
        return self._base if isinstance(self._base, ValidatedVector) and self._envs is self._base else None

    def renew(self) -> np.ndarray:
        """Make the environments again and reset them, so that no state remains; return their observations."""
        with guard(self._name):
            self.close()
            self._make()
            return self.reset()

    def state(self) -> dict[str, Any]:
        """Return plain data for `restore`; with the method `reset`, valid only right after a reset."""
        with guard(self._name):
            if self._method == "reset":
                return {"origin": self._origin}
            if isinstance(self._base, SyncVector):
                return {"envs": [env.snapshot for env in self._restorable(self._base)]}
            if isinstance(self._base, AsyncVector):
                return {"envs": list(self._base.get_attr("snapshot"))}
            return {"envs": [pickle.dumps(self._base, protocol=pickle.HIGHEST_PROTOCOL)]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned; the random stream `rng` is restored by its owner."""
        with guard(self._name):
            if self._method == "reset":
                after, self._rng.bit_generator.state = self._rng.bit_generator.state, state["origin"]
                self.renew()
                self._rng.bit_generator.state = after
            elif isinstance(self._base, SyncVector):
                for env, snapshot in zip(self._restorable(self._base), state["envs"], strict=True):
                    env.snapshot = snapshot
            elif isinstance(self._base, AsyncVector):
                self._base.set_attr("snapshot", state["envs"])
            else:
                self.close()
                self._wrap(pickle.loads(state["envs"][0]))  # noqa: S301 - from the user's own directory

    @staticmethod
    def _restorable(envs: SyncVector) -> list[Restorable]:
        return [env for env in envs.envs if isinstance(env, Restorable)]

    def close(self) -> None:
        """Close every environment, as far as it can be closed."""
        close_vector(self._name, self._base)


def close_vector(name: str, envs: VectorEnv[Any, Any, Any]) -> None:
    """Close a vector environment, as far as it can be closed."""
    if isinstance(envs, SyncVector):
        close(name, *(env.close for env in envs.envs))
    elif isinstance(envs, AsyncVector):
        close(name, envs.close, seconds=2 * CLOSE_SECONDS)  # each worker may take CLOSE_SECONDS
        envs.kill()
    else:
        close(name, envs.close)
    envs.closed = True  # otherwise it is closed again when it is garbage-collected


def probe(spec: EnvSpec) -> Spaces:
    """Make an environment, reset it, take one step, and return its spaces; raise LabError if any of it fails.

    `scale_images=auto` becomes true or false in the spec.
    """
    env, name = make_single(spec), f"env.id={spec.id}"
    try:
        with guard(name):
            spaces = Spaces.read(name, env, spec.wrappers)
            if isinstance(env.observation_space, gym.spaces.Box):  # parts of a Dict are stacked one by one
                frames, zero_padding = count_frames(env)
                spaces = replace(spaces, frame_stack=frames, zero_padding=zero_padding)
            observations = _try_steps(name, env, EPISODE_STEPS if spec.metrics or has_own(spec.wrappers) else 1)
    finally:
        close(name, env.close)
    choices = isinstance(env.action_space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete))
    if choices and offers_mask(env) and not spec.action_mask:
        warn_once(
            f"The info of {name} has an action_mask, which is not used: with env.action_mask=true, only valid actions"
            " are chosen."
        )
    for place, space in leaves(env.observation_space):
        if is_flattened_image(space):
            warn_once(
                f"The bytes of shape {space.shape} that {name} observes{place and f' as {place}'} are taken as a row of"
                " numbers. An image needs three axes: rows, columns and channels (see GrayscaleObservation with"
                " keep_dim: true, and VecFrameStack)."
            )
    if spec.scale_images == "auto":
        spec.scale_images = not holds_codes(env.observation_space, observations)
        if not spec.scale_images:
            warn_once(f"The images of {name} hold codes, so they are not divided by 255 (env.scale_images=false).")
    if not spec.scale_images:
        spaces = spaces.unscaled()
    if spec.vectorization_mode in ("auto", "native"):
        envs = vectorize(spec, 2)
        try:
            if not isinstance(envs, SyncVector):
                with guard(name):
                    _try_steps(name, envs)
        finally:
            close_vector(name, envs)
    return spaces


def _try_steps(name: str, env: Any, steps: int = 1) -> list[Any]:
    """Reset an environment, take a step, and more of them until the episode ends; return the first two observations."""
    method = "reset"
    try:
        with RngStates(GLOBAL_RNGS, 0):
            first = env.reset(seed=0)[0]
            method = "step"
            env.action_space.seed(0)
            second, _, *ends, _ = env.step(env.action_space.sample())
            for _ in range(steps - 1):
                if any(ends):
                    break
                _, _, *ends, _ = env.step(env.action_space.sample())
            return [first, second]
    except LabError:
        raise
    except Exception as error:
        raised = f"{blame(error, name)} raised {type(error).__name__} in {method}"
        raise LabError(f"{raised}: {locate_error(error)}") from error


def try_out(spec: EnvSpec) -> None:
    """Find out, once in this process, what `auto` means for an environment; raise LabError if it cannot be used."""
    if spec.backend == "envpool" and not cached_dry_run(spec).repeatable:
        raise LabError(
            f"env.id={spec.id} behaves differently with the same seed and actions with env.backend=envpool, so its"
            " results could not be reproduced. Try env.backend=gymnasium."
        )
    detect_restore_method(spec)
    isolated_rngs(spec)
    rng_warnings(spec)


def once(function: Callable[[EnvSpec], T]) -> Callable[[EnvSpec], T]:
    """Call a function once for each spec, because a process makes the same environments many times."""
    results: dict[str, T] = {}

    @wraps(function)
    def call(spec: EnvSpec) -> T:
        key = repr(spec)
        if key not in results:
            results[key] = function(spec)
        return results[key]

    return call


@once
def detect_restore_method(spec: EnvSpec) -> str:
    """Return how a checkpoint restores the environments of a Session: `pickle`, `replay` or `reset`."""
    names = () if spec.isolate_rng == "never" else GLOBAL_RNGS
    if spec.restore != "auto":
        if spec.restore == "replay" and is_native(spec):
            raise LabError(
                f"env.restore=replay is not possible: {spec.id} is stepped by its own vector implementation."
                " Try env.vectorization_mode=sync."
            )
        if spec.wrappers and spec.restore != "reset":  # which may keep more than the environment
            methods = (spec.restore,)
            made = detect_single_method(lambda: isolate(make_single(spec), names), f"env.id={spec.id}", methods)
            if made == "reset":
                raise LabError(
                    f"env.restore={spec.restore} is not possible with env.wrappers={format_value(spec.wrappers)}: it"
                    " does not bring back all that they keep. Try env.restore=auto."
                )
        return spec.restore
    if is_native(spec):
        return detect_vector_method(lambda: vectorize(spec, 2, isolated=names), f"env.id={spec.id}")
    return detect_single_method(lambda: isolate(make_single(spec), names), f"env.id={spec.id}")


@once
def cached_dry_run(spec: EnvSpec) -> DryRun:
    """Return what a short run of the environments shows about their random numbers."""
    native = is_native(spec)
    return dry_run(
        lambda: vectorize(spec, 2, seeds=[None, None]) if native else make_single(spec, seed=None),
        f"env.id={spec.id}",
    )


def rng_warnings(spec: EnvSpec) -> list[str]:
    """Return warnings for the user about the environments' random numbers."""
    return cached_dry_run(spec).warnings(f"env.id={spec.id}") if spec.isolate_rng == "auto" else []


def isolated_rngs(spec: EnvSpec) -> tuple[str, ...]:
    """Return the names of the global generators of which each environment gets its own states."""
    if spec.isolate_rng == "never":
        return ()
    # Isolation costs time in this process, but none that matters in workers.
    if spec.isolate_rng == "always" or spec.vectorization_mode == "async":
        return GLOBAL_RNGS
    return cached_dry_run(spec).global_rngs
