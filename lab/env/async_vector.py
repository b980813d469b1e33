"""Environments in processes of their own, of which each may end in its own way."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import queue
import select
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import Process
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from lab.common.signals import ignore_requests
from lab.env import notices
from lab.env.closing import close, hanging
from lab.env.guard import guard
from lab.errors import LabError, describe_exit

KILL_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
LOOK_SECONDS = 1.0  # between two looks whether a worker that does not answer has ended
END_SECONDS = 1.0  # that a worker whose pipe is closed may take to end


class WorkerError(Exception):
    """An error of an environment in a worker: the traceback that it had there."""


class InWorker(gym.Wrapper[Any, Any, Any, Any]):
    """An environment in a worker, whose errors are those that can be sent, whatever they hold."""

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self._name, self._closed = name, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        return self._try(lambda: self.env.reset(seed=seed, options=options))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        return self._try(lambda: self.env.step(action))

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            with guard(self._name):
                return call()
        except Exception as error:
            raise _told(error) from None

    def finish(self) -> tuple[bool, list[str]]:
        """Close the environment; return whether that hangs, and what there is to be told of it."""
        self.close()
        return self._name in hanging, notices.take()

    def close(self) -> None:
        """Close the environment, once."""
        if not self._closed:
            self._closed = True
            close(self._name, self.env.close)


class Answers:
    """The end of a pipe to a worker: it knows when no answer can come any more."""

    def __init__(self, pipe: Connection, process: Process, described: str) -> None:
        self._pipe, self._process, self._described = pipe, process, described
        self._poll = select.poll()
        self._poll.register(pipe.fileno(), select.POLLIN)
        self.poll, self.close, self.fileno = pipe.poll, pipe.close, pipe.fileno

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._pipe.closed

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            LabError: the worker has ended.
        """
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._end() from error

    def recv(self) -> Any:
        """Return the next message.

        Raises:
            LabError: the worker has ended.
        """
        while not self._poll.poll(1000 * LOOK_SECONDS):  # what the environment started may hold the other end open
            if self._process.exitcode is not None and not self._pipe.poll():
                raise self._end()
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._end() from error

    def _end(self) -> LabError:
        self._process.join(END_SECONDS)
        code = self._process.exitcode
        return LabError(f"{self._described} {'is gone' if code is None else describe_exit(code)}.")


class Workers(AsyncVectorEnv):
    """Gymnasium's AsyncVectorEnv, which says how a worker ended, raises the first error, and prints nothing."""

    def __init__(self, name: str, makers: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        """Start the workers.

        Args:
            name: of the environment, as "env.id=CartPole-v1".
            makers: makes the environment of each worker.

        Raises:
            LabError: one of them ended.
        """
        self._name = name
        try:
            # Forked from this process, and so killed with it where its group is.
            wrapped = [functools.partial(_make, name, maker, os.getpid()) for maker in makers]
            super().__init__(wrapped, context="fork", worker=_work)
        except BaseException:
            self.end()
            raise

    def _check_spaces(self) -> None:
        pairs = enumerate(zip(self.parent_pipes, self.processes, strict=True))
        named = [Answers(pipe, process, f"Worker {index} of {self._name}") for index, (pipe, process) in pairs]
        self.parent_pipes = named  # type: ignore[assignment]
        super()._check_spaces()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        failed = sum(not success for success in successes)
        if not failed:
            return
        errors: dict[int, BaseException] = {}
        for _ in range(failed):
            try:
                index, _, error, _ = self.error_queue.get(timeout=END_SECONDS)
            except queue.Empty:  # it holds what cannot be sent
                raise LabError(f"A worker of {self._name} raised an error that cannot be told.") from None
            errors[index] = error
            self.parent_pipes[index].close()
            self.parent_pipes[index] = None  # type: ignore[call-overload] # by which it knows those that are gone
        self._state = AsyncState.DEFAULT
        raise errors[min(errors)]

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments, unless a worker is in the midst of something or gone."""
        if self._state is AsyncState.DEFAULT and all(self.parent_pipes):
            for hangs, found in self.call("finish"):
                hanging.update([self._name] if hangs else [])
                for text in found:
                    notices.add(text)

    def end(self) -> None:
        """End the workers, whatever they do."""
        self.closed = True
        for process in getattr(self, "processes", []):
            process.kill()
        for process in getattr(self, "processes", []):
            process.join(END_SECONDS)


def _told(error: Exception) -> Exception:
    """Return an error that can be sent to another process."""
    return error if isinstance(error, LabError) else WorkerError("".join(traceback.format_exception(error)))


def _work(index: int, make: Callable[[], gym.Env[Any, Any]], pipe: Connection, *rest: Any) -> None:
    """Do what Gymnasium's worker does, but tell an error of the constructor as it tells any other."""
    errors = rest[2]
    try:
        env = make()
    except Exception as error:
        told = _told(error)
        errors.put((index, type(told), told, ""))
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, *rest)


def _make(name: str, make: Callable[[], gym.Env[Any, Any]], trainer: int) -> gym.Env[Any, Any]:
    """Make an environment in a worker; or in the process that trains, whose number is given, to see its spaces."""
    if os.getpid() != trainer:
        # Ctrl-C reaches every process of a terminal, and a signal to a cluster's job every process of the job; it is
        # for the one that trains to say when its workers end, and they end with it.
        ignore_requests()
        with contextlib.suppress(AttributeError, OSError):  # of Linux alone
            ctypes.CDLL(None).prctl(KILL_WITH_PARENT, signal.SIGKILL)
    with guard(name):
        return InWorker(make(), name)
