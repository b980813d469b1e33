"""The multilayer perceptron."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.common.validation import Count
from lab.net.net import ActivationName, Net, NormName, refuse_images

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn

    from lab.net.layers import FlatTrunk


@dataclass
class MLP(Net):
    """Fully connected layers."""

    hidden: list[Count]
    activation: ActivationName
    gain: float
    norm: NormName

    @property
    def by_batch(self) -> bool:
        return self.norm == "batch_renorm"

    def with_norm(self, norm: NormName) -> MLP:
        return dataclasses.replace(self, norm=norm)

    def check_observations(self, observations: Box, actions: int | None = None) -> None:
        refuse_images(self, observations)

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        return self.layers(math.prod(observations.shape) + extra, self.hidden, rngs)

    def layers(self, width: int, hidden: list[int], rngs: list[np.random.Generator]) -> tuple[FlatTrunk, int]:
        """Return fully connected layers over so many numbers, and the width of the last one."""
        from lab.net.layers import Activation, FlatTrunk, Linear
        from lab.net.normalization import BatchRenorm, LayerNorm

        stack = len(rngs)
        layers: list[nn.Module] = [BatchRenorm(stack, width)] if self.norm == "batch_renorm" else []
        for outputs in hidden:
            layers.append(Linear(width, outputs, [self.gain] * stack, rngs))
            layers += [LayerNorm(stack, outputs)] if self.norm == "layer" else []
            layers.append(Activation(self.activation))
            layers += [BatchRenorm(stack, outputs)] if self.norm == "batch_renorm" else []
            width = outputs
        return FlatTrunk(*layers), width
