"""Convolutional networks: what looks at images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.errors import LabError, require, require_one_of
from lab.net.mlp import ACTIVATION_NAMES
from lab.net.net import Net, Output

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn

    from lab.net.network import StackedNetwork

CHANNELS = ("auto", "first", "last")


@dataclass
class Convolutional(Net):
    """Base of networks that look at images; fully connected layers follow what they see."""

    channels: str  # which axis of an image: one of CHANNELS; auto is the smaller of first and last, or last if equal
    filters: list[int]  # channels that each layer, or section, gives
    hidden: list[int]  # width of each fully connected layer after them
    activation: str  # one of ACTIVATION_NAMES
    shared: bool  # whether the outputs share one trunk
    gain: float  # gain of the orthogonal initialization of all hidden layers

    def check(self) -> None:
        require_one_of("net.channels", self.channels, CHANNELS)
        counts = bool(self.filters) and all(number >= 1 for number in self.filters)
        require(counts, "net.filters", self.filters, "a list of one or more numbers of 1 or more")
        require(all(width >= 1 for width in self.hidden), "net.hidden", self.hidden, "a list of widths of 1 or more")
        require_one_of("net.activation", self.activation, ACTIVATION_NAMES)

    def check_observations(self, observations: Box) -> None:
        if len(observations.shape) != 3:
            raise LabError(
                f"net._target_={type(self).__module__}.{type(self).__qualname__} looks at images (rows, columns and"
                f" channels), and the observations are of shape {observations.shape}: choose net=mlp."
            )
        _, height, width = self.image(observations)
        if min(self.size(height), self.size(width)) < 1:
            raise LabError(
                f"Images of {height} x {width} are too small for the network: nothing of them is left after its"
                " layers. Choose smaller net.kernels or net.strides."
            )

    def image(self, observations: Box) -> tuple[int, int, int]:
        """Return the channels, rows and columns of an image."""
        shape = observations.shape
        if self.channels_last(observations):
            return shape[2], shape[0], shape[1]
        return shape[0], shape[1], shape[2]

    def channels_last(self, observations: Box) -> bool:
        """Say whether the last axis of an image is that of its channels."""
        if self.channels == "auto":
            return observations.shape[2] <= observations.shape[0]
        return self.channels == "last"

    def size(self, pixels: int) -> int:
        """Return what so many rows, or columns, become in the layers."""
        raise NotImplementedError

    def layers(self, channels: int, rngs: list[np.random.Generator]) -> list[nn.Module]:
        """Return the convolutional layers of a stack, of which each looks at one Session's images at a time."""
        raise NotImplementedError

    def build(
        self, observations: Box, outputs: list[Output], rngs: list[np.random.Generator], extra: int = 0
    ) -> StackedNetwork:
        from lab.net.images import ImageTrunk
        from lab.net.network import StackedNetwork, hidden_layers, with_heads

        self.check_observations(observations)
        channels, height, width = self.image(observations)
        seen = self.filters[-1] * self.size(height) * self.size(width) + extra

        def trunk() -> nn.Module:
            layers = self.layers(channels, rngs)
            hidden = hidden_layers(seen, self.hidden, self.activation, self.gain, rngs)
            return ImageTrunk(layers, hidden, self.channels_last(observations))

        last = self.hidden[-1] if self.hidden else seen
        return StackedNetwork(*with_heads(trunk, last, self.shared, outputs, rngs))


@dataclass
class NatureCNN(Convolutional):
    """Layers one after the other, without padding, as in Mnih et al. 2015 ("Human-level control", Methods)."""

    kernels: list[int]  # width and height of each layer's window, in pixels
    strides: list[int]  # step of each layer's window, in pixels

    def check(self) -> None:
        super().check()
        for key in ("kernels", "strides"):
            values = getattr(self, key)
            fits = len(values) == len(self.filters) and all(value >= 1 for value in values)
            require(fits, f"net.{key}", values, f"{len(self.filters)} numbers of 1 or more, as many as net.filters")

    def size(self, pixels: int) -> int:
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            pixels = (pixels - kernel) // stride + 1
        return pixels

    def layers(self, channels: int, rngs: list[np.random.Generator]) -> list[nn.Module]:
        from lab.net.images import Conv
        from lab.net.layers import Activation

        layers: list[nn.Module] = []
        for filters, kernel, stride in zip(self.filters, self.kernels, self.strides, strict=True):
            layers += [Conv(channels, filters, kernel, self.gain, rngs, stride), Activation(self.activation)]
            channels = filters
        return layers


@dataclass
class ImpalaCNN(Convolutional):
    """Sections of a convolution, a maximum over windows, and residual blocks (Espeholt et al. 2018, figure 3, right).

    With three sections of two blocks and one fully connected layer it is the network called deep there.
    """

    blocks: int  # residual blocks of two layers in each section

    def check(self) -> None:
        super().check()
        require(self.blocks >= 0, "net.blocks", self.blocks, "0 or more")

    def size(self, pixels: int) -> int:
        for _ in self.filters:
            pixels = -(-pixels // 2)
        return pixels

    def layers(self, channels: int, rngs: list[np.random.Generator]) -> list[nn.Module]:
        from lab.net.images import Conv, MaxPool, ResidualBlock
        from lab.net.layers import Activation

        layers: list[nn.Module] = []
        for filters in self.filters:
            layers += [Conv(channels, filters, 3, self.gain, rngs, padding=1), MaxPool()]
            layers += [ResidualBlock(filters, self.activation, self.gain, rngs) for _ in range(self.blocks)]
            channels = filters
        return [*layers, Activation(self.activation)]
