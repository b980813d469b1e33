"""Observation spaces that no network takes, and conversions of actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

from lab.env.spaces import ActionConverter, Spaces, holds_codes
from lab.env.vector import probe
from lab.errors import LabError
from tests.common.test_rows import Shows
from tests.helpers import lab, specs

GRAPH = Graph(Box(0, 1, (2,)), None)
FILTER = r" Leave it out: 'env.wrappers=\[{name:FilterObservation,filter_keys:\[arm\]}\]'\.$"


class Mission(gym.Space[str]):
    """A space of a class of its own, as MiniGrid's."""


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (Text(5), r"has the space Text in its observations, which no network here can take\.$"),
        (Sequence(Discrete(3)), "has the space Sequence in its observations,"),
        (GRAPH, "has the space Graph in its observations,"),
        (Mission((), str), "has the space Mission in its observations,"),
        (Dict(arm=Discrete(2), note=Text(5)), rf"has the space Text in its observations\['note'\], .*{FILTER}"),
        (Dict(arm=Discrete(2), all=Dict(net=Tuple((GRAPH,)))), rf"Graph in .*\['all'\]\['net'\]\[0\].*{FILTER}"),
        (Tuple((Discrete(2), Sequence(Discrete(2)))), r"Sequence in its observations\[1\], which no network .*take\.$"),
    ],
)  # fmt: skip
def test_texts_sequences_and_graphs_are_refused(space: Any, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        Spaces.read("env.id=x", Shows(space))


def test_a_text_is_a_sentence_of_the_command_line(tmp_path: Path) -> None:
    wrappers = "env.wrappers=[OrderEnforcing,{name: ClipReward, min_reward: -1}]"
    done = lab("env=gymnasium", "env.id=tests.envs:Told-v0", wrappers, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "has the space Text in its observations['note'], which no network here can take. Leave it" in done.stderr
    kept = "'env.wrappers=[OrderEnforcing,{name:ClipReward,min_reward:-1},{name:FilterObservation,filter_keys:["
    assert kept in done.stderr
    assert "Traceback" not in done.stderr


def test_codes_in_a_part() -> None:
    space = Dict(tiles=Box(0, 255, (2, 2, 1), np.uint8), at=Discrete(3))
    codes = {"tiles": np.full((2, 2, 1), 9, np.uint8), "at": 1}
    assert holds_codes(space, [codes, codes])
    assert not holds_codes(space, [codes, codes | {"tiles": np.full((2, 2, 1), 90, np.uint8)}])
    assert not holds_codes(Dict(at=Discrete(3)), [{"at": 1}])


@pytest.mark.parametrize(
    ("space", "actions", "converted"),
    [
        (Discrete(3, start=-1), [0, 2], [-1, 1]),
        (MultiDiscrete([2, 3], start=[3, -3]), [[0, 0], [1, 2]], [[3, -3], [4, -1]]),
        (MultiDiscrete([[2, 3], [4, 5]]), [[1, 2, 3, 4]], [[[1, 2], [3, 4]]]),
        (MultiBinary([2, 2]), [[0, 1, 1, 0]], [[[0, 1], [1, 0]]]),
        (Box(-1, 3, (1,), np.float32), [[-1.0], [0.0], [1.0], [5.0]], [[-1], [1], [3], [3]]),
        (Box(np.array([0, -10], np.float32), np.array([1, 10], np.float32)), [[0.0, 0.5]], [[0.5, 5]]),
        (Box(0, 4, (2, 2), np.float64), [[-1.0, 0.0, 0.5, 1.0]], [[[0, 2], [3, 4]]]),
        (Box(0, 10, (1,), np.int32), [[-1.0], [0.09], [1.0]], [[0], [5], [10]]),
        (Box(0, 255, (1,), np.uint8), [[-3.0], [3.0]], [[0], [255]]),
        (Box(0, np.inf, (1,), np.float32), [[-2.0], [7.5]], [[0], [7.5]]),
        (Box(-np.inf, 1, (1,), np.float32), [[-2.0], [7.5]], [[-2], [1]]),
        (Box(np.array([0, -np.inf], np.float32), np.array([2, np.inf], np.float32)), [[1.0, -9.0]], [[1, -9]]),
        (Box(-np.inf, np.inf, (1,), np.float32), [[-2.0]], [[-2]]),
    ],
)
def test_actions_in_units_of_the_environment(space: Any, actions: list[Any], converted: list[Any]) -> None:
    given = np.array(actions, np.int64 if isinstance(actions[0], int) or isinstance(actions[0][0], int) else np.float32)
    result = ActionConverter(space).convert(given)
    assert np.allclose(result, converted)
    for one in result:
        assert space.contains(one), one


@pytest.mark.parametrize(
    ("shape", "noted"), [("[16,16]", True), ("[2,16,8,1]", True), ("[256]", False), ("[64,4]", False)]
)
def test_images_without_three_axes_are_noted(shape: str, noted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    picture = ("env=gymnasium", "env.id=tests.envs:Picture-v0")
    probe(specs(*picture, f"env.wrappers=[{{name: ReshapeObservation, shape: {shape}}}]")[0].env)
    text = f"Note: The bytes of shape ({shape[1:-1].replace(',', ', ')}) that env.id=tests.envs:Picture-v0 observes are"
    assert (text in capsys.readouterr().err) == noted
