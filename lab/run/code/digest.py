"""Digests of packages: two Sessions have the same code if these are equal, whatever their commits are."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.code.files import SOURCE
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.schemas import PROVENANCE

FROZEN = ".provenance.json"  # what a frozen copy of the code knows of itself, beside the package
SKIPPED = ("__pycache__", "node_modules", "site-packages")
APART = ("analysis", "command", "launch")  # parts of lab that train nothing


def package() -> Path:
    """Return the directory of the package that runs."""
    return Path(__file__).resolve().parents[2]


def is_frozen() -> bool:
    """Say whether the package that runs lies in a frozen copy."""
    return (package().parent / FROZEN).exists()


@functools.cache
def digest_of(path: Path) -> str | None:
    """Return a digest of the sources of a package (a folder) or of a module (a file); null if they cannot be read.

    Only what can change a result counts for lab itself: neither its analysis, commands and launchers, nor its config,
    whose values are in the spec.
    """
    digest = hashlib.sha256()
    try:
        for name, file in _sources(path):
            digest.update(os.fsencode(name) + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return None
    return digest.hexdigest()


def _sources(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        return [(path.name, path)]
    apart = APART if path == package() else ()
    found = []
    for folder, below, names in os.walk(path):
        here = Path(folder)
        below[:] = [name for name in below if not name.startswith(".") and name not in SKIPPED]
        if here == path:
            below[:] = [name for name in below if name not in apart]
        found += [here / name for name in names if Path(name).suffix in SOURCE]
    return sorted((file.relative_to(path).as_posix(), file) for file in found)


def digest_here(name: str) -> str | None:
    """Return the digest that a package, by its name, has in this process; null if it cannot be found."""
    if is_frozen():
        frozen = (read_json(package().parent / FROZEN).get("code") or {}).get(name)
        if frozen:
            return str(frozen)
    if name == "lab":
        return digest_of(package())
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = folders[0] if folders else spec.origin if spec.has_location else None
    return digest_of(Path(place).resolve()) if place else None


def changed_since(session: RunDir, digests: Mapping[str, Any] | None = None) -> list[str]:
    """Return the packages whose code is not what a Session was begun with, as far as that is known.

    Args:
        session: the Session.
        digests: of the packages of now; null to look for those that the Session had in this process.
    """
    try:
        then = read_json(session.provenance, PROVENANCE).get("code") or {}
    except LabError:
        return []
    return different(then, {name: digest_here(name) for name in then} if digests is None else digests)


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the packages that both know and whose code is not the same."""
    return [name for name, digest in one.items() if digest and other.get(name) and other[name] != digest]
