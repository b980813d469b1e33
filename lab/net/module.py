"""A network of your own: any torch.nn.Module, written for one agent."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.common.text import format_value
from lab.errors import LabError, did_you_mean, summary, warn_once
from lab.net.net import Net

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn

SPACE = "observation_space"  # an argument that the config does not set


@dataclass
class Module(Net):
    """A torch.nn.Module that maps observations [B, ...] to features [B, N]; a layer for each output follows it.

    Observations are float32; images in bytes reach it scaled to 0..1. Its constructor gets the keys of conf/net/ except
    `shared`, and the observation space if it has an argument `observation_space`. For a critic of continuous actions
    its forward must take these as a second argument `extra` [B, A]. Layers such as dropout or batch normalization are
    in training mode where gradients are computed, and in evaluation mode elsewhere.
    """

    target: str  # path of the class
    arguments: dict[str, Any]  # for its constructor

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": self.target, "shared": self.shared, **self.arguments}

    @property
    def cls(self) -> type[nn.Module]:
        """The class of the module."""
        module, _, name = self.target.rpartition(".")
        return getattr(import_module(module), name)

    def check(self) -> None:
        parameters = inspect.signature(self.cls).parameters
        if SPACE in self.arguments or "shared" in parameters:
            name = SPACE if SPACE in self.arguments else "shared"
            raise LabError(f"net.{name} cannot be an argument of {self.target}: the name is reserved.")
        named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        allowed = [parameter.name for parameter in named if parameter.name != SPACE]
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        for key in self.arguments:
            if key not in allowed and not takes_any:
                raise LabError(
                    f"net.{key} cannot be set: {self.target} has no argument {key!r}.{did_you_mean(key, allowed)}"
                    f" Its arguments are: {', '.join(allowed) or 'none'}."
                )
        for parameter in named:
            if parameter.default is parameter.empty and parameter.name not in (*self.arguments, SPACE):
                raise LabError(f"net.{parameter.name} is missing: {self.target} requires it.")

    def check_observations(self, observations: Box, actions: int | None = None) -> None:
        _, width = self.make(observations, None, 0)
        if width in (1, actions):
            given = "one number" if width == 1 else f"{width} numbers, as many as there are actions,"
            warn_once(
                f"net._target_={self.target} returns {given} for each observation. If those are logits, values or"
                " actions, let its forward return the features before its last layer instead: a linear layer for each"
                " output of the algorithm follows the module."
            )

    def make(self, observations: Box, extra: int | None, seed: int) -> tuple[nn.Module, int]:
        """Make the module of one Session, and return it with its number of features.

        Args:
            observations: one environment's observations.
            extra: numbers beside each observation; None if unknown, where a module that takes them is not called.
            seed: of torch's random draws in its constructor.

        Raises:
            LabError: it cannot be made, or cannot process the observations.
        """
        space = {SPACE: observations} if SPACE in inspect.signature(self.cls).parameters else {}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                module = self.cls(**self.arguments, **space)
            except Exception as error:
                given = ", ".join(f"{key}={format_value(value)}" for key, value in self.arguments.items())
                raise self._error(f"cannot be made with {given or 'no arguments'}: {summary(error)}.") from error
            takes_extra = "extra" in inspect.signature(module.forward).parameters
            if takes_extra and extra is None:
                return module, 0
            if extra and not takes_extra:
                raise self._error(
                    "cannot tell the value of continuous actions: its forward must take them as a second argument,"
                    " `extra` [B, A], beside observations [B, ...]."
                )
            inputs = [torch.zeros(2, *observations.shape), *([torch.zeros(2, extra or 0)] if takes_extra else [])]
            try:
                with torch.no_grad():
                    features = module.eval()(*inputs)
            except Exception as error:
                problem = f"cannot process observations of shape {observations.shape}: {summary(error)}."
                raise self._error(problem) from error
        shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        if not isinstance(shape, tuple) or len(shape) != 2 or shape[0] != 2:
            problem = f"gave {shape} for 2 observations: its forward must return features [B, N], a row for each."
            raise self._error(problem)
        for name, parameter in module.named_parameters():
            if parameter.dtype != torch.float32:
                raise self._error(f"has {name} in {parameter.dtype}: it must be float32.")
        return module, shape[1]

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        from lab.net.stacked import StackedModule

        seeds = [int(rng.integers(2**62)) for rng in rngs]
        modules, widths = zip(*(self.make(observations, extra, seed) for seed in seeds), strict=True)
        return StackedModule(list(modules), seeds), widths[0]

    def _error(self, problem: str) -> LabError:
        return LabError(f"net._target_={self.target} {problem}")
