"""Which code may be imported while a run directory is only read: it may be a stranger's, and so may what lies around.

Python looks for modules in the working directory first. Whoever unpacks a run directory there, or enters one, would
run what it holds under the name of a module. While `installed_only` lasts, only installed packages are found.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

_guarded = False
_left_out: list[str] = []  # entries of sys.path that are not searched


@contextmanager
def installed_only(*folders: Path) -> Iterator[None]:
    """Find modules of installed packages alone: none in the working directory, none in other folders.

    What `lab` itself consists of is found wherever it is. A package that is installed as editable is an installed one.
    """
    global _guarded, _left_out
    before = sys.path[:], _left_out, _guarded
    left_out = [entry for entry in sys.path if not _is_installed(entry) and _is_below(entry, (Path(), *folders))]
    sys.path[:] = [entry for entry in sys.path if entry not in left_out]
    _guarded, _left_out = True, [*_left_out, *left_out]
    try:
        yield
    finally:
        sys.path[:], _left_out, _guarded = before


def import_named(name: str) -> ModuleType:
    """Import a module that a spec names.

    Raises:
        ImportError: it cannot be imported, or is not to be while `installed_only` lasts; nothing of it ran then.
    """
    top, *below = name.split(".")
    if not top:
        raise ImportError(f"{name!r} is not the name of a module")
    if _guarded and (top in sys.stdlib_module_names or "__main__" in below):
        raise ImportError(f"{name} is part of Python or a program, and to import it may do anything")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        found = PathFinder.find_spec(missing, _left_out) if missing and _left_out else None
        if found is None:
            raise
        place = found.origin or next(iter(found.submodule_search_locations or ()), missing)
        raise ImportError(
            f"the module {missing} is not installed, but lies in {place}, which may be a stranger's; if you trust it,"
            " add code=here"
        ) from error


def _is_installed(entry: str) -> bool:
    standard = [*site.getsitepackages(), site.getusersitepackages()]
    return _is_below(entry, (Path(os.__file__).parent, *map(Path, standard)))


def _is_below(entry: str, folders: Iterable[Path]) -> bool:
    return any(Path(entry).resolve().is_relative_to(folder.resolve()) for folder in folders)
