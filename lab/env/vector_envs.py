"""Vector environments with next-step autoreset: in this process, or with one worker process per environment."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import queue
import select
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import Process
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from lab.common.signals import ignore_requests
from lab.env.guard import add_notice, close, guard, hanging, pop_notices
from lab.env.spaces import flat_shape, flatten, is_flat
from lab.errors import LabError, describe_exit

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
POLL_SECONDS = 1.0  # between two checks whether a worker that does not answer has ended
EXIT_SECONDS = 1.0  # how long a worker may take to end after its pipe is closed

Maker = Callable[[], gym.Env[Any, Any]]


class Steps(NamedTuple):
    """What one step of S times E environments returned: arrays [S, E, ...], or views of such arrays.

    `reported` [S, E, R] holds what is not learned from. R is 0 for environments without wrappers and metrics: then
    their rewards are their score. Else the columns are score, over and each of env.metrics (see lab.env.monitor).
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    reported: np.ndarray

    def by_time(self) -> Iterator[Steps]:
        """Yield the steps of a horizon [S, T, E, ...] one by one."""
        return map(Steps, *(values.swapaxes(0, 1) for values in self))

    @property
    def score(self) -> np.ndarray:
        """Rewards as the environments gave them [S, E]; in the row of an end, up to that end."""
        return self.reported[..., 0] if self.reported.shape[-1] else self.reward

    @property
    def over(self) -> np.ndarray:
        """Whether the environments' own episodes ended [S, E]."""
        return self.reported[..., 1] > 0 if self.reported.shape[-1] else self.terminated | self.truncated

    @classmethod
    def around(cls, observation: np.ndarray, size: tuple[int, ...], reported: int) -> Steps:
        """Return arrays [*size, ...] of zeros with R = `reported`, around an array for observations."""
        return cls(observation, np.zeros(size), np.zeros(size, bool), np.zeros(size, bool), np.zeros((*size, reported)))

    @classmethod
    def zeros(cls, *size: int, space: gym.Space[Any], reported: int = 0) -> Steps:
        """Return zeros for the flat observations of a space."""
        shape, dtype = flat_shape(space)
        return cls.around(np.zeros((*size, *shape), dtype), size, reported)

    def columns(self, result: Any) -> Sequence[Any]:
        """Return what `step` of a vector environment returned, for these arrays in their order."""
        return (*result[:4], result[4]["reported"]) if self.reported.shape[-1] else result[:4]


class SyncVector(VectorEnv[Any, Any, Any]):
    """Gymnasium's SyncVectorEnv with less overhead: observations [E, ...] are flat, infos but `reported` dropped."""

    def __init__(self, makers: Sequence[Maker], reported: int = 0) -> None:
        self._reported = reported
        self.envs = [make() for make in makers]
        self.num_envs = len(self.envs)
        self.inner_space = self.envs[0].observation_space
        self.single_observation_space, self.single_action_space = self.inner_space, self.envs[0].action_space
        self._is_flat = is_flat(self.inner_space)
        self._done = [False] * self.num_envs

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset every environment, with a list of seeds or one seed for all."""
        seeds = seed if isinstance(seed, list) else [seed] * self.num_envs
        observations = [env.reset(seed=one, options=options)[0] for env, one in zip(self.envs, seeds, strict=True)]
        self._done = [False] * self.num_envs
        return self._stack(observations), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment, or reset it if its episode ended at the last step."""
        steps = Steps.zeros(1, self.num_envs, space=self.inner_space, reported=self._reported)
        self.step_into(0, actions, steps)
        return *(values[0] for values in steps[:4]), {"reported": steps.reported[0]}

    def step_into(self, row: int, actions: np.ndarray, steps: Steps) -> None:
        """Do the same, and write what `step` returns into a row of `steps`."""
        observation, reward, terminated, truncated, reported = steps
        done = self._done
        for e, env in enumerate(self.envs):
            if done[e]:
                value, info = env.reset()
                reward[row, e], terminated[row, e], truncated[row, e], done[e] = 0.0, False, False, False
            else:
                value, reward[row, e], ended, cut, info = env.step(actions[e])
                terminated[row, e], truncated[row, e], done[e] = ended, cut, ended or cut
            observation[row, e] = value if self._is_flat else flatten(self.inner_space, value)
            if self._reported:
                reported[row, e] = info["reported"]

    def _stack(self, observations: list[Any]) -> np.ndarray:
        return np.array([flatten(self.inner_space, observation) for observation in observations])

    def close(self, **_: Any) -> None:
        """Close every environment."""
        self.closed = True
        for env in self.envs:
            env.close()


class AsyncVector(AsyncVectorEnv):
    """Gymnasium's AsyncVectorEnv, which also says how a worker ended, raises its first error, and prints nothing."""

    def __init__(self, name: str, makers: Sequence[Maker]) -> None:
        """Start a worker for each maker, or raise LabError if one ends; `name` is as "env.id=CartPole-v1"."""
        self._name = name
        try:
            # Workers are forked, to be in this process's group and killed with it.
            wrapped = [functools.partial(_make, name, maker, os.getpid()) for maker in makers]
            super().__init__(wrapped, context="fork", worker=_work)
        except BaseException:
            self.kill()
            raise

    def _check_spaces(self) -> None:
        pairs = enumerate(zip(self.parent_pipes, self.processes, strict=True))
        pipes = [_WorkerPipe(pipe, process, f"Worker {index} of {self._name}") for index, (pipe, process) in pairs]
        self.parent_pipes = pipes  # type: ignore[assignment]
        super()._check_spaces()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        failed = sum(not success for success in successes)
        if not failed:
            return
        errors: dict[int, BaseException] = {}
        for _ in range(failed):
            try:
                index, _, error, _ = self.error_queue.get(timeout=EXIT_SECONDS)
            except queue.Empty:  # it could not be pickled
                raise LabError(f"A worker of {self._name} raised an error that cannot be pickled.") from None
            errors[index] = error
            self.parent_pipes[index].close()
            self.parent_pipes[index] = None  # type: ignore[call-overload] # marks a worker that ended
        self._state = AsyncState.DEFAULT
        raise errors[min(errors)]

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments, unless a worker is busy or has ended."""
        if self._state is AsyncState.DEFAULT and all(self.parent_pipes):
            for hangs, texts in self.call("finish"):
                hanging.update([self._name] if hangs else [])
                for text in texts:
                    add_notice(text)

    def kill(self) -> None:
        """Kill the workers."""
        self.closed = True
        for process in getattr(self, "processes", []):
            process.kill()
        for process in getattr(self, "processes", []):
            process.join(EXIT_SECONDS)


class WorkerError(Exception):
    """An environment's error in a worker, as the traceback that it had there."""


class _WorkerPipe:
    """A pipe to a worker that raises LabError once the worker has ended."""

    def __init__(self, pipe: Connection, process: Process, name: str) -> None:
        self._pipe, self._process, self._name = pipe, process, name
        self._poll = select.poll()
        self._poll.register(pipe.fileno(), select.POLLIN)
        self.poll, self.close, self.fileno = pipe.poll, pipe.close, pipe.fileno

    @property
    def closed(self) -> bool:
        return self._pipe.closed

    def send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._describe_end() from error

    def recv(self) -> Any:
        while not self._poll.poll(1000 * POLL_SECONDS):  # a child of the worker may keep the pipe's other end open
            if self._process.exitcode is not None and not self._pipe.poll():
                raise self._describe_end()
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._describe_end() from error

    def _describe_end(self) -> LabError:
        self._process.join(EXIT_SECONDS)
        code = self._process.exitcode
        return LabError(f"{self._name} {'is gone' if code is None else describe_exit(code)}.")


class _WorkerEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment in a worker; its errors can be pickled, whatever they hold."""

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name, self._closed = name, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self._call(lambda: self.env.reset(seed=seed, options=options))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return self._call(lambda: self.env.step(action))

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            with guard(self._name):
                return call()
        except Exception as error:
            raise _to_picklable(error) from None

    def finish(self) -> tuple[bool, list[str]]:
        """Close the environment; return whether `close` hangs, and the notices."""
        self.close()
        return self._name in hanging, pop_notices()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            close(self._name, self.env.close)


def _to_picklable(error: Exception) -> Exception:
    return error if isinstance(error, LabError) else WorkerError("".join(traceback.format_exception(error)))


def _work(index: int, make: Maker, pipe: Connection, *rest: Any) -> None:
    """Run Gymnasium's worker, but report an error of the constructor like any other."""
    errors = rest[2]
    try:
        env = make()
    except Exception as error:
        picklable = _to_picklable(error)
        errors.put((index, type(picklable), picklable, ""))
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, *rest)


def _make(name: str, make: Maker, trainer_pid: int) -> gym.Env[Any, Any]:
    """Make an environment in a worker, or in the training process, where Gymnasium reads its spaces."""
    if os.getpid() != trainer_pid:
        # Ctrl-C and a cluster's signals reach every process of the group. Only the training process acts on them; its
        # workers end with it.
        ignore_requests()
        with contextlib.suppress(AttributeError, OSError):  # prctl exists on Linux only
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with guard(name):
        return _WorkerEnv(make(), name)
