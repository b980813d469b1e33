"""Imports: torch when it is first used, classes and modules by name, and only installed packages for untrusted files.

The dataclass of an algorithm is both the schema of its config file and the object that learns. Checking a command
line needs the schemas and must not wait for torch: modules with schemas write `from lab.common.imports import torch`.

Python looks for modules in the working directory first. Inside a stranger's run directory, `report` and other commands
that only read it would execute what it holds under the name of a module: `installed_only` prevents this.
"""

from __future__ import annotations

import os
import pkgutil
import site
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, did_you_mean, to_sentence

if TYPE_CHECKING:
    import torch as torch
else:

    class _LazyModule:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)  # __getattr__ is not called the next time
            return value

    torch = _LazyModule("torch")

PLAIN = (AssertionError, ImportError, TypeError, ValueError)  # errors whose message says enough without their type

_installed_only = False
_hidden: list[str] = []  # entries of sys.path that are not searched
_lock = threading.RLock()  # sys.path is that of all threads


@contextmanager
def installed_only(*folders: Path) -> Iterator[None]:
    """Import only lab and installed packages, nothing from the working directory or from `folders`.

    Other threads that enter it wait meanwhile.
    """
    global _installed_only, _hidden
    with _lock:
        before = sys.path[:], _hidden, _installed_only
        hidden = [entry for entry in sys.path if not _is_installed(entry) and _leads_to(entry, (Path(), *folders))]
        sys.path[:] = [entry for entry in sys.path if entry not in hidden]
        _installed_only, _hidden = True, [*_hidden, *hidden]
        try:
            yield
        finally:
            sys.path[:], _hidden, _installed_only = before


def import_named(name: str) -> ModuleType:
    """Import a module that a spec names.

    Raises:
        ImportError: it cannot be imported, or `installed_only` forbids it; then nothing of it was executed.
    """
    top, *below = name.split(".")
    if not top:
        raise ImportError(f"{name!r} is not the name of a module")
    if _installed_only and (top in sys.stdlib_module_names or "__main__" in below):
        raise ImportError(f"{name} is part of Python or a program, and importing it may do anything")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        spec = PathFinder.find_spec(missing, _hidden) if missing and _hidden else None
        if spec is None:
            raise
        location = spec.origin or next(iter(spec.submodule_search_locations or ()), missing)
        raise ImportError(
            f"the module {missing} is not installed, but lies in {location}, which may be a stranger's; if you trust"
            " it, add code=here"
        ) from error


def import_class(key: str, path: str, base: type[Any]) -> type[Any]:
    """Import a class by its path.

    Args:
        key: the config key that names it.
        path: of the class, for example torch.optim.AdamW.
        base: the class that it must extend.

    Raises:
        LabError: it does not exist, or does not extend the base.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = import_named(module_name)
    except Exception as error:  # the module is code of any kind
        raise LabError(f"{key}={path} cannot be imported: {describe_error(error)}{suggest_module(error)}") from error
    cls = getattr(module, name, None)
    if isinstance(cls, type) and issubclass(cls, base):
        return cls
    if cls is None:
        classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
        hint = did_you_mean(name, [name for name, value in classes.items() if issubclass(value, base)])
        raise LabError(f"{key}={path} is not allowed: {module_name} has no {base.__name__} of this name.{hint}")
    kind = "a class that does not extend" if isinstance(cls, type) else f"a {type(cls).__name__}, not a class of"
    wanted = f"{base.__module__.partition('.')[0]}'s {base.__name__}"
    raise LabError(f"{key}={path} is not allowed: it is {kind} {wanted}.")


def suggest_module(error: BaseException) -> str:
    """Return " Did you mean 'x'?" for the nearest module that can be imported in place of one that does not exist."""
    missing = (getattr(error, "name", None) or "").partition(".")[0]
    exists = not missing or not isinstance(error, ModuleNotFoundError)
    others = (module.name for module in pkgutil.iter_modules() if module.name != missing)
    return "" if exists else did_you_mean(missing, others, cutoff=0.8)


def has_imported_local_code() -> bool:
    """Whether a module of the working directory was imported, which is neither Lab's nor installed."""
    here = f"{Path.cwd()}{os.sep}"
    files = {
        str(getattr(module, "__file__", None) or "")
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in ("lab", "__main__", "__mp_main__")
    }
    folders = {file.rpartition(os.sep)[0] for file in files if file.startswith(here)}  # few, of thousands of files
    return not all(map(_is_installed, folders))


def describe_error(error: BaseException) -> str:
    """Return an error's message as a sentence, with its type unless that is plain, and the user's own line of code."""
    sentence = locate_error(error)
    named = isinstance(error, PLAIN) or sentence.startswith(type(error).__name__)
    return sentence if named else f"{type(error).__name__}: {sentence}"


def locate_error(error: BaseException) -> str:
    """Return an error's message as a sentence, with the user's own line of code: "it broke (mine.py, line 24)."."""
    lines = [(frame.f_code.co_filename, line) for frame, line in frames(error)]
    own = [(Path(file).name, line) for file, line in lines if _is_own_file(file)]
    sentence = to_sentence(error)
    return "{} ({}, line {}).".format(sentence.removesuffix("."), *own[-1]) if own else sentence


def frames(error: BaseException) -> list[tuple[Any, int]]:
    """Return the frames of an error's traceback, the innermost one last, and their lines."""
    frames, trace = [], error.__traceback__
    while trace:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return frames


def _is_own_file(file: str) -> bool:
    """Whether a file of code is the user's own: neither Lab's, nor Python's, nor of an installed package."""
    lab = Path(__file__).parent.parent
    return Path(file).is_absolute() and not _is_installed(file) and not _is_below(file, (lab,))


def _is_installed(entry: str) -> bool:
    standard = [*site.getsitepackages(), site.getusersitepackages()]
    return _is_below(entry, (Path(os.__file__).parent, *map(Path, standard)))


def _is_below(entry: str, folders: Iterable[Path]) -> bool:
    path = Path(entry).resolve()
    return any(path.is_relative_to(folder.resolve()) for folder in folders)


def _leads_to(entry: str, folders: Iterable[Path]) -> bool:
    """Whether modules in one of some folders can be imported from an entry of sys.path; every folder is a package."""
    path = Path(entry).resolve()
    return any(path.is_relative_to(one) or one.is_relative_to(path) for one in (each.resolve() for each in folders))
