"""Arithmetic of weighted samples, each Session by its own: pure functions."""

from __future__ import annotations

import numpy as np

from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.transfer import upload
from lab.errors import LabError


def sample_weights(mask: torch.Tensor) -> torch.Tensor:
    """Return weights [..., B] that sum to 1, in proportion to a mask or to importance weights; zeros if all are 0."""
    return mask / mask.sum(-1, keepdim=True).clamp(min=1e-8)


def has_samples(weights: torch.Tensor) -> torch.Tensor:
    """Return 1 for Sessions with a sample of weight above 0, 0 for others: [S, 1] of weights [S, B]."""
    return weights.sum(-1, keepdim=True).sign_()


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over the last axis by weights that sum to 1."""
    return (values * weights).sum(-1)


def normalize(advantage: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return advantages [..., B] with weighted mean 0 and standard deviation 1."""
    centered = advantage - weighted_mean(advantage, weights).unsqueeze(-1)
    return centered / (weighted_mean(centered.square(), weights).sqrt().unsqueeze(-1) + 1e-8)


def explained_variance(value: torch.Tensor, returns: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return 1 - Var(returns - value) / Var(returns) over samples [S, B]: 1 is perfect, 0 no better than a constant."""

    def variance(x: torch.Tensor) -> torch.Tensor:
        return weighted_mean((x - weighted_mean(x, weights).unsqueeze(-1)).square(), weights)

    return 1 - variance(returns - value) / variance(returns).clamp(min=1e-8)


def approx_kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """Return an estimate of KL(old || new), 0 or more, from log(new / old) of actions drawn from old.

    Estimator k3 of Schulman 2020, "Approximating KL divergence".
    """
    return log_ratio.exp() - 1 - log_ratio


def gather_actions(values: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Return the entries of actions [...] in values [..., A] of all actions, or in their atoms [..., A, N]."""
    index = action.unsqueeze(-1)
    if values.dim() == index.dim():
        return values.gather(-1, index).squeeze(-1)
    index = index.unsqueeze(-1).expand(*index.shape, values.shape[-1])
    return values.gather(-2, index).squeeze(-2)


def check_batch_size(batch_size: int, horizon: int, num_envs: int) -> None:
    """Raise LabError for a batch size that does not divide the samples of a horizon."""
    samples = horizon * num_envs
    if batch_size >= 2 and samples % batch_size == 0:
        return
    rollout = f"rollout of {samples} samples (algo.horizon={horizon} times env.num_envs={num_envs})"
    divisors = [n for n in range(2, samples + 1) if samples % n == 0]
    if not divisors:
        raise LabError(f"algo.batch_size={batch_size} is not possible: the {rollout} is too short.")
    nearest = " or ".join(map(str, sorted(sorted(divisors, key=lambda n: abs(n - batch_size))[:2])))
    problem = f"does not divide the {rollout}" if batch_size >= 2 else "is not allowed: it must be 2 or more"
    raise LabError(
        f"algo.batch_size={batch_size} {problem}, and all minibatches have one size. Use {nearest}, or change"
        " algo.horizon or env.num_envs."
    )


def draw_orders(streams: list[Streams], epochs: int, units: int, device: torch.device) -> torch.Tensor:
    """Draw a permutation of samples, or of sequences, for every epoch, [epochs, S, units].

    All are drawn at once, so that a Session that stops early has drawn as much as any other (law 1).
    """
    drawn = [[stream.minibatches.permutation(units) for _ in range(epochs)] for stream in streams]
    return upload(np.array(drawn), device).transpose(0, 1)
