"""Training: one stack from first frame to last. Called, as `lab.train(["algo=ppo"])`, it is `lab.api.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from lab.api import Experiment, Session, Trial


class _Package(ModuleType):
    """This package, which importing one of its modules makes `lab.train`, in place of the function of this name."""

    def __call__(
        self,
        overrides: Sequence[str],
        seeds: Sequence[int] | None = None,
        directory: str | os.PathLike[str] | None = None,
        show: bool = True,
    ) -> Session | Trial | Experiment:
        """Train what the command line trains with these overrides: see `lab.api.train`."""
        run: Session | Trial | Experiment = import_module("lab.api").train(overrides, seeds, directory, show)
        return run


sys.modules[__name__].__class__ = _Package
