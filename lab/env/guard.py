"""Protects the process from environments that exit, hang in `close`, handle signals or change global settings.

An environment that sets torch's default dtype or numpy's error handling would change the networks' arithmetic too.
Settings that the next action depends on are compared after every step, which takes a microsecond; the others are
compared after each horizon of steps.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from lab.common import signals
from lab.env.layer import blame
from lab.errors import LabError

CLOSE_SECONDS = 5.0  # how long `close` of an environment may take

hanging: set[str] = set()  # names of environments whose `close` did not return; it is not called again
_notices: dict[str, None] = {}


def add_notice(text: str) -> None:
    """Queue a sentence for the user about what an environment did that changes no result."""
    _notices[text] = None


def pop_notices() -> list[str]:
    """Return the queued sentences and empty the queue."""
    texts = list(_notices)
    _notices.clear()
    return texts


@contextmanager
def guard(name: str) -> Iterator[None]:
    """Restore the process's settings after calls into an environment, and raise LabError if it calls `sys.exit`."""
    settings = ProcessSettings()
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        reject_exit(error, name)
        raise
    finally:
        settings.restore()


def reject_exit(error: BaseException, name: str) -> None:
    """Raise LabError for an environment's exception that is no Exception; the user's own Ctrl-C passes."""
    name = blame(error, name)
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        raise LabError(f"{name} called sys.exit({code}).") from error
    if not isinstance(error, KeyboardInterrupt) or not signals.requested():
        raise LabError(f"{name} raised {type(error).__name__}.") from error


def close(name: str, *closers: Callable[[], Any], seconds: float = CLOSE_SECONDS) -> None:
    """Call the `close` functions of environments one after another, for at most `seconds`; problems become notices."""
    if name in hanging:
        return
    problems: list[str] = []
    thread = threading.Thread(target=_close, args=(closers, problems), daemon=True, name=f"closing {name}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        hanging.add(name)
        problems.append(f"did not return within {seconds:g} seconds, and is not called again")
    for problem in problems[:1]:
        add_notice(f"close() of {name} {problem}.")


def _close(closers: Iterable[Callable[[], Any]], problems: list[str]) -> None:
    for closer in closers:
        try:
            closer()
        except BaseException as error:
            text = " ".join(str(error).split())
            problems.append(f"raised {type(error).__name__}{f': {text}' if text else ''}".rstrip("."))


class Setting(NamedTuple):
    """A process-wide setting; `name` is how a user would change it, `default` its initial value where that is known."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], Any]
    default: Any = None

    def restore(self, value: Any) -> None:
        """Set it to a value again, with a notice if it had changed."""
        changed = self.get()
        if changed != value:
            self.set(value)
            add_notice(f"An environment changed {self.name} from {value} to {changed}; it was put back.")


class ProcessSettings:
    """The current values of the process's settings, which can be restored later."""

    def __init__(self, flush_denormal: bool = False) -> None:
        """Read the settings; `flush_denormal` is set each time they are restored, because it cannot be read."""
        self._flush, self._pid, self._had_torch = flush_denormal, os.getpid(), "torch" in sys.modules
        step, others = (_step_settings(), _torch_settings()) if self._had_torch else ((), ())
        self._step = [(setting.get, setting.get(), setting) for setting in step]
        self._others = [(setting.get, setting.get(), setting) for setting in (*others, *_python_settings())]

    def restore(self) -> None:
        """Restore all settings, with a notice for each that had changed."""
        self.restore_step_settings()
        for get, value, setting in self._others:
            if get() != value:
                setting.restore(value)
        if not self._had_torch and "torch" in sys.modules:  # an environment imported it: restore torch's defaults
            for setting in (*_step_settings(), *_torch_settings()):
                if setting.default is not None:
                    setting.restore(setting.default)
        if signals.keep_handlers():
            add_notice("An environment handled the signals that ask a Session to end; the handlers were put back.")

    def restore_step_settings(self) -> None:
        """Restore the settings that the next action depends on."""
        if os.getpid() != self._pid:  # an environment forked and returned in both processes: end the child
            os._exit(1)
        for get, value, setting in self._step:
            if get() != value:
                setting.restore(value)
        if self._flush:
            sys.modules["torch"].set_flush_denormal(True)


@cache
def _step_settings() -> tuple[Setting, ...]:
    torch, library = sys.modules["torch"], ctypes.CDLL(None)
    settings = (
        Setting("torch.set_num_threads", torch.get_num_threads, torch.set_num_threads),
        Setting("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        Setting("torch.set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled, True),
    )
    if not hasattr(library, "fegetround"):
        return settings
    return (*settings, Setting("the rounding of numbers", library.fegetround, library.fesetround, 0))


@cache
def _torch_settings() -> tuple[Setting, ...]:
    torch = sys.modules["torch"]

    def get_deterministic() -> tuple[bool, bool]:
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), warn_only

    def set_deterministic(value: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(value[0], warn_only=value[1])

    def set_device(device: Any) -> None:
        torch.set_default_device(None if device.type == "cpu" else device)  # None removes the hook on every function

    def cudnn(name: str) -> Setting:
        module = torch.backends.cudnn
        full = f"torch.backends.cudnn.{name}"
        return Setting(full, lambda: getattr(module, name), lambda value: setattr(module, name, value))

    get_precision, set_precision = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    return (
        Setting("torch.use_deterministic_algorithms", get_deterministic, set_deterministic, (False, False)),
        Setting("torch.set_float32_matmul_precision", get_precision, set_precision, "highest"),
        Setting("torch.set_default_device", torch.get_default_device, set_device, torch.device("cpu")),
        *map(cudnn, ("benchmark", "deterministic", "allow_tf32")),
    )


@cache
def _python_settings() -> tuple[Setting, ...]:
    return (
        Setting("numpy.seterr", np.geterr, lambda value: np.seterr(**value)),
        Setting("numpy's BLAS threads", _get_blas_threads, _set_blas_threads),
        Setting("warnings.simplefilter('error')", _get_error_filters, _set_error_filters),
        Setting("logging.disable", lambda: logging.root.manager.disable, logging.disable),
        Setting("sys.setrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit),
        Setting("os.umask", _get_umask, os.umask),
    )


@cache
def _blas() -> list[Any]:
    return list(ThreadpoolController().select(internal_api="openblas").lib_controllers)


def _get_blas_threads() -> list[int]:
    return [library.get_num_threads() for library in _blas()]


def _set_blas_threads(values: list[int]) -> None:
    for library, value in zip(_blas(), values, strict=True):
        library.set_num_threads(value)


def _get_error_filters() -> list[Any]:
    return [entry for entry in warnings.filters if entry[0] == "error"]


def _set_error_filters(errors: list[Any]) -> None:
    entries = [entry for entry in warnings.filters if entry[0] != "error" or entry in errors]
    with suppress(AttributeError):
        warnings.filters[:] = entries  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]


def _get_umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value
