"""Convolutional networks against torch's own layers, and that a Session's bits do not depend on the stack (law 1)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lab.errors import LabError
from lab.net.conv import Convolutional, ImpalaCNN, NatureCNN
from lab.net.net import Output
from lab.net.network import StackedNetwork
from lab.net.stacked import IMAGES
from tests.helpers import specs

COMMON: dict[str, Any] = {"channels": "auto", "hidden": [10], "activation": "relu", "shared": True, "gain": 1.4}
PLAIN = {**COMMON, "filters": [4, 3], "kernels": [4, 2], "strides": [2, 1]}
RESIDUAL = {**COMMON, "filters": [4, 5], "blocks": 2}
KINDS = {"plain": (NatureCNN, PLAIN), "residual": (ImpalaCNN, RESIDUAL)}


def images(shape: tuple[int, ...], kind: type = np.uint8) -> Box:
    return Box(0, 255, shape, kind)


def random_images(stack: int, batch: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(9).integers(0, 256, (stack, batch, *shape), np.uint8))


def build(kind: str, shape: tuple[int, ...], seeds: list[int], extra: int = 0, **changes: Any) -> StackedNetwork:
    cls, values = KINDS[kind]
    outputs = [Output("policy", 3, [0.5] * len(seeds)), Output("value", 1, [1.0] * len(seeds))]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    return cls(**{**values, **changes}).build(images(shape), outputs, rngs, extra)


def numbers(network: StackedNetwork, x: Tensor) -> list[Tensor]:
    """Return what a network gives and every gradient, by Session on the first axis."""
    results = network(x, "policy", "value")
    slope = torch.cos(torch.arange(x.shape[1], dtype=torch.float32))[None, :, None]
    loss = sum(((result * result + result) * slope).sum() for result in results)
    return [*(result.detach() for result in results), *torch.autograd.grad(loss, list(network.parameters()))]


def reference(kind: str, network: StackedNetwork, x: Tensor) -> Tensor:
    """Compute the policy of the only Session [B, 3] of images [B, C, H, W] by the functions of torch."""
    left = [value[0] for name, value in network.named_parameters() if not name.startswith("heads.value")]

    def take() -> tuple[Tensor, Tensor]:
        return left.pop(0), left.pop(0)

    x = x.to(left[0].dtype) / 255
    if kind == "plain":
        for stride in PLAIN["strides"]:
            x = functional.conv2d(x, *take(), stride=stride).relu()
    else:
        for _ in RESIDUAL["filters"]:
            x = functional.max_pool2d(functional.conv2d(x, *take(), padding=1), 3, 2, 1)
            for _ in range(RESIDUAL["blocks"]):
                inner = functional.conv2d(x.relu(), *take(), padding=1).relu()
                x = x + functional.conv2d(inner, *take(), padding=1)
        x = x.relu()
    x = x.flatten(1)
    while left:
        weight, bias = take()
        weight = weight if weight.shape[1] == x.shape[1] and weight.shape[0] == bias.shape[1] else weight.T
        x = functional.linear(x, weight, bias[0])
        x = x.relu() if left else x
    return x


@pytest.mark.parametrize("shape", [(2, 9, 11), (9, 11, 2)], ids=["first", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_are_torchs_layers(kind: str, shape: tuple[int, int, int]) -> None:
    network = build(kind, shape, [4])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    x = random_images(1, 6, shape)
    pixels = x[0] if shape[0] == 2 else x[0].permute(0, 3, 1, 2)
    assert torch.allclose(network(x, "policy")[0][0], reference(kind, network, pixels), atol=1e-5)
    assert torch.equal(network(x, "value", "policy")[1], network(x, "policy")[0])


def test_bytes_and_the_same_numbers_as_floats_give_the_same() -> None:
    x = random_images(1, 6, (2, 9, 11))
    for precision, tolerance in (("float32", 1e-6), ("bfloat16", 0.01)):
        network = build("plain", (2, 9, 11), [4], precision=precision)
        assert torch.allclose(network(x, "policy")[0], network(x / 255, "policy")[0], atol=tolerance)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_torchs_layers_in_float64(kind: str, precision: str) -> None:
    """Of a batch that is processed in several parts, the last of which is smaller."""
    network, x = build(kind, (2, 12, 12), [4], precision=precision), random_images(1, 2 * IMAGES + 5, (2, 12, 12))
    names = [name for name, _ in network.named_parameters() if not name.startswith("heads.value")]
    (result,) = network(x, "policy")
    given = torch.autograd.grad(result.square().sum(), [dict(network.named_parameters())[name] for name in names])
    exact = copy.deepcopy(network).double()
    expected = reference(kind, exact, x[0])
    gradients = torch.autograd.grad(expected.square().sum(), [dict(exact.named_parameters())[name] for name in names])
    tolerance = 1e-5 if precision == "float32" else 0.03
    assert (result[0] - expected).norm() <= tolerance * expected.norm()
    for own, other in zip(given, gradients, strict=True):
        assert own.dtype == torch.float32
        assert (own - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 7, IMAGES + 6])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("plain", (9, 11, 3)), ("plain", (1, 16, 16)), ("residual", (9, 11, 3)), ("residual", (1, 5, 7))],
)
def test_law_1_of_a_convolutional_network(
    kind: str, shape: tuple[int, ...], activation: str, batch: int, precision: str
) -> None:
    x, chosen = random_images(5, batch, shape), {"activation": activation, "precision": precision}
    stacked = numbers(build(kind, shape, [0, 1, 2, 3, 4], **chosen), x)
    for s in range(5):
        alone = numbers(build(kind, shape, [s], **chosen), x[s : s + 1])
        for several, one in zip(stacked, alone, strict=True):
            assert torch.equal(several[s], one[0])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_trunk_is_given_stays_as_it_was(kind: str) -> None:
    x = torch.rand(1, 2, 3, 9, 9)
    before = x.clone()
    build(kind, (3, 9, 9), [0], activation="tanh")(x, "policy", "value")
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", KINDS)
def test_extra_numbers_stand_behind_what_is_seen(kind: str) -> None:
    network, x = build(kind, (9, 9, 1), [0], extra=2), random_images(1, 4, (9, 9, 1))
    some, others = (network(x, "value", extra=torch.full((1, 4, 2), number))[0] for number in (0.0, 1.0))
    assert not torch.equal(some, others)
    plain = network.trunks["value"].hidden[0]
    assert plain.inputs == build(kind, (9, 9, 1), [0]).trunks["value"].hidden[0].inputs + 2


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=3))
@settings(max_examples=50)
def test_sizes_are_those_of_torchs_layers(pixels: int, layers: list[tuple[int, int]]) -> None:
    kernels, strides = [kernel for kernel, _ in layers], [stride for _, stride in layers]
    net = NatureCNN(**{**PLAIN, "filters": [1] * len(layers), "kernels": kernels, "strides": strides})
    x = torch.zeros(1, 1, 6, pixels)
    for kernel, stride in layers:
        if x.shape[3] < kernel:
            assert net.size(pixels) < 1
            return
        x = nn.functional.max_pool2d(x, (1, kernel), (1, stride))
    assert net.size(pixels) == x.shape[3]


@pytest.mark.parametrize("pixels", range(1, 20))
def test_sizes_of_residual_sections(pixels: int) -> None:
    x = torch.zeros(1, 1, 1, pixels)
    for _ in RESIDUAL["filters"]:
        x = functional.max_pool2d(x, (1, 3), (1, 2), (0, 1))
    assert ImpalaCNN(**RESIDUAL).size(pixels) == x.shape[3]


@pytest.mark.parametrize(
    ("shape", "channels", "image"),
    [
        ((84, 84, 4), "auto", (4, 84, 84)),
        ((4, 84, 84), "auto", (4, 84, 84)),
        ((3, 50, 3), "auto", (3, 3, 50)),
        ((10, 20, 12), "last", (12, 10, 20)),
        ((10, 20, 5), "first", (10, 20, 5)),
    ],
)
def test_which_axis_is_that_of_channels(shape: tuple[int, ...], channels: str, image: tuple[int, ...]) -> None:
    assert NatureCNN(**{**PLAIN, "channels": channels}).image(images(shape)) == image


def layers(network: StackedNetwork) -> list[tuple[int, ...]]:
    """Return the shapes of the weights, without the session axis."""
    return [tuple(value.shape[1:]) for name, value in network.named_parameters() if name.endswith("weight")]


def net_of(*overrides: str) -> Convolutional:
    return specs("env=gymnasium", "env.id=tests.envs:Picture-v0", *overrides)[0].net  # type: ignore[return-value]


def test_the_networks_in_conf_are_those_of_the_papers() -> None:
    outputs, rngs = [Output("policy", 18, [1.0])], [np.random.default_rng(0)]
    nature = net_of("net=nature").build(images((4, 84, 84)), outputs, rngs)
    assert layers(nature) == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (3136, 512), (512, 18)]
    impala = net_of("net=impala").build(images((72, 96, 3)), outputs, rngs)
    assert sum(len(shape) == 4 for shape in layers(impala)) == 15
    assert layers(impala)[-2:] == [(9 * 12 * 32, 256), (256, 18)]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("net=nature net.channels=middle", "one of auto, first, last"),
        ("net=nature net.filters=[]", "one or more numbers"),
        ("net=nature net.kernels=[8,4]", "3 numbers, as many as net.filters"),
        ("net=nature net.strides=[4,2,0]", "each is a whole number, 1 or more"),
        ("net=nature net.hidden=[0]", "each is a whole number, 1 or more"),
        ("net=impala net.blocks=-1", "0 or more"),
        ("net=impala net.activation=rely", "Did you mean 'relu'"),
    ],
)
def test_values_that_are_not_allowed(overrides: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        net_of(*overrides.split())


def test_observations_that_are_no_images_and_images_that_are_too_small() -> None:
    with pytest.raises(LabError, match=r"net=nature needs images .* shape \(4,\): choose net=mlp"):
        net_of("net=nature").check_observations(Box(-1, 1, (4,)))
    with pytest.raises(LabError, match="Images of 16 x 16 are too small"):
        net_of("net=nature").check_observations(images((16, 16, 1)))
