"""The C++ compiler of this machine, which compiled learning steps need."""

from __future__ import annotations

import os
import shutil

from lab.errors import LabError

NAMES = ("g++", "clang++")


def find_compiler() -> str | None:
    """Return the C++ compiler of this machine, None if there is none."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), *NAMES)))), None)


def require_compiler() -> None:
    """Raise LabError if this machine has no C++ compiler."""
    if not find_compiler():
        raise LabError(
            "compile=true is not possible here: no C++ compiler was found (g++ or clang++, or what CXX names). Install"
            " one, as with `apt-get install g++`, or use compile=false."
        )
