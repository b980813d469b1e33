"""Recurrent networks against torch's own, and that a Session's bits do not depend on the stack (law 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lab.errors import LabError
from lab.net.cells import Cell, RecurrentNetwork
from lab.net.net import Output
from lab.net.recurrent import GRU, LSTM
from tests.helpers import specs

KINDS = {"gru": GRU, "lstm": LSTM}
T, M = 6, 3


def build(kind: str, seeds: list[int], **changes: Any) -> RecurrentNetwork:
    values = {"hidden": [7], "activation": "tanh", "size": 5, "burn_in": 0, "shared": False, "gain": 1.0, **changes}
    outputs = [Output("policy", 2, [1.0] * len(seeds)), Output("value", 1, [1.0] * len(seeds))]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    network = KINDS[kind](**values).build(Box(-1, 1, (4,)), outputs, rngs)
    assert isinstance(network, RecurrentNetwork)
    return network


def sequences(network: RecurrentNetwork, stack: int, length: int = T, number: int = M) -> tuple[Tensor, Tensor, Tensor]:
    """Return observations [S, M * T, 4], what is carried to them [S, M, K], and which steps begin an episode."""
    rng = np.random.default_rng(7)
    x = torch.tensor(rng.standard_normal((5, number * length, 4)), dtype=torch.float32)
    carry = torch.tensor(rng.standard_normal((5, number, network.carry_size)), dtype=torch.float32)
    begins = torch.tensor(rng.random((5, number * length)) < 0.3, dtype=torch.float32)
    return x[:stack], carry[:stack], begins[:stack]


def theirs(kind: str, cell: Cell) -> nn.RNNBase:
    """Return torch's layer with the weights of the only Session, its gates in torch's own order."""
    layer = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](cell.input_gates.inputs, cell.size)
    order = [0, 1, 2] if kind == "gru" else [0, 1, 3, 2]
    for part, suffix in ((cell.input_gates, "ih_l0"), (cell.hidden_gates, "hh_l0")):
        weight = (part.weight[0] if part.transposed else part.weight[0].T).detach()
        for name, values in (("weight", weight), ("bias", part.bias[0, 0].detach())):
            gates = values.chunk(len(order))
            getattr(layer, f"{name}_{suffix}").data = torch.cat([gates[k] for k in order])
    return layer


@pytest.mark.parametrize("size", [5, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_torchs(kind: str, size: int) -> None:
    network = build(kind, [3], size=size)
    trunk = network.trunks["policy"]
    with torch.no_grad():
        trunk.cell.hidden_gates.bias.add_(0.3)
        trunk.cell.input_gates.bias.add_(torch.linspace(-1, 1, trunk.cell.input_gates.outputs))
    x, carry, _ = sequences(network, 1)
    part = network.split(carry)[trunk]
    ours = trunk.unroll(x, part, torch.zeros(1, M * T), 0)[0]
    encoded = trunk.encoder(x)[0].view(M, T, 7).transpose(0, 1)
    states = tuple(state.contiguous()[None] for state in part[0].split(size, -1))
    expected, _ = theirs(kind, trunk.cell)(encoded, states[0] if kind == "gru" else states)
    assert torch.allclose(ours, expected.transpose(0, 1).flatten(0, 1), atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_unrolling_is_stepping_with_the_memory_emptied_where_episodes_begin(kind: str, shared: bool) -> None:
    network = build(kind, [0, 1], shared=shared)
    assert network.carry_size == 5 * (1 if kind == "gru" else 2) * (1 if shared else 2)
    x, carry, begins = sequences(network, 2)
    assert 0 < begins.sum() < begins.numel()
    policy, value = network.unroll(x, carry, begins, "policy", "value")
    remembered = carry
    for t in range(T):
        rows = torch.arange(M) * T + t
        remembered = remembered * (1 - begins[:, rows, None])
        (one_value, one_policy), remembered = network.step(x[:, rows], remembered, "value", "policy")
        assert torch.allclose(policy[:, rows], one_policy, atol=1e-6)
        assert torch.allclose(value[:, rows], one_value, atol=1e-6)
    assert torch.allclose(network.unroll(x, carry, begins, "value")[0], value, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_trunk_remembers_whatever_output_is_asked_for(kind: str) -> None:
    network = build(kind, [0])
    x, carry, _ = sequences(network, 1)
    after = [network.step(x[:, :M], carry, *outputs)[1] for outputs in (("policy",), ("value", "policy"))]
    assert torch.equal(*after)
    assert not (after[0] == carry).any()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_learned_from_burn_in(kind: str) -> None:
    warm, cold = build(kind, [0], burn_in=2), build(kind, [0])
    x, carry, _ = sequences(cold, 1)
    begins = torch.zeros(1, M * T)
    assert torch.equal(warm.unroll(x, carry, begins, "policy")[0], cold.unroll(x, carry, begins, "policy")[0])
    late = (torch.arange(M * T) % T >= 2).float()[None, :, None]
    parameters = list(warm.trunks["policy"].parameters())
    gradients = torch.autograd.grad((warm.unroll(x, carry, begins, "policy")[0] * late).sum(), parameters)
    # The same as sequences that begin later, with what two steps left behind.
    with torch.no_grad():
        remembered = carry
        for t in range(2):
            remembered = cold.step(x[:, torch.arange(M) * T + t], remembered, "policy")[1]
    rest = x.view(1, M, T, 4)[:, :, 2:].flatten(1, 2)
    shorter = cold.unroll(rest, remembered, begins[:, : M * (T - 2)], "policy")[0].sum()
    expected = torch.autograd.grad(shorter, list(cold.trunks["policy"].parameters()))
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def numbers(network: RecurrentNetwork, x: Tensor, carry: Tensor, begins: Tensor) -> list[Tensor]:
    """Return what a network gives and every gradient, by Session on the first axis."""
    results = network.unroll(x, carry, begins, "policy", "value")
    loss = sum((result * result + result).sum() for result in results)
    stepped = network.step(x[:, : carry.shape[1]], carry, "policy")[1]
    return [*results, stepped, *torch.autograd.grad(loss, list(network.parameters()))]


@pytest.mark.parametrize("number", [1, 2, 8])
@pytest.mark.parametrize("size", [2, 5, 16, 33])
@pytest.mark.parametrize("kind", KINDS)
def test_law_1_of_a_recurrent_network(kind: str, size: int, number: int) -> None:
    stacked = build(kind, [0, 1, 2, 3, 4], size=size, hidden=[6], activation="relu")
    given = sequences(stacked, 5, 9, number)
    several = numbers(stacked, *given)
    for s in range(5):
        alone = build(kind, [s], size=size, hidden=[6], activation="relu")
        for one, other in zip(numbers(alone, *(part[s : s + 1] for part in given)), several, strict=True):
            assert torch.equal(other[s], one[0])


def test_the_forget_gate_is_open_at_first() -> None:
    cell = build("lstm", [0, 1]).trunks["policy"].cell
    assert cell.input_gates.bias[1, 0].tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("net.size=1", "net.size=1 is not allowed: net.size must be a whole number, 2 or more"),
        ("net.hidden=[0]", "each is a whole number, 1 or more"),
        ("net.activation=tahn", "Did you mean 'tanh'"),
        ("net.burn_in=-1", "a whole number, 0 or more"),
        ("net.burn_in=200", "less than algo.horizon"),
        ("algo=ppo algo.horizon=64 algo.batch_size=32", "a multiple of algo.horizon=64 .* whole sequences"),
        ("algo=dqn", "algo=dqn cannot learn with net=gru, .* Choose another network"),
    ],
)
def test_mistakes_are_sentences(overrides: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs("net=gru", *overrides.split())
