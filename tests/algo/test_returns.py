"""Return arithmetic against hand-computed numbers and a slow reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.algo.returns import episode_ended, gae, lambda_return, n_step_return

GAMMA, LAM = 0.5, 0.5


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_discounted_return_by_hand() -> None:
    # Rewards 1, 2, 3; the second step terminates; the third goes on into a state worth 8.
    reward, discount = column(1, 2, 3), column(GAMMA, 0, GAMMA)
    returns = lambda_return(reward, discount, column(100, 100, 8), torch.zeros(3), lambda_=1.0)
    assert returns.tolist() == [1 + 0.5 * 2, 2, 3 + 0.5 * 8]


def test_discounted_return_is_completed_by_the_value_at_a_truncation() -> None:
    # The second step is cut: its return is 2 + 0.5 * 6, whatever came after in the data.
    reward, discount = column(1, 2, 3), column(GAMMA, GAMMA, GAMMA)
    returns = lambda_return(reward, discount, column(100, 6, 8), column(0, 1, 0), lambda_=1.0)
    assert returns.tolist() == [1 + 0.5 * 5, 5, 7]


def test_gae_by_hand() -> None:
    # Errors: 1 + 0.5 * 4 - 2 = 1, 2 + 0.5 * 6 - 4 = 1, 3 + 0 - 6 = -3 (terminated).
    reward, discount, value = column(1, 2, 3), column(GAMMA, GAMMA, 0), column(2, 4, 6, 100)
    advantage = gae(reward, discount, value, torch.zeros(3), LAM)
    assert advantage.tolist() == [1 + 0.25 * (1 + 0.25 * -3), 1 + 0.25 * -3, -3]


def test_gae_does_not_run_through_a_truncation() -> None:
    reward, discount, value = column(1, 2, 3), column(GAMMA, GAMMA, GAMMA), column(2, 4, 6, 8)
    advantage = gae(reward, discount, value, column(0, 1, 0), LAM)
    # Errors: 1, 2 + 0.5 * 6 - 4 = 1, 3 + 0.5 * 8 - 6 = 1; the second is not joined to the third.
    assert advantage.tolist() == [1.25, 1, 1]


def test_n_step_return_by_hand() -> None:
    reward, discount, next_value = column(1, 2, 3, 4), torch.full((4,), GAMMA), column(10, 20, 30, 40)
    returns = n_step_return(reward, discount.double(), next_value, torch.zeros(4).double(), n=2)
    # r0 + g r1 + g^2 v2, r1 + g r2 + g^2 v3, r2 + g r3 + g^2 v4, r3 + g v4
    assert returns.tolist() == [1 + 1 + 5, 2 + 1.5 + 7.5, 3 + 2 + 10, 4 + 20]


def test_completed_by_hand() -> None:
    done = column(0, 1, 0, 0, 1, 0)
    assert episode_ended(done, 6).tolist() == [1, 1, 1, 1, 1, 0]
    assert episode_ended(done, 4).tolist() == [0, 0, 1, 1, 1, 0]
    assert episode_ended(done, 2).tolist() == [0, 0, 1, 1, 1, 0]
    assert episode_ended(done, 1).tolist() == [0, 0, 0, 0, 0, 0]
    assert episode_ended(torch.stack([done, 1 - done], 1), 1).tolist() == [[0, e] for e in (0, 0, 0, 0, 1, 1)]


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 12))
@settings(max_examples=200)
def test_completed_agrees_with_the_slow_reference(done: list[bool], newest: int) -> None:
    slow = []
    for t in range(len(done)):
        end = next((k for k in range(t, len(done)) if done[k]), None)
        slow.append(float(end is not None and end >= len(done) - newest))
    assert episode_ended(column(*map(float, done)), newest).tolist() == slow


# The slow reference follows the definitions, one sum over rewards for each step.


def slow_n_step(reward, terminated, truncated, next_value, gamma, n, t):
    total, factor = 0.0, 1.0
    for k in range(t, min(t + n, len(reward))):
        total += factor * reward[k]
        if terminated[k]:
            return total
        factor *= gamma
        if truncated[k] or k == min(t + n, len(reward)) - 1:
            return total + factor * next_value[k]
    raise AssertionError


def slow_lambda(reward, terminated, truncated, next_value, gamma, lambda_, t):
    """Weighted mean of n-step returns: (1 - lambda) lambda^(n-1) each, the rest on the last (equation 12.3)."""
    end = t
    while end < len(reward) - 1 and not (terminated[end] or truncated[end]):
        end += 1
    count = end - t + 1
    total = 0.0
    for n in range(1, count + 1):
        weight = lambda_ ** (n - 1) * (1 - lambda_) if n < count else lambda_ ** (count - 1)
        total += weight * slow_n_step(reward, terminated, truncated, next_value, gamma, n, t)
    return total


@st.composite
def histories(draw):
    length = draw(st.integers(1, 9))
    number = st.floats(-10, 10, allow_nan=False, allow_subnormal=False)
    numbers = st.lists(number, min_size=length, max_size=length)
    ends = draw(st.lists(st.sampled_from(["", "terminated", "truncated"]), min_size=length, max_size=length))
    return (
        draw(numbers),
        ends,
        draw(numbers),
        draw(number),
        draw(st.floats(0, 1, allow_subnormal=False)),
        draw(st.floats(0, 1, allow_subnormal=False)),
    )


@given(histories(), st.integers(1, 10))
@settings(max_examples=300)
def test_returns_agree_with_the_slow_reference(history, n) -> None:
    reward, ends, values, last, gamma, lambda_ = history
    terminated = [end == "terminated" for end in ends]
    truncated = [end == "truncated" for end in ends]
    next_value = [*values[1:], last]
    discount = column(*(0.0 if end else gamma for end in terminated))
    arguments = column(*reward), discount
    cut = column(*map(float, truncated))
    steps = range(len(reward))
    lambdas = [slow_lambda(reward, terminated, truncated, next_value, gamma, lambda_, t) for t in steps]
    fast = lambda_return(*arguments, column(*next_value), cut, lambda_)
    assert fast.tolist() == pytest.approx(lambdas, rel=1e-9, abs=1e-9)
    advantages = [target - value for target, value in zip(lambdas, values, strict=True)]
    fast = gae(*arguments, column(*values, last), cut, lambda_)
    assert fast.tolist() == pytest.approx(advantages, rel=1e-9, abs=1e-9)
    n_step = [slow_n_step(reward, terminated, truncated, next_value, gamma, n, t) for t in steps]
    fast = n_step_return(*arguments, column(*next_value), cut, n)
    assert fast.tolist() == pytest.approx(n_step, rel=1e-9, abs=1e-9)
    monte_carlo = [slow_lambda(reward, terminated, truncated, next_value, gamma, 1.0, t) for t in steps]
    fast = lambda_return(*arguments, column(*next_value), cut, 1.0)
    assert fast.tolist() == pytest.approx(monte_carlo, rel=1e-9, abs=1e-9)
