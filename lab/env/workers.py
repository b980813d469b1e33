"""Environments in processes of their own, whose errors come back as they were raised."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from lab.errors import LabError


class WorkerError(Exception):
    """An error of an environment in a worker: the traceback that it had there."""


class Told(gym.Wrapper[Any, Any, Any, Any]):
    """An environment in a worker, whose errors are those that can be sent, whatever they hold."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        try:
            return self.env.reset(seed=seed, options=options)
        except LabError:
            raise
        except Exception:
            raise WorkerError(traceback.format_exc()) from None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        try:
            return self.env.step(action)
        except LabError:
            raise
        except Exception:
            raise WorkerError(traceback.format_exc()) from None


class Workers(AsyncVectorEnv):
    """Gymnasium's AsyncVectorEnv, but it raises the error of the first worker that has one and prints nothing."""

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        failed = sum(not success for success in successes)
        if not failed:
            return
        errors: dict[int, BaseException] = {}
        for _ in range(failed):
            index, _, error, _ = self.error_queue.get()
            errors[index] = error
            self.parent_pipes[index].close()
            self.parent_pipes[index] = None  # type: ignore[call-overload] # by which it knows those that are gone
        self._state = AsyncState.DEFAULT
        raise errors[min(errors)]
