from __future__ import annotations

from unittest.mock import patch

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import nn

from lab.net.layers import LANES
from lab.net.mlp import MLP
from lab.net.net import Output
from lab.net.network import Parameters


def build(shared: bool, stack: int = 3) -> tuple[nn.Module, Parameters]:
    net = MLP(hidden=[5, 6], activation="tanh", shared=shared, gain=1.0, norm="none")
    rngs = [np.random.default_rng(seed) for seed in range(stack)]
    network = net.build(
        Box(-1, 1, (4,)), [Output("policy", 2, [0.01] * stack), Output("value", 1, [1.0] * stack)], rngs
    )
    return network, Parameters(network)


def test_outputs_in_the_order_asked_for() -> None:
    network, _ = build(shared=False)
    x = torch.randn(3, 7, 4)
    policy, value = network(x, "policy", "value")
    assert policy.shape == (3, 7, 2)
    assert value.shape == (3, 7, 1)
    assert torch.equal(network(x, "value", "policy")[0], value)


def test_a_shared_trunk_is_one_and_is_computed_once() -> None:
    network, parameters = build(shared=True)
    assert network.trunks["policy"] is network.trunks["value"]
    assert len(parameters.leaves) == 4 + 4
    with patch.object(network.trunks["policy"], "forward", wraps=network.trunks["policy"].forward) as forward:
        network(torch.randn(3, 7, 4), "policy", "value")
    forward.assert_called_once()
    assert len(build(shared=False)[1].leaves) == 8 + 4


def test_parameters_live_in_one_buffer() -> None:
    network, parameters = build(shared=False)
    assert parameters.values.shape[1] % LANES == 0
    parameters.values.zero_()
    assert all(bool((leaf == 0).all()) for leaf in network.parameters())


def test_gradients_are_autograds_and_never_mix() -> None:
    network, parameters = build(shared=True)
    x = torch.randn(3, 7, 4)

    def loss() -> torch.Tensor:
        policy, value = network(x, "policy", "value")
        return (policy.square().sum((1, 2)) + value.sum((1, 2))) * torch.tensor([1.0, 0.0, 2.0])

    parameters.backward(loss(), torch.ones(3))
    expected = torch.autograd.grad(loss().sum(), list(network.parameters()))
    for (name, _), gradient in zip(network.named_parameters(), expected, strict=True):
        for s in range(3):
            assert torch.equal(parameters.session_gradients(s)[name], gradient[s])
    assert not parameters.gradients[1].any()


def test_a_session_can_be_saved_and_restored_in_another_stack() -> None:
    _, parameters = build(shared=False)
    network, others = build(shared=False, stack=1)
    others.values.zero_()
    others.restore(0, parameters.session(2))
    assert torch.equal(others.values[0], parameters.values[2])
    assert network(torch.randn(1, 2, 4), "policy")[0].abs().sum() > 0
