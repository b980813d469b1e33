"""Pieces of the policy gradient by hand, and whole learning steps against a slow reference."""

from __future__ import annotations

import math

import pytest
import torch

from lab.algo import on_policy
from lab.algo.ppo import clipped
from tests.helpers import specs


def test_share_average_and_normalize_leave_out_what_is_not_usable() -> None:
    weight = on_policy.share(torch.tensor([[1.0, 1.0, 0.0]]))
    assert weight.tolist() == [[0.5, 0.5, 0.0]]
    values = torch.tensor([[1.0, 3.0, 100.0]])
    assert on_policy.average(values, weight).tolist() == [2.0]
    assert on_policy.normalize(values, weight)[0, :2].tolist() == pytest.approx([-1.0, 1.0])
    assert on_policy.share(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


def test_approximate_kl_by_hand() -> None:
    log_ratio = torch.tensor([0.0, math.log(2)])
    assert on_policy.approximate_kl(log_ratio).tolist() == pytest.approx([0.0, 1 - math.log(2)])


def test_explained_variance_by_hand() -> None:
    weight, returns = torch.full((1, 4), 0.25), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert on_policy.explained_variance(returns, returns, weight).tolist() == [1.0]
    assert on_policy.explained_variance(torch.zeros(1, 4), returns, weight).tolist() == [0.0]


@pytest.mark.parametrize("advantage", [-2.0, -0.5, 0.0, 0.5, 2.0])
def test_clipped_is_the_papers_objective(advantage: float) -> None:
    ratio = torch.linspace(0.1, 2, 50)
    target = torch.full_like(ratio, advantage)
    paper = torch.minimum(ratio * target, ratio.clamp(0.8, 1.2) * target)
    assert torch.allclose(torch.minimum(ratio * target, clipped(target, 0.2)), paper)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("lr", 0.0, "above 0"),
        ("gamma", 1.5, "from 0 to 1"),
        ("optimizer.lr_schedule", "lineal", "Did you mean 'linear'"),
        ("horizon", 0, "1 step or more"),
        ("optimizer.max_grad_norm", -1.0, "above 0"),
    ],
)
def test_values_that_are_not_allowed(key: str, value: object, sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        specs(f"algo.{key}={value}")
