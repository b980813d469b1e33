"""A network for observations of several parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lab.common.conf import config_path
from lab.common.validation import Count
from lab.errors import warn_once
from lab.net.conv import Convolutional, ImpalaCNN, NatureCNN
from lab.net.mlp import MLP
from lab.net.net import Net
from lab.run.files import read_yaml

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn


@dataclass
class Multi(MLP):
    """Convolutions for each image and fully connected layers for all numbers together, joined by more such layers.

    The features of images and numbers are concatenated, as by Stable-Baselines3's CombinedExtractor.
    """

    convolutions: Literal["auto", "nature", "impala"]
    channels: Literal["auto", "first", "last"]
    image_hidden: list[Count]
    vector_hidden: list[Count]
    precision: Literal["float32", "bfloat16"] = field(default="float32", kw_only=True)

    def check_observations(self, observations: Box, actions: int | None = None) -> None:
        from lab.common.rows import is_image, parts_of

        for part in parts_of(observations):
            if is_image(part.space):
                self.image_net(part.space).check_observations(part.space)

    def image_net(self, image: Box) -> Convolutional:
        """Return the network of an image."""
        shared: dict[str, Any] = {
            "channels": self.channels,
            "hidden": self.image_hidden,
            "activation": self.activation,
            "gain": self.gain,
            "shared": self.shared,
            "precision": self.precision,
        }
        nature = NatureCNN(filters=[32, 64, 64], kernels=[8, 4, 3], strides=[4, 2, 1], **shared)
        fits = min(nature.size(pixels) for pixels in nature.image(image)[1:]) >= 1
        if self.convolutions == "nature" or (self.convolutions == "auto" and fits):
            return nature
        return ImpalaCNN(filters=[16, 32, 32], blocks=1, **shared)

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        from lab.common.rows import is_image, parts_of
        from lab.net.stacked import JoinedTrunk

        images: list[tuple[slice, tuple[int, ...], nn.Module]] = []
        columns: list[slice] = []
        features = extra
        for part in parts_of(observations):
            if is_image(part.space):
                trunk, width = self.image_net(part.space).trunk(part.space, 0, rngs)
                images.append((part.columns, part.space.shape, trunk))
                features += width
            else:
                columns.append(part.columns)
        vectors = None
        if columns:
            vectors, width = self.layers(sum(part.stop - part.start for part in columns), self.vector_hidden, rngs)
            features += width
        joined, width = self.layers(features, self.hidden, rngs)
        return JoinedTrunk(images, columns, vectors, joined), width


def choose_net(net: Net, observations: Box) -> Net:
    """Return net=multi for observations with an image where net=mlp is only the default; otherwise the net itself.

    It keeps what its layers have in common with those of net=mlp; net.shared, whose default differs, where it is set.
    """
    from lab.common.rows import is_image, parts_of

    if "net" in net.named or type(net) is not MLP or not any(is_image(part.space) for part in parts_of(observations)):
        return net
    values = read_yaml(Path(config_path(), "net", "multi.yaml"))
    del values["_target_"]
    warn_once("Observations have an image, so net=multi takes the place of net=mlp; write net=multi to set its keys.")
    kept = ["hidden", "activation", "gain", "norm", *(["shared"] if "net.shared" in net.named else [])]
    return Multi(**values | {key: getattr(net, key) for key in kept})
