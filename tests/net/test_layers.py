"""Layers: their arithmetic, and that a Session's bits do not depend on the stack (law 1)."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from lab.net.layers import ACTIVATIONS, Activation, Linear, orthogonal
from lab.net.net import ActivationName

WIDTHS = [(4, 64), (64, 64), (64, 2), (64, 1), (6, 7), (7, 5), (5, 3), (1, 7), (1, 1), (10, 20), (17, 33)]
BATCHES = [1, 8, 21, 256]


def generators(stack: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(stack)]


def numbers(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return what a module gives and every gradient, by Session on the first axis."""
    x = x.clone().requires_grad_()
    y = module(x * 1.0)
    slope = torch.cos(torch.arange(y.shape[1], dtype=torch.float32))[None, :, None]
    return [y.detach(), *torch.autograd.grad((y * y * slope).sum(), [x, *module.parameters()])]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
def test_law_1_of_a_linear_layer(inputs: int, outputs: int, batch: int) -> None:
    rngs = generators(5)
    x = torch.from_numpy(np.random.default_rng(9).standard_normal((5, batch, inputs), dtype=np.float32))
    stacked = numbers(Linear(inputs, outputs, [1.0] * 5, rngs), x)
    for s in range(5):
        alone = numbers(Linear(inputs, outputs, [1.0], [np.random.default_rng(s)]), x[s : s + 1])
        # With inputs of width 1 nothing below the layer learns, so their gradient is not asked for.
        for index, (several, one) in enumerate(zip(stacked, alone, strict=True)):
            if not (inputs == 1 and index == 1):
                assert torch.equal(several[s], one[0]), ("output", "input", "weight", "bias")[index]


@pytest.mark.parametrize("width", [7, 64])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_law_1_of_an_activation(name: str, batch: int, width: int) -> None:
    x = 3 * torch.from_numpy(np.random.default_rng(9).standard_normal((5, batch, width), dtype=np.float32))
    stacked = numbers(Activation(name), x)
    for s in range(5):
        for several, one in zip(stacked, numbers(Activation(name), x[s : s + 1]), strict=True):
            assert torch.equal(several[s], one[0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs(name: str) -> None:
    x = torch.linspace(-4, 4, 50).view(1, 10, 5)
    theirs = getattr(torch.nn.functional, name)(x)
    assert torch.allclose(Activation(name)(x.clone()), theirs, atol=1e-6)


def test_activations_in_the_schema_are_those_there_are() -> None:
    assert set(get_args(ActivationName)) == set(ACTIVATIONS)


def test_linear_is_torchs() -> None:
    for inputs, outputs in WIDTHS:
        ours = Linear(inputs, outputs, [1.0, 2.0], generators(2))
        ours.bias.data.normal_()
        x = torch.randn(2, 3, inputs)
        for s in range(2):
            weight = ours.weight[s] if ours.transposed else ours.weight[s].T
            assert torch.allclose(ours(x)[s], torch.nn.functional.linear(x[s], weight, ours.bias[s, 0]), atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 4), (4, 6), (5, 5), (1, 3)])
def test_orthogonal(inputs: int, outputs: int) -> None:
    weight = orthogonal(np.random.default_rng(0), inputs, outputs, gain=2.0)
    product = weight.T @ weight if inputs >= outputs else weight @ weight.T
    assert np.allclose(product, 4 * np.eye(min(inputs, outputs)))
