"""Action distributions against torch.distributions, and their draws against their probabilities."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import distributions as theirs

from lab.net.distribution import (
    ActionHead,
    Bernoulli,
    Beta,
    Categorical,
    Gaussian,
    MultiCategorical,
    TanhGaussian,
    log_slope_of_tanh,
)


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


def squashed(mean: torch.Tensor, log_std: torch.Tensor) -> theirs.Distribution:
    normal = theirs.TransformedDistribution(theirs.Normal(mean, log_std.exp()), theirs.TanhTransform(cache_size=1))
    return theirs.Independent(normal, 1)


def test_tanh_gaussian() -> None:
    mean, log_std, noise = torch.randn(2, 5, 3), torch.randn(2, 5, 3) - 0.5, torch.randn(2, 5, 3)
    ours, reference = TanhGaussian(mean, log_std), squashed(mean.double(), log_std.double())
    action, log_prob = ours.sample_with_log_prob(noise)
    assert torch.equal(action, ours.sample(noise))
    exact = torch.tanh(mean.double() + noise * log_std.double().exp())
    assert torch.allclose(action.double(), exact, atol=1e-6)
    assert torch.allclose(log_prob.double(), reference.log_prob(exact), atol=1e-3)
    inside = action.clamp(-0.99, 0.99)
    assert torch.allclose(ours.log_prob(inside).double(), reference.log_prob(inside.double()), atol=1e-3)
    assert torch.equal(ours.mode(), torch.tanh(mean))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -2.0), (0.3, -0.5), (1.5, 0.0), (-4.0, 0.5)])
def test_the_entropy_of_a_tanh_gaussian(mean: float, log_std: float) -> None:
    ours = TanhGaussian(torch.full((1, 1, 1), mean), torch.full((1, 1, 1), log_std))
    z = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    density = (-0.5 * z * z).exp() / (2 * np.pi) ** 0.5
    before = mean + z * float(np.exp(log_std))
    slope = 2 * (np.log(2) - before - torch.nn.functional.softplus(-2 * before))
    expected = 0.5 + 0.5 * np.log(2 * np.pi) + log_std + float(torch.trapezoid(density * slope, z))
    assert float(ours.entropy()) == pytest.approx(expected, abs=2e-3)


def test_the_slope_of_tanh_is_exact_where_tanh_is_one() -> None:
    x = torch.tensor([[0.0, 1.0, -3.0, 20.0, -20.0]])
    exact = -2 * np.log(np.cosh(x.double().numpy()))
    assert torch.allclose(log_slope_of_tanh(x).double(), torch.from_numpy(exact), atol=1e-5)


@pytest.mark.parametrize("count", [1, 7, 33])
def test_law_1_of_a_tanh_gaussian(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(5, count, 3, generator=generator) for _ in range(3))

    def figures(part: slice) -> list[torch.Tensor]:
        leaves = [mean[part].clone().requires_grad_(), log_std[part].clone().requires_grad_()]
        ours = TanhGaussian(*leaves)
        action, log_prob = ours.sample_with_log_prob(noise[part])
        values = [action, log_prob, ours.log_prob(action.detach()), ours.entropy()]
        total = sum((value * value).sum() for value in values)
        return [*(value.detach() for value in values), *torch.autograd.grad(total, leaves)]

    stacked = figures(slice(None))
    for s in range(5):
        for index, (several, one) in enumerate(zip(stacked, figures(slice(s, s + 1)), strict=True)):
            assert torch.equal(several[s], one[0]), index


def test_bernoulli() -> None:
    logits, action = 3 * torch.randn(2, 5, 4), torch.randint(2, (2, 5, 4))
    ours, reference = Bernoulli(logits), theirs.Independent(theirs.Bernoulli(logits=logits), 1)
    assert torch.allclose(ours.log_prob(action), reference.log_prob(action.float()), atol=1e-5)
    assert torch.allclose(ours.entropy(), reference.entropy(), atol=1e-5)
    assert torch.equal(ours.mode(), (logits > 0).long())


def test_beta() -> None:
    alpha, beta, action = 1 + 5 * torch.rand(2, 5, 3), 1 + 5 * torch.rand(2, 5, 3), 1.98 * torch.rand(2, 5, 3) - 0.99
    ours = Beta(alpha, beta)
    spread = theirs.AffineTransform(-1.0, 2.0)
    reference = theirs.Independent(theirs.TransformedDistribution(theirs.Beta(alpha, beta), spread), 1)
    assert torch.allclose(ours.log_prob(action), reference.log_prob(action), atol=1e-4)
    entropy = theirs.Beta(alpha, beta).entropy().sum(-1) + 3 * np.log(2)
    assert torch.allclose(ours.entropy(), entropy, atol=1e-4)
    away = 1e-3 * torch.randn(2, 5, 3)
    assert (ours.log_prob(ours.mode()) >= ours.log_prob((ours.mode() + away).clamp(-1, 1)) - 1e-5).all()
    assert Beta(torch.ones(1, 1, 1), torch.ones(1, 1, 1)).mode().item() == 0, "the middle of an even one"


def test_beta_draws_quantiles() -> None:
    ours = Beta(torch.full((1, 1, 3), 1.0), torch.full((1, 1, 3), 1.0))
    drawn = ours.sample(torch.tensor([[[0.0, 0.25, 0.75]]]))
    assert drawn.flatten().tolist() == pytest.approx([-1.0, -0.5, 0.5], abs=1e-5)
    assert ours.log_prob(drawn).isfinite().all()


HEADS = {
    "choice": (gym.spaces.Discrete(3), {}, 3, ()),
    "choices": (gym.spaces.MultiDiscrete([2, 3]), {}, 5, (2,)),
    "yes or no": (gym.spaces.MultiBinary([3, 2]), {}, 6, (6,)),
    "gaussian": (gym.spaces.Box(-1, 1, (2,)), {}, 2, (2,)),
    "gaussian by state": (gym.spaces.Box(-1, 1, (2,)), {"state_dependent_std": True}, 4, (2,)),
    "tanh": (gym.spaces.Box(-1, 1, (2,)), {"kind": "tanh_gaussian"}, 2, (2,)),
    "tanh by state": (gym.spaces.Box(-1, 1, (2,)), {"kind": "tanh_gaussian", "state_dependent_std": True}, 4, (2,)),
    "beta": (gym.spaces.Box(-1, 1, (2,)), {"kind": "beta"}, 4, (2,)),
}


@pytest.mark.parametrize("name", HEADS)
def test_draws_follow_the_probabilities(name: str) -> None:
    space, settings, size, shape = HEADS[name]
    head = ActionHead(space, -0.3, 1, **settings)
    assert (head.size, head.shape) == (size, shape)
    output = torch.tensor([0.5, -0.3, 1.0, 0.0, -1.0, 0.2][:size]).expand(1, 20_000, size)
    dist = head(output)
    noise = torch.from_numpy(head.noise(np.random.default_rng(0), (20_000,)))[None]
    drawn = dist.sample(noise)
    assert drawn.shape == (1, 20_000, *shape)
    # The mean log-probability of draws is minus the entropy.
    expected = -float(dist.entropy().detach().mean())
    assert float(dist.log_prob(drawn).detach().mean()) == pytest.approx(expected, abs=0.03)


def test_a_deviation_of_the_network_starts_from_the_one_given() -> None:
    head = ActionHead(gym.spaces.Box(-1, 1, (2,)), torch.tensor([[0.5], [-0.5]]), 2, state_dependent_std=True)
    assert not list(head.parameters())
    results = head(torch.tensor([0.1, 0.2, 0.0, 0.25]).expand(2, 3, 4))
    assert results.mean[0, 0].tolist() == pytest.approx([0.1, 0.2])
    assert results.log_std[:, 0].flatten().tolist() == pytest.approx([0.5, 0.75, -0.5, -0.25])


@pytest.mark.law
@pytest.mark.parametrize("count", [1, 7, 33])
@pytest.mark.parametrize("name", HEADS)
def test_law_1_of_a_distribution(name: str, count: int) -> None:
    space, settings, size, _ = HEADS[name]
    outputs = torch.from_numpy(np.random.default_rng(1).standard_normal((5, count, size), dtype=np.float32))

    def figures(sessions: list[int]) -> list[torch.Tensor]:
        head = ActionHead(space, 0.1, len(sessions), **settings)
        output = outputs[sessions].clone().requires_grad_()
        dist = head(output)
        drawn = [head.noise(np.random.default_rng(s), (count,)) for s in sessions]
        action = dist.sample(torch.from_numpy(np.stack(drawn))).detach()
        values = [dist.log_prob(action), dist.entropy()]
        total = sum((value * value).sum() for value in values)
        results = torch.autograd.grad(total, [output, *head.parameters()])
        return [action, dist.mode().detach(), *(value.detach() for value in values), *results]

    stacked = figures([0, 1, 2, 3, 4])
    for s in range(5):
        for index, (several, one) in enumerate(zip(stacked, figures([s]), strict=True)):
            assert torch.equal(several[s], one[0]), index
