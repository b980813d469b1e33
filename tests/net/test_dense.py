"""Layers that numpy computes, against torch's own and its autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.net import dense
from lab.net.layers import Activation, Linear
from lab.net.net import Output
from lab.net.network import FlatTrunk, Parameters, StackedNetwork, hidden_layers, with_heads

S, B, INPUTS = 3, 5, 4


def build(hidden: list[int], activation: str = "tanh") -> tuple[StackedNetwork, Parameters]:
    rngs = [np.random.default_rng(seed) for seed in range(S)]

    def trunk() -> FlatTrunk:
        return FlatTrunk(*hidden_layers(INPUTS, hidden, activation, 1.0, rngs))

    outputs = [Output("policy", 2, [1.0] * S), Output("value", 1, [1.0] * S)]
    network = StackedNetwork(*with_heads(trunk, hidden[-1] if hidden else INPUTS, False, outputs, rngs))
    parameters = Parameters(network)
    for layer in network.modules():
        if isinstance(layer, Linear):
            layer.bias.data.uniform_(-1, 1)
    return network, parameters


def plainly(network: StackedNetwork, name: str, x: Tensor) -> Tensor:
    """Compute an output by torch's operations alone."""
    for layer in [*network.trunks[name], network.heads[name]]:
        if isinstance(layer, Activation):
            x = torch.tanh(x) if layer.name == "tanh" else torch.relu(x)
        else:
            x = x @ (layer.weight.mT if layer.transposed else layer.weight) + layer.bias
    return x


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [[], [7], [20, 6]])
def test_outputs_and_gradients_are_those_of_autograd(hidden: list[int], activation: str) -> None:
    network, parameters = build(hidden, activation)
    assert set(network.dense) == {"policy", "value"}
    x, other = torch.randn(S, B, INPUTS), torch.randn(S, B, INPUTS)
    weight = torch.rand(S, B)

    def losses(outputs: list[Tensor]) -> Tensor:
        first, second, value = outputs  # two of one network, whose gradients add up
        return first.square().sum(-1) + (second * value).sum(-1)

    for _ in range(2):  # as nothing of the first time may be left
        ours = [network(x, "policy")[0], *network(other, "policy", "value")]
        parameters.differentiate(losses(ours), weight)
    theirs = [plainly(network, "policy", x), *(plainly(network, name, other) for name in ("policy", "value"))]
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(ours, theirs, strict=True))
    expected = torch.autograd.grad((losses(theirs) * weight).sum(), parameters.leaves)
    for name, gradient in zip(parameters.named, expected, strict=True):
        for s in range(S):
            assert torch.allclose(parameters.session_gradients(s)[name], gradient[s], atol=1e-5), name


def test_gradients_go_through_to_what_went_in_and_leave_other_networks_alone() -> None:
    actor, actor_parameters = build([7])
    critic, critic_parameters = build([6])
    critic_parameters.gradients.fill_(7.0)
    x = torch.randn(S, B, INPUTS)

    def seen(action: Tensor) -> Tensor:
        return torch.cat([x[..., :2], action], -1)

    losses = critic(seen(actor(x, "policy")[0]), "value")[0].squeeze(-1)
    actor_parameters.differentiate(losses, torch.ones(S, B))
    plain = plainly(critic, "value", seen(plainly(actor, "policy", x))).sum()
    leaves = [leaf for name, leaf in actor_parameters.named.items() if "policy" in name]
    expected = dict(zip(map(id, leaves), torch.autograd.grad(plain, leaves), strict=True))
    for name, leaf in actor_parameters.named.items():
        for s in range(S):
            gradient = expected[id(leaf)][s] if id(leaf) in expected else torch.zeros_like(leaf[s])
            assert torch.allclose(actor_parameters.session_gradients(s)[name], gradient, atol=1e-6), name
    assert bool((critic_parameters.gradients == 7.0).all())


def test_what_nobody_learns_from_is_an_error_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "MOST", 3)
    network, parameters = build([7])
    x = torch.randn(S, B, INPUTS)
    with torch.no_grad():
        for _ in range(9):
            network(x, "policy")
    for _ in range(3):
        losses = network(x, "policy")[0].sum(-1)
    with pytest.raises(RuntimeError, match=r"under torch\.no_grad"):
        network(x, "policy")
    parameters.differentiate(losses, torch.ones(S, B))
    network(x, "policy")


def test_other_layers_are_computed_by_torch() -> None:
    assert not dense.Dense.serves([Linear(4, 4, [1.0], [np.random.default_rng(0)]), Activation("gelu")])
    assert not dense.Dense.serves([Activation("tanh")])
    assert not dense.Dense.serves([nn.Linear(4, 4)])
