"""Layers that look at images, one Session after the other: what each computes is exact by construction (law 1)."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lab.net.layers import Activation, orthogonal
from lab.net.network import scaled


class PerSession(nn.Module):
    """A layer whose `look` turns one Session's images [B, C, H, W] into others."""

    def look(self, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Look at one Session's images.

        Args:
            images: [B, C, H, W].
            weights: the Session's own parameters, by their names in this layer.
        """
        raise NotImplementedError


class Conv(PerSession):
    """A convolution: orthogonally initialized, each filter being a row, bias zero."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        gain: float,
        rngs: list[np.random.Generator],
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        flat = np.stack([orthogonal(rng, inputs * kernel**2, outputs, gain).T for rng in rngs]).astype(np.float32)
        self.weight = nn.Parameter(torch.from_numpy(flat.reshape(len(rngs), outputs, inputs, kernel, kernel).copy()))
        self.bias = nn.Parameter(torch.zeros(len(rngs), outputs))

    def look(self, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return functional.conv2d(images, weights["weight"], weights["bias"], self.stride, self.padding)


class MaxPool(PerSession):
    """The maximum of every second window of 3 x 3, with a border of one pixel."""

    def look(self, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return functional.max_pool2d(images, 3, stride=2, padding=1)


class ResidualBlock(PerSession):
    """Two convolutions, each after an activation, added to what they were given."""

    def __init__(self, channels: int, activation: str, gain: float, rngs: list[np.random.Generator]) -> None:
        super().__init__()
        self.first = Conv(channels, channels, 3, gain, rngs, padding=1)
        self.second = Conv(channels, channels, 3, gain, rngs, padding=1)
        self.activation = Activation(activation)

    def look(self, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
        # Some activations take the place of what they are given, which is needed once more here.
        inner = self.first.look(self.activation(images.clone()), part(weights, "first"))
        return images + self.second.look(self.activation(inner), part(weights, "second"))


def part(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the parameters of a layer within a layer, by their names in there."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


class ImageTrunk(nn.Module):
    """Convolutional layers, then fully connected ones over what they give, with the extra numbers behind it."""

    def __init__(self, layers: list[nn.Module], hidden: list[nn.Module], channels_last: bool) -> None:
        super().__init__()
        self.layers, self.hidden = nn.ModuleList(layers), nn.Sequential(*hidden)
        self.channels_last = channels_last

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        # Taken apart once for all Sessions: the gradient is then put together, not added up from slices.
        parameters = [{name: leaf.unbind(0) for name, leaf in layer.named_parameters()} for layer in self.layers]
        features = []
        for s, images in enumerate(x.unbind(0)):
            images = scaled(images.permute(0, 3, 1, 2) if self.channels_last else images).contiguous()
            for layer, leaves in zip(self.layers, parameters, strict=True):
                if isinstance(layer, Activation):
                    images = layer(images)
                else:
                    own = {name: slices[s] for name, slices in leaves.items()}
                    images = cast("PerSession", layer).look(images, own)
            features.append(images.flatten(1))
        seen = torch.stack(features)
        return cast("Tensor", self.hidden(seen if extra is None else torch.cat([seen, extra], -1)))
