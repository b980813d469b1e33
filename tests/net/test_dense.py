"""Layers that numpy computes, against torch's own and its autograd."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lab.net import dense
from lab.net.layers import Activation, Linear
from lab.net.mlp import MLP
from lab.net.net import Output
from lab.net.network import Parameters, StackedNetwork
from lab.net.normalization import BatchRenorm, sample_weights

S, B, INPUTS = 3, 5, 4


def build(hidden: list[int], activation: str = "tanh", norm: str = "none") -> tuple[StackedNetwork, Parameters]:
    torch.manual_seed(0)
    rngs = [np.random.default_rng(seed) for seed in range(S)]
    outputs = [Output("policy", 2, [1.0] * S), Output("value", 1, [1.0] * S)]
    net = MLP(hidden=hidden, activation=activation, shared=False, gain=1.0, norm=norm)
    network = net.build(Box(-1, 1, (INPUTS,)), outputs, rngs)
    parameters = Parameters(network)
    for layer in network.modules():
        if isinstance(layer, Linear | BatchRenorm):
            layer.bias.data.uniform_(-1, 1)
        if isinstance(layer, BatchRenorm):
            layer.weight.data.uniform_(0.5, 2)
            layer.mean.uniform_(-1, 1)
            layer.variance.uniform_(0.5, 2)
            layer.warmup = 10
            layer.batches.copy_(
                layer.warmup - 2 + torch.arange(S).view(S, 1, 1)
            )  # some are settled, some are about to be
    return network, parameters


def plainly(network: StackedNetwork, name: str, x: Tensor) -> Tensor:
    """Compute an output by torch's operations alone."""
    for layer in [*network.trunks[name], network.heads[name]]:
        if isinstance(layer, Activation):
            x = torch.tanh(x) if layer.name == "tanh" else torch.relu(x)
        elif isinstance(layer, BatchRenorm):
            x = layer(x)
        else:
            x = x @ (layer.weight.mT if layer.transposed else layer.weight) + layer.bias
    return x


@pytest.mark.parametrize("norm", ["none", "batch_renorm"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [[], [7], [20, 6]])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_autograd(
    hidden: list[int], activation: str, norm: str, training: bool
) -> None:
    network, parameters = build(hidden, activation, norm)
    network.train(training)
    assert set(network.dense) == {"policy", "value"}
    x, other = torch.randn(S, B, INPUTS), torch.randn(S, B, INPUTS)
    weight, share = torch.rand(S, B), sample_weights((torch.rand(S, B) > 0.3).float())
    for module in network.modules():
        if isinstance(module, BatchRenorm):
            module.sample_weights = share
    twin = copy.deepcopy(network)  # as a batch moves the running moments

    def losses(outputs: list[Tensor]) -> Tensor:
        first, second, value = outputs  # two of one network, whose gradients add up
        return first.square().sum(-1) + (second * value).sum(-1)

    for _ in range(2):  # as nothing of the first time may be left
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        ours = [network(x, "policy")[0], *network(other, "policy", "value")]
        parameters.backward(losses(ours), weight)
    twin.load_state_dict(before, strict=False)
    theirs = [plainly(twin, "policy", x), *(plainly(twin, name, other) for name in ("policy", "value"))]
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(ours, theirs, strict=True))
    buffers = dict(twin.named_buffers())
    assert all(torch.allclose(buffer, buffers[name], atol=1e-6) for name, buffer in network.named_buffers())
    found = dict(twin.named_parameters())
    expected = torch.autograd.grad((losses(theirs) * weight).sum(), [found[name] for name in parameters.named])
    small = 1e-5 * max(gradient.abs().max().item() for gradient in expected)
    for name, gradient in zip(parameters.named, expected, strict=True):
        for s in range(S):
            assert torch.allclose(parameters.session_gradients(s)[name], gradient[s], atol=small), name


@pytest.mark.parametrize("norm", ["none", "batch_renorm"])
def test_gradients_go_through_to_what_went_in_and_leave_other_networks_alone(norm: str) -> None:
    actor, actor_parameters = build([7], norm=norm)
    critic, critic_parameters = build([6], norm=norm)
    actor.eval()
    critic.eval()
    critic_parameters.gradients.fill_(7.0)
    x = torch.randn(S, B, INPUTS)

    def seen(action: Tensor) -> Tensor:
        return torch.cat([x[..., :2], action], -1)

    losses = critic(seen(actor(x, "policy")[0]), "value")[0].squeeze(-1)
    actor_parameters.backward(losses, torch.ones(S, B))
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
    parameters.backward(losses, torch.ones(S, B))
    network(x, "policy")


def test_other_layers_are_computed_by_torch() -> None:
    assert not dense.Dense.serves([Linear(4, 4, [1.0], [np.random.default_rng(0)]), Activation("gelu")])
    assert not dense.Dense.serves([Activation("tanh")])
    assert not dense.Dense.serves([nn.Linear(4, 4)])
    linear = Linear(4, 4, [1.0], [np.random.default_rng(0)])
    assert not dense.Dense.serves([linear, BatchRenorm(1, 4), Activation("tanh"), linear]), "it overwrites its input"
