"""The modules of the user's own that are imported: neither Python's, nor installed, nor this package's."""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

INSTALLED = ("site-packages", "dist-packages")  # folders of installed packages, by name


@dataclass(frozen=True)
class Imported:
    """A top-level package, or a module that stands alone.

    Attributes:
        name: of the package.
        place: its folder, or its file.
        root: the folder that it is imported from, as it stands in sys.path.
        files: those of its modules that are imported.
    """

    name: str
    place: Path
    root: Path
    files: tuple[Path, ...]


def imported() -> list[Imported]:
    """Return the user's own packages, in the order in which sys.path leads to them."""
    files: dict[tuple[str, Path], list[Path]] = {}
    for name, module in list(sys.modules.items()):
        file = _file(module)
        name = _name(name, module, file)
        top = name.partition(".")[0]
        if file is None or top in sys.stdlib_module_names or top == "lab" or not _is_own(file):
            continue
        above = _file(sys.modules.get(top))
        if above is not None and not _is_own(above):  # made by an installed package, as compiled kernels are
            continue
        depth = name.count(".") + (file.stem == "__init__")
        folders = [file.parent, *file.parent.parents]
        root = folders[min(depth, len(folders) - 1)]
        files.setdefault((top, root), []).append(file)
    order = {Path(entry or ".").resolve(): number for number, entry in reversed(list(enumerate(sys.path)))}
    found = [_gather(top, root, sorted(set(of))) for (top, root), of in files.items()]
    return sorted(found, key=lambda one: (order.get(one.root, len(order)), one.name))


def _gather(top: str, root: Path, files: list[Path]) -> Imported:
    package = root / top
    whole = package.is_dir() and files[0].is_relative_to(package)
    return Imported(top, package if whole else files[0], root, tuple(files))


def _file(module: ModuleType | None) -> Path | None:
    if not isinstance(module, ModuleType):
        return None
    # Not by getattr, which would import a module that is imported when it is first used.
    file = object.__getattribute__(module, "__dict__").get("__file__")
    if not isinstance(file, str):
        return None
    path = Path(file)
    return path.resolve() if path.is_file() else None


def _name(name: str, module: ModuleType, file: Path | None) -> str:
    if name not in ("__main__", "__mp_main__"):
        return name
    spec = getattr(module, "__spec__", None)
    return str(spec.name) if spec else file.stem if file else name


def _is_own(file: Path) -> bool:
    if not {*INSTALLED}.isdisjoint(file.parts):
        return False
    return not any(folder in file.parents for folder in _of_python())


@functools.cache
def _of_python() -> frozenset[Path]:
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    folders = [*map(sysconfig.get_path, names), *site.getsitepackages(), site.getusersitepackages()]
    return frozenset(Path(folder).resolve() for folder in folders if folder)
