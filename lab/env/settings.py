"""Settings of the process that training depends on: what an environment changes of them is put back.

An environment that sets torch's default dtype or numpy's way with errors does so for the networks too. Those that
decide what the next action is are looked at after every step, which costs a microsecond; the others now and then.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from lab.common import signals as interruption
from lab.env import notices


class Setting(NamedTuple):
    """A setting.

    Attributes:
        name: what sets it, as a user would write it.
        get: returns its value.
        set: sets it to a value.
        default: what it is before anybody set it; None if that is not known.
        at_each_step: whether the next action depends on it.
    """

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], Any]
    default: Any = None
    at_each_step: bool = False


@cache
def _of_step() -> tuple[Setting, ...]:
    """Return the settings of torch and of the processor by which the next action may come out as another one."""
    torch = sys.modules["torch"]
    return (
        Setting("torch.set_num_threads", torch.get_num_threads, torch.set_num_threads, at_each_step=True),
        Setting("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32, True),
        Setting("torch.set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled, True, True),
        *_of_rounding(),
    )


@cache
def _of_torch() -> tuple[Setting, ...]:
    """Return the other settings of torch."""
    torch = sys.modules["torch"]
    return (
        Setting(
            "torch.use_deterministic_algorithms",
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
            (False, False),
        ),
        Setting(
            "torch.set_float32_matmul_precision",
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
            "highest",
        ),
        Setting("torch.set_default_device", lambda: str(torch.get_default_device()), _set_default_device, "cpu"),
        *(_of_cudnn(name) for name in ("benchmark", "deterministic", "allow_tf32")),
    )


def _warns_only() -> bool:
    return bool(sys.modules["torch"].is_deterministic_algorithms_warn_only_enabled())


def _of_cudnn(name: str) -> Setting:
    cudnn = sys.modules["torch"].backends.cudnn
    return Setting(
        f"torch.backends.cudnn.{name}", lambda: getattr(cudnn, name), lambda value: setattr(cudnn, name, value)
    )


@cache
def _of_process() -> tuple[Setting, ...]:
    """Return settings of Python, numpy and the system."""
    return (
        Setting("numpy.seterr", np.geterr, lambda value: np.seterr(**value)),
        Setting("numpy's BLAS threads", _get_blas_threads, _set_blas_threads),
        Setting("warnings.simplefilter('error')", _error_filters, _set_error_filters),
        Setting("logging.disable", lambda: logging.root.manager.disable, logging.disable),
        Setting("sys.setrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit),
        Setting("os.umask", _get_umask, os.umask),
    )


class Settings:
    """The values of settings at some time, to go back to."""

    def __init__(self, flush_denormal: bool = False) -> None:
        """Take them as they are now.

        Args:
            flush_denormal: whether numbers too small to matter are rounded to zero, which torch does not tell.
        """
        self._flush, self._process = flush_denormal, os.getpid()
        self._had_torch = "torch" in sys.modules
        settings = (*(_of_step() if self._had_torch else ()), *(_of_torch() if self._had_torch else ()), *_of_process())
        self._values = [(setting, setting.get()) for setting in settings]
        self._of_step = [(setting.get, value, setting) for setting, value in self._values if setting.at_each_step]

    def keep(self) -> None:
        """Put back all that was changed since, and take note of it."""
        self._end_if_forked()
        for setting, value in self._values:
            _put_back(setting, value)
        if not self._had_torch and "torch" in sys.modules:  # it came with an environment, and is to be as it comes
            for setting in (*_of_step(), *_of_torch()):
                if setting.default is not None:
                    _put_back(setting, setting.default)
        if self._flush:
            sys.modules["torch"].set_flush_denormal(True)
        if interruption.keep_handlers():
            notices.add("An environment handled the signals that ask a Session to end; the handlers were put back.")

    def keep_of_step(self) -> None:
        """Put back what was changed of the settings by which the next action may come out as another one."""
        self._end_if_forked()
        for get, value, setting in self._of_step:
            if get() != value:
                _put_back(setting, value)
        if self._flush:
            sys.modules["torch"].set_flush_denormal(True)

    def _end_if_forked(self) -> None:
        if os.getpid() != self._process:  # an environment forked, and came back twice; the other one goes on
            os._exit(1)


def _put_back(setting: Setting, value: Any) -> None:
    changed = setting.get()
    if changed != value:
        setting.set(value)
        notices.add(f"An environment changed {setting.name} from {value} to {changed}; it was put back.")


def _of_rounding() -> tuple[Setting, ...]:
    library = ctypes.CDLL(None)
    if not hasattr(library, "fegetround"):
        return ()
    return (Setting("the rounding of numbers", library.fegetround, library.fesetround, 0, at_each_step=True),)


def _set_default_device(name: str) -> None:
    sys.modules["torch"].set_default_device(None if name == "cpu" else name)  # which leaves nothing in its way


@cache
def _blas() -> list[Any]:
    return list(ThreadpoolController().select(internal_api="openblas").lib_controllers)


def _get_blas_threads() -> list[int]:
    return [library.get_num_threads() for library in _blas()]


def _set_blas_threads(values: list[int]) -> None:
    for library, value in zip(_blas(), values, strict=True):
        library.set_num_threads(value)


def _error_filters() -> list[Any]:
    return [one for one in warnings.filters if one[0] == "error"]


def _set_error_filters(kept: list[Any]) -> None:
    """Leave no other filters that turn warnings into errors."""
    others = [one for one in warnings.filters if one[0] != "error" or one in kept]
    with suppress(AttributeError):
        warnings.filters[:] = others  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]


def _get_umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value
