"""What every network config is: a dataclass that builds a stacked network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lab.net.network import StackedNetwork


@dataclass
class Output:
    """One output of a network.

    Attributes:
        name: what it is called.
        size: how many numbers it gives for each observation.
        gains: gain of the initialisation of its last layer, one for each Session.
    """

    name: str
    size: int
    gains: list[float]


@dataclass
class Net:
    """Base of the schemas in conf/net/."""

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""

    def build(self, inputs: int, outputs: list[Output], rngs: list[np.random.Generator]) -> StackedNetwork:
        """Build the network of a stack: inputs [S, B, inputs], each output [S, B, size].

        Args:
            inputs: size of a flat observation.
            outputs: what it is to compute.
            rngs: each Session's stream of initialisation; their number is S.
        """
        raise NotImplementedError
