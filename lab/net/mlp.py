"""The multilayer perceptron."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.errors import require, require_one_of
from lab.net.net import NORMS, Net, Output

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.net.network import StackedNetwork

ACTIVATION_NAMES = ("tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "sigmoid")


@dataclass
class MLP(Net):
    """Fully connected layers, with a trunk for each output or one that all outputs share."""

    hidden: list[int]  # width of each hidden layer
    activation: str  # one of ACTIVATION_NAMES
    shared: bool  # whether the outputs share one trunk
    gain: float  # gain of the orthogonal initialization of hidden layers
    norm: str  # one of NORMS

    def check(self) -> None:
        require(all(width >= 1 for width in self.hidden), "net.hidden", self.hidden, "a list of widths of 1 or more")
        require_one_of("net.activation", self.activation, ACTIVATION_NAMES)
        require_one_of("net.norm", self.norm, NORMS)

    @property
    def by_batch(self) -> bool:
        return self.norm == "batch_renorm"

    def with_norm(self, norm: str) -> MLP:
        return dataclasses.replace(self, norm=norm)

    def build(
        self, observations: Box, outputs: list[Output], rngs: list[np.random.Generator], extra: int = 0
    ) -> StackedNetwork:
        from lab.net.layers import Activation, Linear
        from lab.net.network import FlatTrunk, StackedNetwork, with_heads
        from lab.net.normalization import around, before_layers

        inputs = math.prod(observations.shape) + extra

        def trunk() -> FlatTrunk:
            layers = before_layers(self.norm, len(rngs), inputs)
            width = inputs
            for size in self.hidden:
                linear = Linear(width, size, [self.gain] * len(rngs), rngs)
                layers += around(self.norm, linear, Activation(self.activation), len(rngs), size)
                width = size
            return FlatTrunk(*layers)

        last = self.hidden[-1] if self.hidden else inputs
        trunks, heads = with_heads(trunk, last, self.shared, outputs, rngs)
        return StackedNetwork(trunks, heads)
