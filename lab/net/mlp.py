"""The multilayer perceptron."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.common.validation import Count
from lab.net.net import ActivationName, Net, NormName

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn


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

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        from lab.net.layers import Activation, FlatTrunk, Linear
        from lab.net.normalization import BatchRenorm, LayerNorm

        stack, width = len(rngs), math.prod(observations.shape) + extra
        layers: list[nn.Module] = [BatchRenorm(stack, width)] if self.norm == "batch_renorm" else []
        for outputs in self.hidden:
            layers.append(Linear(width, outputs, [self.gain] * stack, rngs))
            layers += [LayerNorm(stack, outputs)] if self.norm == "layer" else []
            layers.append(Activation(self.activation))
            layers += [BatchRenorm(stack, outputs)] if self.norm == "batch_renorm" else []
            width = outputs
        return FlatTrunk(*layers), width
