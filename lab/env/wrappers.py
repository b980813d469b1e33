"""Wrappers of environments, from the list `env.wrappers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from lab.common.imports import import_class
from lab.errors import LabError

# Lab's own wrappers, and those of Stable-Baselines3 that it has by their names: the paths of their classes.
OWN: dict[str, str] = {}


def apply_wrappers(env: gym.Env[Any, Any], items: Sequence[Any]) -> gym.Env[Any, Any]:
    """Apply wrappers in order, the first one innermost; raise LabError for one that cannot be applied."""
    for i, item in enumerate(items):
        arguments = {"name": item} if isinstance(item, str) else dict(item)
        name = arguments.pop("name")
        path = OWN.get(name, name if "." in name else f"gymnasium.wrappers.{name}")
        try:
            env = import_class(f"env.wrappers[{i}]", path, gym.Wrapper)(env, **arguments)
        except LabError:
            raise
        except Exception as error:
            raise LabError(f"env.wrappers[{i}]={name} cannot be applied: {error}") from error
    return env
