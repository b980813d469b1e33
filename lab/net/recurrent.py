"""Recurrent networks, which carry a state from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from lab.common.validation import Count, Natural
from lab.net.net import ActivationName, Net, refuse_images

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn

    from lab.net.network import StackedNetwork


@dataclass
class Recurrent(Net):
    """Fully connected layers, then a recurrent cell. Algorithms that give extra numbers refuse such networks."""

    hidden: list[Count]
    activation: ActivationName
    size: Annotated[int, Ge(2)]
    burn_in: Natural
    gain: float

    recurrent: ClassVar[bool] = True

    def check_observations(self, observations: Box, actions: int | None = None) -> None:
        refuse_images(self, observations)

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        from lab.net import cells
        from lab.net.layers import FlatTrunk, hidden_layers

        inputs = math.prod(observations.shape)
        encoder = FlatTrunk(*hidden_layers(inputs, self.hidden, self.activation, self.gain, rngs))
        cell: type[cells.Cell] = getattr(cells, type(self).__name__)
        width = self.hidden[-1] if self.hidden else inputs
        return cells.RecurrentTrunk(encoder, cell(width, self.size, rngs)), self.size

    def assemble(self, trunks: dict[str, nn.Module], heads: dict[str, nn.Module]) -> StackedNetwork:
        from lab.net.cells import RecurrentNetwork

        return RecurrentNetwork(trunks, heads, self.burn_in)


class GRU(Recurrent):
    """Gated recurrent units."""


class LSTM(Recurrent):
    """Long short-term memory."""
