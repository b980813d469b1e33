"""Arithmetic of weighted samples by hand, and values that algorithms on policy refuse."""

from __future__ import annotations

import math

import pytest
import torch

from lab.algo.samples import (
    approx_kl,
    explained_variance,
    gather_actions,
    has_samples,
    normalize,
    sample_weights,
    weighted_mean,
)
from tests.helpers import specs


def test_weights_means_and_normalization_leave_out_masked_samples() -> None:
    weights = sample_weights(torch.tensor([[1.0, 1.0, 0.0]]))
    assert weights.tolist() == [[0.5, 0.5, 0.0]]
    values = torch.tensor([[1.0, 3.0, 100.0]])
    assert weighted_mean(values, weights).tolist() == [2.0]
    assert normalize(values, weights)[0, :2].tolist() == pytest.approx([-1.0, 1.0])
    assert sample_weights(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]
    assert has_samples(torch.tensor([[0.0, 0.0], [0.0, 0.5]])).tolist() == [[0.0], [1.0]]


def test_gather_actions_by_hand() -> None:
    action, values = torch.tensor([[1, 0]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert gather_actions(values, action).tolist() == [[2.0, 3.0]]
    assert gather_actions(torch.stack([values, -values], -1), action).tolist() == [[[2.0, -2.0], [3.0, -3.0]]]


def test_approx_kl_by_hand() -> None:
    assert approx_kl(torch.tensor([0.0, math.log(2)])).tolist() == pytest.approx([0.0, 1 - math.log(2)])


def test_explained_variance_by_hand() -> None:
    weights, returns = torch.full((1, 4), 0.25), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert explained_variance(returns, returns, weights).tolist() == [1.0]
    assert explained_variance(torch.zeros(1, 4), returns, weights).tolist() == [0.0]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("lr", 0.0, "above 0"),
        ("gamma", 1.5, "from 0 to 1"),
        ("optimizer.lr_schedule", "lineal", "Did you mean 'linear'"),
        ("horizon", 0, "1 or more"),
        ("optimizer.max_grad_norm", -1.0, "above 0"),
    ],
)
def test_values_that_are_not_allowed(key: str, value: object, sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        specs(f"algo.{key}={value}")
