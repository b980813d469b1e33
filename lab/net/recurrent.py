"""Recurrent networks: what remembers the steps before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lab.errors import require, require_one_of
from lab.net.mlp import ACTIVATION_NAMES
from lab.net.net import Net, Output

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.net.cells import Cell
    from lab.net.network import StackedNetwork


@dataclass
class Recurrent(Net):
    """Fully connected layers, then a recurrent cell. Algorithms that give extra numbers refuse such networks."""

    hidden: list[int]  # width of each fully connected layer before the cell
    activation: str  # of these layers, one of ACTIVATION_NAMES
    size: int  # numbers that the cell gives, and remembers (an LSTM remembers twice as many)
    burn_in: int  # steps at the start of each horizon that bring the state up to date and are not learned from
    shared: bool  # whether the outputs share one trunk, and so one state
    gain: float  # gain of the orthogonal initialization of hidden layers

    recurrent: ClassVar[bool] = True

    def check(self) -> None:
        require(all(width >= 1 for width in self.hidden), "net.hidden", self.hidden, "a list of widths of 1 or more")
        require_one_of("net.activation", self.activation, ACTIVATION_NAMES)
        require(self.size >= 2, "net.size", self.size, "2 or more")
        require(self.burn_in >= 0, "net.burn_in", self.burn_in, "0 steps or more")

    def cell(self, inputs: int, rngs: list[np.random.Generator]) -> Cell:
        """Return the cell of a stack."""
        raise NotImplementedError

    def build(
        self, observations: Box, outputs: list[Output], rngs: list[np.random.Generator], extra: int = 0
    ) -> StackedNetwork:
        from lab.net.cells import RecurrentNetwork, RecurrentTrunk
        from lab.net.network import FlatTrunk, hidden_layers, with_heads

        inputs = math.prod(observations.shape)

        def trunk() -> RecurrentTrunk:
            encoder = FlatTrunk(*hidden_layers(inputs, self.hidden, self.activation, self.gain, rngs))
            return RecurrentTrunk(encoder, self.cell(self.hidden[-1] if self.hidden else inputs, rngs))

        return RecurrentNetwork(*with_heads(trunk, self.size, self.shared, outputs, rngs), self.burn_in)


@dataclass
class GRU(Recurrent):
    """Gated recurrent units."""

    def cell(self, inputs: int, rngs: list[np.random.Generator]) -> Cell:
        from lab.net import cells

        return cells.GRU(inputs, self.size, rngs)


@dataclass
class LSTM(Recurrent):
    """Long short-term memory."""

    def cell(self, inputs: int, rngs: list[np.random.Generator]) -> Cell:
        from lab.net import cells

        return cells.LSTM(inputs, self.size, rngs)
