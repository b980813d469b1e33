"""Return arithmetic: pure functions of one horizon of steps.

Time is the first axis; any axes may follow. A step's `discount` is gamma, or 0 where the episode terminated. Its `cut`
is 1 where the episode was truncated: there the value of its last state completes the return, as at the end of the
horizon.
"""

from __future__ import annotations

import numpy as np

from lab.common.imports import torch
from lab.common.validation import Scalar


def lambda_return(
    reward: torch.Tensor,
    discount: torch.Tensor,
    next_value: torch.Tensor,
    cut: torch.Tensor,
    lambda_: Scalar,
) -> torch.Tensor:
    """Return G_t = r_t + discount_t * ((1 - lambda) * v_{t+1} + lambda * G_{t+1}), with v_{t+1} for G_{t+1} at a cut.

    Sutton & Barto 2018, equation 12.18 (episodic case); lambda = 1 gives discounted Monte-Carlo returns.

    Args:
        reward: [T, ...].
        discount: [T, ...].
        next_value: value of the state that each step led to, [T, ...].
        cut: [T, ...].
        lambda_: a number, or a tensor that broadcasts against [...].

    Returns:
        [T, ...].
    """
    carried = discount * lambda_ * (1 - cut)
    local = reward + (discount - carried) * next_value
    if local.device.type == "cpu" and type(local) is torch.Tensor:  # the same in numpy, three times as fast
        return torch.from_numpy(_accumulate(local.numpy(), carried.numpy(), next_value[-1].numpy()))
    later = next_value[-1]
    returns = []
    for base, factor in zip(reversed(local.unbind(0)), reversed(carried.unbind(0)), strict=True):
        later = base + factor * later
        returns.append(later)
    return torch.stack(returns[::-1])


def _accumulate(local: np.ndarray, carried: np.ndarray, later: np.ndarray) -> np.ndarray:
    returns = np.empty_like(local)
    for t in range(len(local) - 1, -1, -1):
        later = returns[t] = local[t] + carried[t] * later
    return returns


def gae(
    reward: torch.Tensor,
    discount: torch.Tensor,
    value: torch.Tensor,
    cut: torch.Tensor,
    lambda_: Scalar,
) -> torch.Tensor:
    """Return generalized advantage estimates [T, ...] (Schulman et al. 2016, equation 16).

    Args:
        reward: [T, ...].
        discount: [T, ...].
        value: values of the states before each step and after the last, [T + 1, ...].
        cut: [T, ...].
        lambda_: a number, or a tensor that broadcasts against [...].
    """
    return lambda_return(reward, discount, value[1:], cut, lambda_) - value[:-1]


def n_step_return(
    reward: torch.Tensor, discount: torch.Tensor, next_value: torch.Tensor, cut: torch.Tensor, n: int
) -> torch.Tensor:
    """Return the sum of up to n discounted rewards, completed by the value of the state reached (Sutton & Barto 7.1).

    It has fewer rewards where an episode ends and at the end of the horizon.

    Args:
        reward: [T, ...].
        discount: [T, ...].
        next_value: value of the state that each step led to, [T, ...].
        cut: [T, ...].
        n: number of rewards, 1 or more.

    Returns:
        [T, ...].
    """
    one_step = reward + discount * next_value
    returns = one_step
    for _ in range(n - 1):
        # A k-step return is one step, followed by the (k - 1)-step return of the next.
        onward = (1 - cut[:-1]) * discount[:-1]
        returns = torch.cat([one_step[:-1] + onward * (returns[1:] - next_value[:-1]), one_step[-1:]])
    return returns


def episode_ended(done: torch.Tensor, newest: int) -> torch.Tensor:
    """Return 1 for steps [T, ...] of episodes that ended within the newest steps, 0 for others.

    Args:
        done: 1 where an episode ended, [T, ...].
        newest: how many steps at the end of T count as the newest.
    """
    length = len(done)
    step = torch.arange(length, device=done.device).view(-1, *[1] * (done.dim() - 1))
    end = torch.where(done > 0, step, length).flip(0).cummin(0).values.flip(0)
    return ((end >= length - newest) & (end < length)).to(done.dtype)
