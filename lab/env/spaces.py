"""Observation and action spaces: what networks take, and what policies give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np

from lab.common.rows import ActionMask, Part, Row, is_bytes
from lab.common.rows import is_image as is_image
from lab.common.text import format_value
from lab.errors import LabError

MAX_CODE = 31  # a picture whose largest byte is below this is all but black
MIN_SIDE = 8  # rows and columns of an image at least; smaller arrays of bytes may be anything
ACTION_SPACES = (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary, gym.spaces.Box)


@dataclass
class Spaces:
    """What an algorithm needs to know of an environment.

    Attributes:
        observation: one environment's observations: a Box of shape [D] in float32, or of an image's own shape, in
            float32 or uint8; a Row if there are images beside other parts, or an action mask. Networks scale images in
            uint8.
        action: one environment's actions: Discrete, MultiDiscrete, MultiBinary or a Box.
        original: one environment's own observation space.
        scale_images: whether networks scale images in bytes to 0..1.
        frame_stack: newest frames in an observation, along its first axis, the newest last; 1 if it is no stack.
        zero_padding: whether zeros stand for frames before an episode in a stack, in place of its first frame.
    """

    observation: gym.spaces.Box
    action: gym.Space[Any]
    original: gym.Space[Any]
    scale_images: bool = True
    frame_stack: int = 1
    zero_padding: bool = False

    def unscaled(self) -> Spaces:
        """Return the same spaces with images in float32, which networks take as they are."""
        box = self.observation
        if isinstance(box, Row):
            box = Row(box.parts, box.mask, scale_images=False)
        elif is_image(box):
            box = gym.spaces.Box(0, 255, box.shape, np.float32)
        return replace(self, observation=box, scale_images=False)

    @property
    def action_size(self) -> int:
        """Choices of an action, or numbers in it."""
        return int(gym.spaces.flatdim(self.action))

    @property
    def has_mask(self) -> bool:
        """Whether observations say which actions are valid."""
        return isinstance(self.observation, Row) and self.observation.mask > 0

    @classmethod
    def read(cls, name: str, env: gym.Env[Any, Any], wrappers: Sequence[Any] = ()) -> Spaces:
        """Return the spaces of an environment with some wrappers; raise LabError if no policy can serve them."""
        observation, action = env.observation_space, env.action_space
        for place, leaf in leaves(observation):
            if not is_served(leaf):
                kind = type(leaf).__name__
                problem = f"{name} has the space {kind} in its observations{place}, which no network here can take."
                raise LabError(problem + _advise_filter(observation, wrappers))
        try:
            flat = gym.spaces.flatten_space(observation)
        except ValueError as error:  # there is nothing to concatenate
            raise LabError(f"{name} has observations with an empty Dict or Tuple: {observation}.") from error
        if not flat.shape or 0 in flat.shape:
            raise LabError(f"{name} has observations without any number: {observation}.")
        if not isinstance(action, ACTION_SPACES) or not np.issubdtype(action.dtype, np.number):
            raise LabError(
                f"{name} has the action space {action}, which no algorithm here can serve:"
                " it must be Discrete, MultiDiscrete, MultiBinary or Box."
            )
        if 0 in (action.shape or ()):
            raise LabError(f"{name} has the action space {action}, in which there is nothing to choose.")
        if is_image(observation):
            dtype: Any = np.uint8 if observation.dtype == np.uint8 else np.float32
            return cls(gym.spaces.Box(0, 255, observation.shape, dtype), action, observation)
        size, mask, parts = int(np.prod(flat.shape)), 0, list[Part]()
        for _, leaf in leaves(observation):
            if isinstance(leaf, ActionMask):
                mask = gym.spaces.flatdim(leaf)
            else:
                parts.append(Part(leaf, parts[-1].columns.stop if parts else 0))
        if mask or any(is_image(part.space) for part in parts):
            return cls(Row(parts, mask), action, observation)
        return cls(gym.spaces.Box(-np.inf, np.inf, (size,), np.float32), action, observation)


def leaves(space: gym.Space[Any], place: str = "") -> Iterator[tuple[str, gym.Space[Any]]]:
    """Yield the parts of a space that are no Dict or Tuple, each with its place, as "['arm'][0]"."""
    if not isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple)):
        yield place, space
        return
    for key, part in space.spaces.items() if isinstance(space, gym.spaces.Dict) else enumerate(space.spaces):
        yield from leaves(part, f"{place}[{key!r}]")


def is_served(space: gym.Space[Any]) -> bool:
    """Whether a network can take a part of an observation: a fixed number of numbers."""
    try:
        return isinstance(gym.spaces.flatten_space(space), gym.spaces.Box) and not isinstance(space, gym.spaces.Text)
    except NotImplementedError:  # a class of its own
        return False


def _advise_filter(space: gym.Space[Any], wrappers: Sequence[Any]) -> str:
    """Return the wrappers, with one more that leaves out what no network can take; nothing if none can."""
    parts = space.spaces if isinstance(space, gym.spaces.Dict) else {}
    if any(isinstance(part, ActionMask) for part in parts.values()):  # which lies around the wrappers
        return _advise_filter(parts["observation"], wrappers)
    keys = [str(key) for key, part in parts.items() if all(is_served(leaf) for _, leaf in leaves(part))]
    advised = [*wrappers, {"name": "FilterObservation", "filter_keys": keys}]
    return f" Leave it out: 'env.wrappers={format_value(advised)}'." if keys else ""


def holds_codes(space: gym.Space[Any], observations: Sequence[Any]) -> bool:
    """Whether all images in bytes hold codes, such as kinds of tiles, by their bounds or values; False without any."""
    several = zip(*(_values(space, observation) for observation in observations), strict=True)
    images = [(leaf, values) for (_, leaf), values in zip(leaves(space), several, strict=True) if is_bytes(leaf)]
    return bool(images) and all(
        leaf.high.max() < 255 or 0 < max(int(np.max(image)) for image in values) <= MAX_CODE  # type: ignore[attr-defined]
        for leaf, values in images
    )


def is_flattened_image(space: gym.Space[Any]) -> bool:
    """Whether observations seem to be images in bytes that networks take as rows of numbers, for want of three axes."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 4):
        return False
    return sorted(space.shape)[-2] >= MIN_SIDE and bool(space.high.max() == 255)


def _values(space: gym.Space[Any], observation: Any) -> Iterator[Any]:
    """Yield the values of what `leaves` yields."""
    if not isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple)):
        yield observation
        return
    for key, part in space.spaces.items() if isinstance(space, gym.spaces.Dict) else enumerate(space.spaces):
        yield from _values(part, observation[key])


def is_flat(space: gym.Space[Any]) -> bool:
    """Whether networks take a space's observations in their own shape: images, and rows of numbers."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) in (1, 3)


def flat_shape(space: gym.Space[Any]) -> tuple[tuple[int, ...], Any]:
    """Return the shape and the type of what `flatten` returns."""
    if not is_image(space):
        return (gym.spaces.flatdim(space),), np.float32
    return space.shape or (), np.uint8 if space.dtype == np.uint8 else np.float32


def flatten(space: gym.Space[Any], observation: Any) -> np.ndarray:
    """Return one observation as networks take it: an image unchanged, anything else flat."""
    if is_image(space):
        return np.asarray(observation, np.uint8 if is_bytes(space) else np.float32)
    if isinstance(space, gym.spaces.Box):
        return np.asarray(observation, np.float32).ravel()
    return np.asarray(gym.spaces.flatten(space, observation), np.float32)


class ActionConverter:
    """Converts a policy's actions into an environment's units.

    A policy gives an integer from 0 for each discrete choice, 0 or 1 for each binary one, and for a bounded Box numbers
    from -1 to 1, which are scaled to its bounds. Numbers outside the bounds are clipped.

    Attributes:
        is_identity: whether both are the same, as for one discrete choice from 0.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._shape, self._dtype = space.shape or (), np.dtype(space.dtype)
        self._start: Any = getattr(space, "start", 0)
        self._is_box, self._is_binary = (isinstance(space, kind) for kind in (gym.spaces.Box, gym.spaces.MultiBinary))
        self.is_identity = isinstance(space, gym.spaces.Discrete) and self._start == 0
        if isinstance(space, gym.spaces.Box):
            self._low, self._high = space.low.ravel().astype(float), space.high.ravel().astype(float)
            self._is_bounded = bool(np.isfinite(self._low).all() and np.isfinite(self._high).all())
            self._half_range = 0.5 * (self._high - self._low)

    def convert(self, action: np.ndarray) -> np.ndarray:
        """Convert a policy's actions [N, ...] to the environment's [N, *shape]."""
        if self._is_box:
            if self._is_bounded:
                action = self._low + (np.minimum(np.maximum(action, -1.0), 1.0) + 1.0) * self._half_range
            if self._dtype.kind in "iu":
                action = np.rint(action)
            action = np.minimum(np.maximum(action, self._low), self._high)
        elif not self._is_binary:
            action = action + np.ravel(self._start)
        return action.reshape(len(action), *self._shape).astype(self._dtype)
