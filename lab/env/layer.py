"""Says which wrapper of `env.wrappers` is to blame: for what it returns or raises, and for an end that it hides."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from lab.common.imports import frames
from lab.env.validation import Validated
from lab.errors import LabError


class Layer(Validated):
    """A wrapper of the user's list, whose results are validated by its own name.

    Raises LabError if the wrapper around it steps on after an end, which that one must have hidden.
    """

    _over = False  # whether an episode ended here, and no reset followed

    def __init__(self, env: gym.Env[Any, Any], name: str, outer: str) -> None:
        """Lay it around a wrapper; `outer` names the wrapper around it, and is empty for the last one."""
        super().__init__(env, name, infos=True)
        self._outer = outer

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._over = False
        result = self.env.reset(seed=seed, options=options)
        checked = self._check_reset(result)
        return result if self._outer else checked

    def step(self, action: Any) -> Any:
        """Take a step; what the next wrapper gets is not converted."""
        if self._over:
            raise refuse_step(self._outer)
        result: Any = self.env.step(action)
        checked = self._check(result)
        self._over = checked[2] or checked[3]
        return result if self._outer else checked


def refuse_step(outer: str) -> LabError:
    """Return the error for a step after an end, which the wrapper `outer` took."""
    return LabError(
        f"{outer} took a step after the environment inside it had ended an episode. A wrapper's step must return that"
        " end (terminated or truncated), or reset the environment inside before the next step."
    )


def blame(error: BaseException, name: str) -> str:
    """Return the name of the innermost wrapper, or the environment, in which an error was raised; `name` if unknown."""
    for frame, _ in frames(error):
        layer = frame.f_locals.get("self")
        if isinstance(layer, Validated):
            name = layer._name
    return name
