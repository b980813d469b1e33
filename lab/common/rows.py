"""Observations of several parts: images, numbers and an action mask, one after the other in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class ActionMask(gym.spaces.MultiBinary):
    """Which actions are valid, 1, and which are not, 0: all choices of a Discrete space, or of a MultiDiscrete one."""


@dataclass(frozen=True)
class Part:
    """A part of an observation, in a Row.

    Attributes:
        space: its own space.
        start: index of its first number in the row, without the action mask.
    """

    space: Any
    start: int

    @property
    def columns(self) -> slice:
        """Its numbers in the row, without the action mask."""
        return slice(self.start, self.start + gym.spaces.flatdim(self.space))


class Row(gym.spaces.Box):
    """Observations of several parts, one after the other in a row of float32.

    Attributes:
        mask: numbers of the action mask, which begins the row; 0 if there is none.
        parts: all other parts.
        scale_images: whether networks scale images in bytes to 0..1.
    """

    def __init__(self, parts: Sequence[Part], mask: int = 0, scale_images: bool = True) -> None:
        self.parts, self.mask, self.scale_images = tuple(parts), mask, scale_images
        super().__init__(-np.inf, np.inf, (mask + parts[-1].columns.stop,), np.float32)

    def __repr__(self) -> str:
        return f"Row({self.parts}, {self.mask}, {self.scale_images})"

    @property
    def inner(self) -> gym.spaces.Box:
        """What networks take, as `select` returns it: an image, a row of numbers, or a Row with an image in it."""
        if len(self.parts) == 1 and is_image(self.parts[0].space):
            box: Any = self.parts[0].space
            return gym.spaces.Box(box.low.min(), box.high.max(), box.shape, np.float32)
        if any(is_image(part.space) for part in self.parts):
            return Row(self.parts, scale_images=self.scale_images)
        return gym.spaces.Box(-np.inf, np.inf, (self.shape[0] - self.mask,), np.float32)

    @property
    def normalized(self) -> np.ndarray:
        """Indices of the numbers that may be normalized: not those of masks, images and choices."""
        parts = [part for part in self.parts if isinstance(part.space, gym.spaces.Box) and not is_image(part.space)]
        columns = np.arange(self.mask, self.shape[0])
        return np.concatenate([columns[:0], *(columns[part.columns] for part in parts)])

    def select(self, rows: Tensor) -> Tensor:
        """Return the observations that networks take of rows [S, B, D], with images in bytes scaled to 0..1."""
        import torch

        rows = rows[..., self.mask :]
        factors = [1 / 255 if self.scale_images and is_bytes(part.space) else 1.0 for part in self.parts]
        parts = [
            rows[..., part.columns] * factor if factor < 1 else rows[..., part.columns]
            for part, factor in zip(self.parts, factors, strict=True)
        ]
        joined = parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, -1)
        return joined.unflatten(-1, self.inner.shape)


def network_observations(observations: gym.spaces.Box) -> gym.spaces.Box:
    """Return what networks take of observations: those of a Row are selected and scaled before."""
    return observations.inner if isinstance(observations, Row) else observations


def parts_of(observations: gym.spaces.Box) -> tuple[Part, ...]:
    """Return the parts of observations; if they are no Row, they are one part."""
    return observations.parts if isinstance(observations, Row) else (Part(observations, 0),)


def is_image(space: gym.Space[Any]) -> bool:
    """Whether observations have rows, columns and channels, which convolutional networks keep apart."""
    return isinstance(space, gym.spaces.Box) and len(space.shape or ()) == 3


def is_bytes(space: gym.Space[Any]) -> bool:
    """Whether observations are images in bytes."""
    return is_image(space) and space.dtype == np.uint8
