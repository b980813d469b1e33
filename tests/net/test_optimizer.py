"""Stacked optimizers against torch's own, one Session at a time."""

from __future__ import annotations

import pytest
import torch

from lab.net.optimizer import NAMES, Optimizer, OptimizerSpec

THEIRS = {
    "adam": lambda p, lr: torch.optim.Adam([p], lr, betas=(0.8, 0.95), eps=1e-4),
    "rmsprop": lambda p, lr: torch.optim.RMSprop([p], lr, momentum=0.8, alpha=0.95, eps=1e-4),
    "sgd": lambda p, lr: torch.optim.SGD([p], lr, momentum=0.8),
}
RATES = torch.tensor([[1e-1], [1e-2], [1e-3]])


def make(name: str, values: torch.Tensor) -> Optimizer:
    return Optimizer(OptimizerSpec(name=name, beta1=0.8, beta2=0.95, eps=1e-4), values)


@pytest.mark.parametrize("name", NAMES)
def test_each_session_steps_as_with_torch_at_its_own_rate(name: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 32)
    params = [torch.nn.Parameter(row.clone()) for row in values]
    theirs = [THEIRS[name](param, float(rate)) for param, rate in zip(params, RATES, strict=True)]
    ours = make(name, values)
    for _ in range(10):
        gradients = torch.randn(3, 32)
        ours.step(gradients, RATES, torch.ones(3, 1))
        for param, optimizer, gradient in zip(params, theirs, gradients, strict=True):
            param.grad = gradient
            optimizer.step()
    assert torch.allclose(values, torch.stack(list(params)), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_session_that_has_stopped_stays_exactly_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    values, alone = torch.randn(3, 32), torch.empty(3, 32)
    alone.copy_(values)
    ours, reference = make(name, values), make(name, alone)
    active = torch.tensor([[1.0], [0.0], [1.0]])
    for number in range(6):
        gradients = torch.randn(3, 32)
        stopped = number in (0, 3, 4)
        before = values[1].clone()
        ours.step(gradients, RATES, active if stopped else torch.ones(3, 1))
        assert torch.equal(values[1], before) == stopped
        if not stopped:
            reference.step(gradients, RATES, torch.ones(3, 1))
    assert torch.equal(values[1], alone[1]), "it goes on as if the steps it did not take had never been"


def test_state_can_be_carried_over() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 32), torch.zeros(2, 32)
    ours, other = make("adam", first), make("adam", second)
    ours.step(torch.randn(2, 32), RATES[:2], torch.ones(2, 1))
    second.copy_(first)
    for s in range(2):
        other.restore(s, ours.session(s))
    gradients = torch.randn(2, 32)
    for optimizer in (ours, other):
        optimizer.step(gradients, RATES[:2], torch.ones(2, 1))
    assert torch.equal(first, second)
