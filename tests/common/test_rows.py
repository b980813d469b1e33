"""Rows of several parts."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from lab.common.rows import ActionMask, Row, network_observations
from lab.env.spaces import Spaces, flatten
from tests.envs import Base

CAMERA = Box(0, 255, (2, 2, 1), np.uint8)
ARM = Box(-9, 9, (3,), np.float64)


class Shows(Base):
    """Has a given observation space."""

    def __init__(self, space: Box | Dict | Tuple | Discrete) -> None:
        self.observation_space = space


def read(space: Box | Dict | Tuple | Discrete) -> Spaces:
    return Spaces.read("env.id=x", Shows(space))


def test_vectors_alone_are_flat_and_an_image_alone_keeps_its_shape() -> None:
    assert read(Dict(arm=ARM, door=Discrete(2))).observation == Box(-np.inf, np.inf, (5,), np.float32)
    assert read(CAMERA).observation == CAMERA
    assert read(Dict(camera=CAMERA)).observation.inner.shape == (2, 2, 1)
    gray = Box(0, 255, (8, 8), np.uint8)  # no image without an axis of channels, as in Stable-Baselines3
    assert read(Dict(gray=gray, arm=ARM)).observation == Box(-np.inf, np.inf, (67,), np.float32)


def test_the_parts_of_a_row_by_hand() -> None:
    space = Dict(camera=Tuple((CAMERA, CAMERA)), arm=ARM, door=Discrete(2, start=5))
    row = read(space).observation
    assert isinstance(row, Row)
    assert [(part.space.shape, part.columns) for part in row.parts] == [
        ((2, 2, 1), slice(0, 4)), ((2, 2, 1), slice(4, 8)), ((3,), slice(8, 11)), ((), slice(11, 13)),
    ]  # fmt: skip
    assert row.normalized.tolist() == [8, 9, 10]
    image = np.array([0, 51, 102, 255], np.uint8).reshape(2, 2, 1)
    flat = flatten(space, {"camera": (image, image[::-1]), "arm": np.array([-1.5, 0, 2]), "door": 6})
    assert flat.dtype == np.float32
    assert flat.tolist() == [0, 51, 102, 255, 102, 255, 0, 51, -1.5, 0, 2, 0, 1]
    selected = row.select(torch.from_numpy(flat)[None, None])
    expected = [0, 0.2, 0.4, 1, 0.4, 1, 0, 0.2, -1.5, 0, 2, 0, 1]
    assert torch.allclose(selected, torch.tensor(expected)[None, None])
    unscaled = Spaces.unscaled(read(space)).observation
    assert torch.equal(unscaled.select(torch.from_numpy(flat)[None, None])[0, 0], torch.from_numpy(flat))


def test_a_mask_begins_a_row_and_is_taken_off() -> None:
    for inner, shape in ((ARM, (3,)), (Discrete(4), (4,)), (CAMERA, (2, 2, 1)), (Dict(a=ARM, b=CAMERA), (7,))):
        spaces = read(Dict({"observation": inner, "action_mask": ActionMask(2)}))
        row = spaces.observation
        assert (row.mask, spaces.has_mask, network_observations(row).shape) == (2, True, shape)
        rows = torch.arange(float(np.prod(row.shape))).view(1, 1, -1)
        assert row.select(rows).shape == (1, 1, *shape)
        assert row.select(rows).flatten()[0] in (2.0, 2 / 255)
        assert isinstance(network_observations(row), Row) == isinstance(inner, Dict)
