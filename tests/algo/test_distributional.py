import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.algo.distributional import project, quantile_huber


def test_a_projection_by_hand() -> None:
    support = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 3)
    # 0.5 + 0.5 z moves the atoms to 0, 0.5 and 1.
    actual = project(torch.tensor([[[0.2, 0.4, 0.4]]]), torch.tensor([[0.5]]), torch.tensor([[0.5]]), support)
    assert actual.flatten().tolist() == pytest.approx([0.0, 0.4, 0.6])
    # A terminal reward beyond the support falls on its end.
    actual = project(torch.tensor([[[0.2, 0.4, 0.4]]]), torch.tensor([[7.0]]), torch.tensor([[0.0]]), support)
    assert actual.flatten().tolist() == pytest.approx([0.0, 0.0, 1.0])


@settings(max_examples=50)
@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_a_projection_is_as_the_paper_says(atoms: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = np.array([-2.0, 0.5]), np.array([3.0, 1.0])
    support = np.linspace(low, high, atoms, axis=-1)  # [S, N]
    probabilities = rng.dirichlet(np.ones(atoms), size=(2, 3))
    reward, discount = rng.normal(size=(2, 3)) * 2, rng.choice([0.0, 0.9], size=(2, 3))
    expected = np.zeros((2, 3, atoms))
    for s in range(2):
        spacing = (high[s] - low[s]) / (atoms - 1)
        for b in range(3):
            for j in range(atoms):
                position = (np.clip(reward[s, b] + discount[s, b] * support[s, j], low[s], high[s]) - low[s]) / spacing
                for i in range(atoms):
                    expected[s, b, i] += max(0.0, 1 - abs(position - i)) * probabilities[s, b, j]
    tensors = (torch.tensor(array, dtype=torch.float32) for array in (probabilities, reward, discount))
    actual = project(*tensors, torch.tensor(support, dtype=torch.float32).unsqueeze(1))
    assert actual.numpy() == pytest.approx(expected, abs=1e-4)
    assert actual.sum(-1).numpy() == pytest.approx(np.ones((2, 3)), abs=1e-5)


def test_a_quantile_loss_by_hand() -> None:
    # One quantile, the median: half of Huber's loss.
    assert float(quantile_huber(torch.tensor([[[1.0]]]), torch.tensor([[[1.5]]]))) == pytest.approx(0.5 * 0.125)
    assert float(quantile_huber(torch.tensor([[[1.0]]]), torch.tensor([[[-2.0]]]))) == pytest.approx(0.5 * 2.5)


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_quantile_loss_is_as_the_paper_says(number: int, targets: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    quantiles, target = rng.normal(size=(2, 3, number)) * 2, rng.normal(size=(2, 3, targets)) * 2
    expected = np.zeros((2, 3))
    for s, b in np.ndindex(2, 3):
        for i in range(number):
            tau = (2 * i + 1) / (2 * number)
            for j in range(targets):
                u = target[s, b, j] - quantiles[s, b, i]
                huber = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
                expected[s, b] += abs(tau - (u < 0)) * huber / targets
    actual = quantile_huber(torch.tensor(quantiles), torch.tensor(target))
    assert actual.numpy() == pytest.approx(expected)


def test_quantile_regression_finds_the_quantiles() -> None:
    sample = torch.distributions.Exponential(1.0).icdf((torch.arange(1000.0) + 0.5) / 1000).view(1, 1, 1000)
    quantiles = torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([quantiles], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        quantile_huber(quantiles, sample, kappa=1e-3).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    midpoints = np.array([1, 3, 5, 7]) / 8
    assert quantiles.detach().flatten().numpy() == pytest.approx(-np.log(1 - midpoints), abs=0.06)
