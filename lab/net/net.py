"""What every network config is: a dataclass that builds a stacked network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lab.errors import LabError

if TYPE_CHECKING:
    from gymnasium.spaces import Box

    from lab.net.network import StackedNetwork

NORMS = ("none", "layer", "batch_renorm")


@dataclass
class Output:
    """One output of a network.

    Attributes:
        name: what it is called.
        size: how many numbers it gives for each observation.
        gains: gain of the initialization of its last layer, one for each Session.
        noisy: whether that layer learns how far to be disturbed by noise.
    """

    name: str
    size: int
    gains: list[float]
    noisy: bool = False


@dataclass
class Net:
    """Base of the schemas in conf/net/."""

    recurrent: ClassVar[bool] = False  # whether it remembers the steps before

    def to_dict(self) -> dict[str, Any]:
        """Return the config that this was made of, as plain data."""
        return {"_target_": f"{type(self).__module__}.{type(self).__qualname__}", **asdict(self)}

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""

    @property
    def by_batch(self) -> bool:
        """Whether what it says of an observation depends, while it learns, on the others in a minibatch."""
        return False

    def with_norm(self, norm: str) -> Net:
        """Return the net with another one of NORMS between its layers.

        Raises:
            LabError: it has no such layers.
        """
        if norm == "none":
            return self
        raise LabError(
            f"algo.norm={norm} is not possible with net._target_={type(self).__module__}.{type(self).__qualname__}: it"
            " has no normalization between its layers. Choose algo.norm=none, or net=mlp."
        )

    def check_observations(self, observations: Box) -> None:
        """Raise LabError for observations that the network cannot look at."""

    def build(
        self, observations: Box, outputs: list[Output], rngs: list[np.random.Generator], extra: int = 0
    ) -> StackedNetwork:
        """Build the network of a stack: observations [S, B, ...], each output [S, B, size].

        Args:
            observations: one environment's observations.
            outputs: what it is to compute.
            rngs: each Session's stream of initialization; their number is S.
            extra: numbers that it is given beside each observation, as the action of which a critic tells the value.
        """
        raise NotImplementedError
