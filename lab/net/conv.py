"""Convolutional networks for images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lab.common.validation import Count, Natural
from lab.errors import LabError, require
from lab.net.net import ActivationName, Net

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn


@dataclass
class Convolutional(Net):
    """Base of networks that process images; fully connected layers follow the convolutions."""

    channels: Literal["auto", "first", "last"]
    filters: list[Count]
    hidden: list[Count]
    activation: ActivationName
    gain: float
    precision: Literal["float32", "bfloat16"] = field(default="float32", kw_only=True)

    def check(self) -> None:
        require(bool(self.filters), "net.filters", self.filters, "a list of one or more numbers")

    def check_observations(self, observations: Box, actions: int | None = None) -> None:
        if len(observations.shape) != 3:
            from lab.common.rows import Row

            several = isinstance(observations, Row)
            what = "observations have other parts too" if several else f"observations are of shape {observations.shape}"
            raise LabError(
                f"{self.choice} needs images (rows, columns and channels), and the {what}: choose"
                f" {'net=multi' if several else 'net=mlp'}."
            )
        _, height, width = self.image(observations)
        if min(self.size(height), self.size(width)) < 1:
            raise LabError(
                f"Images of {height} x {width} are too small for the network: its layers leave no pixel. Choose"
                " smaller net.kernels or net.strides."
            )

    def image(self, observations: Box) -> tuple[int, int, int]:
        """Return the channels, rows and columns of an image."""
        first, second, third = observations.shape
        return (third, first, second) if self.channels_last(observations) else (first, second, third)

    def channels_last(self, observations: Box) -> bool:
        """Whether the last axis of an image is that of its channels."""
        if self.channels == "auto":
            return observations.shape[2] <= observations.shape[0]
        return self.channels == "last"

    def size(self, pixels: int) -> int:
        """Return the rows, or columns, of the layers' output for so many of an image."""
        raise NotImplementedError

    def layers(self, channels: int, rng: np.random.Generator) -> list[nn.Module]:
        """Return the convolutional layers of one Session."""
        raise NotImplementedError

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        import torch
        from torch import nn

        from lab.net.layers import hidden_layers
        from lab.net.stacked import Convolutions, ImageTrunk

        self.check_observations(observations)
        channels, height, width = self.image(observations)
        flat = self.filters[-1] * self.size(height) * self.size(width) + extra
        copies: list[nn.Module] = [nn.Sequential(*self.layers(channels, rng), nn.Flatten()) for rng in rngs]
        hidden = hidden_layers(flat, self.hidden, self.activation, self.gain, rngs)
        convolutions = Convolutions(copies, getattr(torch, self.precision))
        trunk = ImageTrunk(convolutions, hidden, self.channels_last(observations))
        return trunk, self.hidden[-1] if self.hidden else flat


@dataclass
class NatureCNN(Convolutional):
    """Convolutions without padding, as in Mnih et al. 2015 ("Human-level control", Methods)."""

    kernels: list[Count]
    strides: list[Count]

    def check(self) -> None:
        super().check()
        for key in ("kernels", "strides"):
            values = getattr(self, key)
            fits = len(values) == len(self.filters)
            require(fits, f"net.{key}", values, f"{len(self.filters)} numbers, as many as net.filters")

    def size(self, pixels: int) -> int:
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            pixels = (pixels - kernel) // stride + 1
        return pixels

    def layers(self, channels: int, rng: np.random.Generator) -> list[nn.Module]:
        from lab.net.layers import Activation
        from lab.net.stacked import conv

        layers: list[nn.Module] = []
        for filters, kernel, stride in zip(self.filters, self.kernels, self.strides, strict=True):
            layers += [conv(channels, filters, kernel, self.gain, rng, stride), Activation(self.activation)]
            channels = filters
        return layers


@dataclass
class ImpalaCNN(Convolutional):
    """Sections of a convolution, max pooling and residual blocks (Espeholt et al. 2018, figure 3, right).

    With three sections of two blocks and one fully connected layer it is the paper's deep network.
    """

    blocks: Natural

    def size(self, pixels: int) -> int:
        for _ in self.filters:
            pixels = -(-pixels // 2)
        return pixels

    def layers(self, channels: int, rng: np.random.Generator) -> list[nn.Module]:
        from torch import nn

        from lab.net.layers import Activation
        from lab.net.stacked import ResidualBlock, conv

        layers: list[nn.Module] = []
        for filters in self.filters:
            layers += [conv(channels, filters, 3, self.gain, rng, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [ResidualBlock(filters, self.activation, self.gain, rng) for _ in range(self.blocks)]
            channels = filters
        return [*layers, Activation(self.activation)]
