"""Networks for observations of several parts: against a reference of torch, and where they are chosen by themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import nn

from lab.common.rows import ActionMask
from lab.env.spaces import Spaces, flatten
from lab.errors import LabError
from lab.net.multi import Multi, choose_net
from lab.net.net import Output
from lab.run.files import read_yaml
from lab.training.lockstep import check_spaces
from tests.common.test_rows import Shows
from tests.helpers import lab, specs

ROBOT = ("env=gymnasium", "env.id=tests.envs:Robot-v0", "name=robot")
CHANNELS_LAST = Box(0, 255, (12, 10, 3), np.uint8)
CHANNELS_FIRST = Box(-3, 3, (2, 36, 40), np.float32)
ARM = Box(-1, 1, (4,), np.float64)


def build(space: Any, stack: int = 2, extra: int = 0, **keys: Any) -> tuple[Any, Spaces]:
    net = specs("net=multi")[0].net
    for key, value in keys.items():
        setattr(net, key, value)
    spaces = Spaces.read("env.id=x", Shows(space))
    rngs = [np.random.default_rng(seed) for seed in range(stack)]
    return net.build(spaces.observation, [Output("value", 3, [1.0] * stack)], rngs, extra), spaces


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("extra", [0, 2])
def test_every_part_passes_its_layers_and_all_are_joined(masked: bool, extra: int) -> None:
    space = Dict(arm=ARM, camera=CHANNELS_LAST, door=Discrete(3), wide=CHANNELS_FIRST)
    outer = Dict({"action_mask": ActionMask(5), "observation": space}) if masked else space
    network, _ = build(outer, extra=extra, image_hidden=[6], vector_hidden=[5], hidden=[7], convolutions="auto")
    outer.seed(0)
    samples = [outer.sample() for _ in range(4)]
    rows = torch.from_numpy(np.stack([flatten(outer, sample) for sample in samples]))
    given = torch.randn(4, extra) if extra else None
    both = None if given is None else given.expand(2, 4, extra)
    (result,) = network(rows.expand(2, *rows.shape), "value", extra=both)
    trunk, head = network.trunks["value"], network.heads["value"]
    parts = [sample["observation"] if masked else sample for sample in samples]

    def linear(layer: Any, x: torch.Tensor, s: int) -> torch.Tensor:
        return x @ (layer.weight[s].mT if layer.transposed else layer.weight[s]) + layer.bias[s]

    for s in range(2):
        images = []
        for index, name in enumerate(("camera", "wide")):
            values = torch.from_numpy(np.stack([part[name] for part in parts])).float()
            values = values.movedim(-1, 1) / 255 if name == "camera" else values
            layers = trunk.images[index]
            own = {key: value[s] for key, value in layers.convolutions.module.named_parameters()}
            features = torch.func.functional_call(layers.convolutions.module, own, (values,))
            images.append(linear(layers.hidden[0], features, s).relu())
        numbers = [np.concatenate([part["arm"], np.eye(3)[part["door"]]]) for part in parts]
        vector = linear(trunk.vectors[0], torch.from_numpy(np.stack(numbers)).float(), s).relu()
        joined = torch.cat([*images, vector, *([] if given is None else [given])], -1)
        expected = linear(head, linear(trunk.joined[0], joined, s).relu(), s)
        assert torch.allclose(result[s], expected, atol=1e-4)
    kinds = [[type(layer) for layer in image.convolutions.module] for image in trunk.images]
    assert nn.MaxPool2d in kinds[0], "a small image has the layers of impala"
    assert nn.MaxPool2d not in kinds[1], "a large one those of nature"


@pytest.mark.parametrize("space", [ARM, Dict(arm=ARM, door=Discrete(2)), CHANNELS_LAST, Dict(camera=CHANNELS_LAST)])
def test_it_serves_any_observations(space: Any) -> None:
    network, spaces = build(space, image_hidden=[4])
    rows = torch.from_numpy(flatten(space, space.sample())).expand(2, 1, *spaces.observation.shape)
    assert network(rows, "value")[0].shape == (2, 1, 3)


def test_layers_between_which_is_a_normalization() -> None:
    network, _ = build(Dict(arm=ARM, camera=CHANNELS_LAST), norm="layer")
    names = [type(layer).__name__ for layer in network.trunks["value"].joined]
    assert names == ["Linear", "LayerNorm", "Activation"] * 2


def test_it_is_chosen_by_itself_where_no_net_is() -> None:
    net = specs("net.hidden=[9]", "net.activation=tanh")[0].net
    spaces = Spaces.read("env.id=x", Shows(Dict(arm=ARM, camera=CHANNELS_LAST)))
    assert choose_net(net, spaces.observation.inner) is net, "it counts as chosen unless the command line says"
    net.named = frozenset()
    chosen = choose_net(net, spaces.observation.inner)
    expected = specs("net=multi", "net.hidden=[9]", "net.activation=tanh")[0].net
    assert (chosen, type(chosen), chosen.shared) == (expected, Multi, True)
    net.named = frozenset({"net.shared"})
    assert choose_net(net, spaces.observation.inner) == dataclasses.replace(expected, shared=False)
    net.named = frozenset()
    assert choose_net(net, Spaces.read("env.id=x", Shows(CHANNELS_LAST)).observation) == expected
    assert choose_net(net, Spaces.read("env.id=x", Shows(Dict(arm=ARM))).observation) is net


def test_the_command_line_chooses_it_unless_a_net_is_named(tmp_path: Path) -> None:
    small = ("algo=a2c", "frames=64", "eval.every=0", "log.tensorboard=false", "mode=dev")
    done = lab(*ROBOT, *small, "net.shared=false", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "Note: Observations have an image, so net=multi takes the place of net=mlp" in done.stderr
    net = read_yaml(tmp_path / "run" / "spec.yaml")["net"]
    assert (net["_target_"], net["shared"]) == ("lab.net.multi.Multi", False)
    again = lab(*ROBOT, *small, "net.shared=false", f"hydra.run.dir={tmp_path}/run")
    assert "already holds a Session (completed" in again.stderr, "the same spec"
    done = lab(*ROBOT, "net=mlp", f"hydra.run.dir={tmp_path}/mlp")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: net=mlp takes numbers, not images, and the observations have images of shape"
        " (8, 8, 1): choose net=multi.\n"
    )
    assert not (tmp_path / "mlp").exists()
    for name in ("gru", "nature", "impala"):
        with pytest.raises(LabError, match=r": choose net=multi\.$"):
            check_spaces(specs("algo=ppo", *ROBOT, f"net={name}"))


@pytest.mark.slow
def test_a_sweep_chooses_it_and_goes_on_with_it(tmp_path: Path) -> None:
    small = ("algo=a2c", "frames=64", "eval.every=0", "log.tensorboard=false", "algo.horizon=4", "env.num_envs=2")
    command = ("-m", *ROBOT, *small, "+env.kwargs.size=4", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    done = lab(*command)
    assert done.returncode == 0, done.stderr
    assert read_yaml(tmp_path / "sweep/seed-1/spec.yaml")["net"]["_target_"] == "lab.net.multi.Multi"
    again = lab(*command)
    assert again.returncode == 0, again.stderr
    refused = lab(*command, "net=mlp")
    assert refused.returncode == 2
    assert "takes numbers, not images, and the observations have images of shape (4, 4, 1)" in refused.stderr


def test_an_image_alone_is_no_observation_of_a_recurrent_network() -> None:
    net = specs("algo=ppo", "net=gru")[0].net
    with pytest.raises(
        LabError, match=r"net=gru takes numbers, not images, .* of shape \(12, 10, 3\): choose net=multi"
    ):
        net.check_observations(CHANNELS_LAST)


def test_a_wrapper_makes_an_image_flat_for_an_mlp() -> None:
    env: Any = gym.wrappers.FlattenObservation(Shows(CHANNELS_LAST))
    specs("net=mlp")[0].net.check_observations(Spaces.read("env.id=x", env).observation)
