"""Calls into an environment: what ends a process becomes an error, and settings of the process are put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from lab.common.signals import requested
from lab.env.settings import Settings
from lab.errors import LabError

T = TypeVar("T")


@contextmanager
def guard(name: str) -> Iterator[None]:
    """Guard the process against what an environment does to it meanwhile.

    Args:
        name: of the environment, as "env.id=CartPole-v1".

    Raises:
        LabError: the environment asked Python to end, as by `sys.exit`.
    """
    settings = Settings()
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        refuse_end(error, name)
        raise
    finally:
        settings.keep()


def refuse_end(error: BaseException, name: str) -> None:
    """Raise LabError for what an environment raised that is no Exception, but for a Ctrl-C of the user's."""
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        raise LabError(f"{name} called sys.exit({code}).") from error
    if not isinstance(error, KeyboardInterrupt) or not requested():
        raise LabError(f"{name} raised {type(error).__name__}.") from error


def guarded(*methods: str) -> Callable[[type[T]], type[T]]:
    """Guard the process in some methods of a class that has the spec of its environments as `_spec`."""

    def decorate(cls: type[T]) -> type[T]:
        for method in methods:
            setattr(cls, method, _guarded(getattr(cls, method)))
        return cls

    return decorate


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        with guard(f"env.id={self._spec.id}"):
            return method(self, *arguments, **options)

    return call
