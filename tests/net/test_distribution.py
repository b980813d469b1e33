"""Action distributions against torch.distributions, and their draws against their probabilities."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import distributions as theirs

from lab.net.distribution import ActionHead, Categorical, Gaussian, MultiCategorical


def test_categorical() -> None:
    logits, action = torch.randn(2, 5, 3), torch.randint(3, (2, 5))
    ours, reference = Categorical(logits), theirs.Categorical(logits=logits)
    assert torch.allclose(ours.log_prob(action), reference.log_prob(action), atol=1e-6)
    assert torch.allclose(ours.entropy(), reference.entropy(), atol=1e-6)
    assert torch.equal(ours.mode(), logits.argmax(-1))


def test_multi_categorical() -> None:
    logits = torch.randn(2, 5, 5)
    action = torch.stack([torch.randint(2, (2, 5)), torch.randint(3, (2, 5))], -1)
    ours = MultiCategorical(logits, [2, 3])
    parts = [theirs.Categorical(logits=logits[..., :2]), theirs.Categorical(logits=logits[..., 2:])]
    log_prob = parts[0].log_prob(action[..., 0]) + parts[1].log_prob(action[..., 1])
    assert torch.allclose(ours.log_prob(action), log_prob, atol=1e-6)
    assert torch.allclose(ours.entropy(), parts[0].entropy() + parts[1].entropy(), atol=1e-6)
    assert torch.equal(ours.mode()[..., 1], logits[..., 2:].argmax(-1))


def test_gaussian() -> None:
    mean, log_std, action = torch.randn(2, 5, 3), torch.randn(2, 1, 3), torch.randn(2, 5, 3)
    ours = Gaussian(mean, log_std)
    reference = theirs.Independent(theirs.Normal(mean, log_std.exp().expand_as(mean)), 1)
    assert torch.allclose(ours.log_prob(action), reference.log_prob(action), atol=1e-5)
    assert torch.allclose(ours.entropy(), reference.entropy(), atol=1e-5)
    assert torch.equal(ours.mode(), mean)


@pytest.mark.parametrize(
    ("space", "size", "shape"),
    [
        (gym.spaces.Discrete(3), 3, ()),
        (gym.spaces.MultiDiscrete([2, 3]), 5, (2,)),
        (gym.spaces.Box(-1, 1, (2,)), 2, (2,)),
    ],
)
def test_draws_follow_the_probabilities(space: gym.Space, size: int, shape: tuple[int, ...]) -> None:
    head = ActionHead(space, 0.0, 1)
    assert head.size == size
    output = torch.tensor([0.5, -0.3, 1.0, 0.0, -1.0][:size]).expand(1, 20_000, size)
    dist = head(output)
    noise = torch.from_numpy(head.noise(np.random.default_rng(0), (20_000,)))[None]
    drawn = dist.sample(noise)
    assert drawn.shape == (1, 20_000, *shape)
    # The mean log-probability of draws is minus the entropy.
    assert float(dist.log_prob(drawn).detach().mean()) == pytest.approx(
        -float(dist.entropy().detach().mean()), abs=0.03
    )
