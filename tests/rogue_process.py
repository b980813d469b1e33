"""Environments that end their process or change its settings, by ids such as tests.rogue_process:Ends-v0."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tests.envs import Base

STEP = 300  # at which an environment acts; later than any step of the dry run and of restore's trials


def _raise(error: BaseException) -> None:
    raise error


def _recurse() -> None:
    _recurse()


def _from_a_thread() -> None:
    threading.Thread(target=os._exit, args=(4,)).start()
    time.sleep(60)


def _hang() -> None:
    while True:
        time.sleep(1)


def _fork_and_exit() -> None:
    if os.fork() == 0:
        os._exit(9)


def _fork_and_return() -> None:
    os.fork()


WAYS: dict[str, Callable[[], Any]] = {
    "sys.exit()": sys.exit,
    "sys.exit(0)": lambda: sys.exit(0),
    "sys.exit(3)": lambda: sys.exit(3),
    "sys.exit(text)": lambda: sys.exit("that is all"),
    "os._exit(0)": lambda: os._exit(0),
    "os._exit(5)": lambda: os._exit(5),
    "exit(0) of C": lambda: ctypes.CDLL(None).exit(0),
    "abort": os.abort,
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGALRM": lambda: os.kill(os.getpid(), signal.SIGALRM),
    "execv": lambda: os.execv("/bin/true", ["true"]),
    "thread": _from_a_thread,
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "MemoryError": lambda: _raise(MemoryError()),
    "RecursionError": _recurse,
    "fork and exit": _fork_and_exit,
    "fork and return": _fork_and_return,
}


class Ends(Base):
    """Ends its process (`way`) at a step, in its constructor, in `reset` or in `close` (`where`)."""

    def __init__(self, way: str, where: str = "step", seed: int | None = None) -> None:
        self.way, self.where, self.only, self.steps = way, where, seed, 0
        self._do("constructor")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._do("reset")
        return super().reset(seed=seed, options=options)

    def reward(self, action: Any) -> float:
        self.steps += 1
        if self.steps == STEP:
            self._do("step")
        return float(action == (self.observation[0] > 0))

    def close(self) -> None:
        self._do("close")

    def _do(self, where: str) -> None:
        if where == self.where:
            WAYS[self.way]()


class Closes(Base):
    """Fails in `close` (`raises`, `hangs`, `exits`), in its destructor or at the end of the process."""

    def __init__(self, way: str) -> None:
        self.way = way
        if way == "atexit raises":
            atexit.register(_raise, RuntimeError("at the end"))
        if way == "atexit hangs":
            atexit.register(_hang)
        if way == "thread stays":
            threading.Thread(target=_hang).start()

    def reward(self, action: Any) -> float:
        return float(action == (self.observation[0] > 0))

    def close(self) -> None:
        if self.way == "raises":
            raise RuntimeError("it will not close")
        if self.way == "hangs":
            _hang()
        if self.way == "exits":
            sys.exit(0)

    def __del__(self) -> None:
        if getattr(self, "way", "") == "destructor raises":
            raise RuntimeError("it will not go")


CHANGES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "threads": lambda: torch.set_num_threads(2),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "grad": lambda: torch.set_grad_enabled(False),
    "denormal": lambda: torch.set_flush_denormal(False),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "seterr": lambda: np.seterr(all="raise"),
    "rounding": lambda: ctypes.CDLL(None).fesetround(0x800),
    "signals": lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)],
    "warnings": lambda: warnings.simplefilter("error"),
    "chdir": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o777),
    "recursion": lambda: sys.setrecursionlimit(150),
}


class Changes(Base):
    """Changes a setting of its process in its constructor and at some steps."""

    def __init__(self, what: str) -> None:
        self.what, self.steps = what, 0
        CHANGES[what]()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        result = super().step(action)
        self.steps += 1
        if self.steps % 37 == 0:
            CHANGES[self.what]()
        return result

    def reward(self, action: Any) -> float:
        return float(action == (self.observation[0] > 0)) + float(self.observation[1])


class Leaves(Base):
    """Starts a process that outlives it."""

    forked = False

    def reward(self, action: Any) -> float:
        if not self.forked:
            type(self).forked = True
            if os.fork() == 0:
                devnull = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(devnull, stream)
                time.sleep(20)
                os._exit(0)
        return 0.0


class Counted(Base):
    """Reads its spaces from an environment variable, as if its code changed."""

    def __init__(self) -> None:
        observations, actions, high = os.environ.get("LAB_TEST_COUNTED", "3,2,1").split(",")
        self.observation_space = gym.spaces.Box(-1, float(high), (int(observations),), np.float32)
        self.action_space = gym.spaces.Discrete(int(actions))


for kind in (Ends, Closes, Changes, Leaves, Counted):
    gym.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=25)
