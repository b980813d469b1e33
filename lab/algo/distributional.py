"""Arithmetic of distributions of returns: pure functions."""

from __future__ import annotations

from lab.common.imports import torch


def project(
    probabilities: torch.Tensor, reward: torch.Tensor, discount: torch.Tensor, support: torch.Tensor
) -> torch.Tensor:
    """Return the distribution of reward + discount * Z on the support of Z (Bellemare et al. 2017, algorithm 1).

    Args:
        probabilities: of each atom of Z, [S, B, N].
        reward: [S, B].
        discount: [S, B].
        support: the atoms, evenly spaced, [S, 1, N].

    Returns:
        [S, B, N]; each atom that is moved between two others is divided among them by nearness.
    """
    low, high = support[..., :1], support[..., -1:]
    spacing = (high - low) / (support.shape[-1] - 1)
    moved = (reward.unsqueeze(-1) + discount.unsqueeze(-1) * support).clamp(low, high)
    position = ((moved - low) / spacing).clamp(0, support.shape[-1] - 1)
    below = position.floor()
    above = (below + 1).clamp(max=support.shape[-1] - 1)
    upper = position - below
    projected = torch.zeros_like(probabilities)
    projected.scatter_add_(-1, below.long(), probabilities * (1 - upper))
    return projected.scatter_add_(-1, above.long(), probabilities * upper)


def quantile_huber(quantiles: torch.Tensor, targets: torch.Tensor, kappa: float = 1.0) -> torch.Tensor:
    """Return the quantile regression loss of each sample, [S, B] (Dabney et al. 2018, equations 9 and 10).

    Args:
        quantiles: at the midpoints (2i + 1) / 2N, [S, B, N].
        targets: samples of the distribution that is learned, [S, B, M].
        kappa: error up to which the loss is a square.
    """
    number = quantiles.shape[-1]
    midpoints = (torch.arange(number, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / number
    error = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)
    size = error.abs()
    huber = torch.where(size <= kappa, 0.5 * error * error, kappa * (size - 0.5 * kappa))
    weight = (midpoints.unsqueeze(-1) - (error.detach() < 0).to(error.dtype)).abs()
    return (weight * huber / kappa).mean(-1).sum(-1)
