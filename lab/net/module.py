"""A network of the user's own: any torch.nn.Module, written for one agent."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.imports import torch
from lab.common.text import format_value
from lab.errors import LabError, did_you_mean
from lab.net.net import Net

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn

SPACE = "observation_space"  # an argument that is not set in the config: the module is told what it will see


@dataclass
class Module(Net):
    """A torch.nn.Module that turns observations [B, ...] into features [B, N]; a layer for each output follows it.

    Images in bytes reach it as numbers from 0 to 1. Its constructor is given the keys of conf/net/ but `shared`, and
    the space of observations if it has an argument `observation_space`. For a critic of continuous actions its forward
    must take these as a second argument `extra` [B, A]. Layers that differ in training, as dropout or batch
    normalization, are in training where gradients are taken, and in evaluation elsewhere.
    """

    target: str  # path of the class
    arguments: dict[str, Any]  # for its constructor

    def to_dict(self) -> dict[str, Any]:
        return {"_target_": self.target, "shared": self.shared, **self.arguments}

    def check(self) -> None:
        parameters = inspect.signature(self.cls).parameters
        if SPACE in self.arguments or "shared" in parameters:
            name = SPACE if SPACE in self.arguments else "shared"
            raise LabError(f"net.{name} cannot be an argument of {self.target}: the name has a meaning of its own.")
        named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        allowed = [parameter.name for parameter in named if parameter.name != SPACE]
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        for key in self.arguments:
            if key not in allowed and not takes_any:
                raise LabError(
                    f"net.{key} cannot be set: {self.target} has no argument {key!r}.{did_you_mean(key, allowed)}"
                    f" Its arguments are: {', '.join(allowed) or 'none'}. What a tuned file sets is left out by ~tuned."
                )
        for parameter in named:
            if parameter.default is parameter.empty and parameter.name not in (*self.arguments, SPACE):
                raise LabError(f"net.{parameter.name} is missing: {self.target} cannot be made without it.")

    def check_observations(self, observations: Box) -> None:
        self.make(observations, 0, 0, with_extra=False)

    @property
    def cls(self) -> type[nn.Module]:
        """The class that it is of."""
        module, _, name = self.target.rpartition(".")
        return getattr(import_module(module), name)

    def make(self, observations: Box, extra: int, seed: int, with_extra: bool = True) -> tuple[nn.Module, int]:
        """Make the module of one Session, and say how many features it gives.

        Args:
            observations: one environment's observations.
            extra: numbers beside each observation.
            seed: of torch's random draws while it is made.
            with_extra: whether a module that takes extra numbers is to be tried out, of which the number is known.

        Raises:
            LabError: it cannot be made, or cannot process the observations.
        """
        space = {SPACE: observations} if SPACE in inspect.signature(self.cls).parameters else {}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                module = self.cls(**self.arguments, **space)
            except Exception as error:
                given = (
                    ", ".join(f"{key}={format_value(value)}" for key, value in self.arguments.items()) or "no arguments"
                )
                raise LabError(f"net._target_={self.target} cannot be made with {given}: {_told(error)}") from error
            takes_extra = "extra" in inspect.signature(module.forward).parameters
            if takes_extra and not with_extra:
                return module, 0
            if extra and not takes_extra:
                raise LabError(
                    f"net._target_={self.target} cannot tell the value of continuous actions: its forward must take"
                    " them as a second argument, `extra` [B, A], beside observations [B, ...]."
                )
            seen = [torch.zeros(2, *observations.shape), *([torch.zeros(2, extra)] if takes_extra else [])]
            try:
                with torch.no_grad():
                    features = module.eval()(*seen)
            except Exception as error:
                raise LabError(
                    f"net._target_={self.target} cannot process observations of shape {observations.shape}:"
                    f" {_told(error)}"
                ) from error
        found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        if not isinstance(found, tuple) or len(found) != 2 or found[0] != 2:
            raise LabError(
                f"net._target_={self.target} gave {found} for 2 observations: its forward must return features"
                " [B, N], a row for each observation."
            )
        for name, parameter in module.named_parameters():
            if parameter.dtype != torch.float32:
                raise LabError(f"net._target_={self.target} has {name} in {parameter.dtype}: it must be float32.")
        return module, found[1]

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        from lab.net.stacked import StackedModule

        seeds = [int(rng.integers(2**62)) for rng in rngs]
        modules, widths = zip(*(self.make(observations, extra, seed) for seed in seeds), strict=True)
        return StackedModule(list(modules), seeds), widths[0]


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."
