"""The multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.errors import require, require_one_of
from lab.net.net import Net, Output

if TYPE_CHECKING:
    from lab.net.network import StackedNetwork

ACTIVATION_NAMES = ("tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "sigmoid")


@dataclass
class MLP(Net):
    """Fully connected layers, with a trunk for each output or one that all outputs share."""

    hidden: list[int]  # width of each hidden layer
    activation: str  # one of ACTIVATION_NAMES
    shared: bool  # whether the outputs share one trunk
    gain: float  # gain of the orthogonal initialisation of hidden layers

    def check(self) -> None:
        require(all(width >= 1 for width in self.hidden), "net.hidden", self.hidden, "a list of widths of 1 or more")
        require_one_of("net.activation", self.activation, ACTIVATION_NAMES)

    def build(self, inputs: int, outputs: list[Output], rngs: list[np.random.Generator]) -> StackedNetwork:
        from torch import nn

        from lab.net.layers import Activation, Linear
        from lab.net.network import StackedNetwork

        def trunk() -> nn.Sequential:
            layers: list[nn.Module] = []
            width = inputs
            for size in self.hidden:
                layers += [Linear(width, size, [self.gain] * len(rngs), rngs), Activation(self.activation)]
                width = size
            return nn.Sequential(*layers)

        last = self.hidden[-1] if self.hidden else inputs
        shared = trunk() if self.shared else None
        trunks, heads = {}, {}
        for output in outputs:
            trunks[output.name] = shared or trunk()
            heads[output.name] = Linear(last, output.size, output.gains, rngs)
        return StackedNetwork(trunks, heads)
