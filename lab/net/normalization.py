"""Normalization between the layers of a network, each Session by its own numbers alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-3  # added to the variances of a batch
RATE = 0.01  # fraction by which running moments move toward those of a batch
R_MAX, D_MAX = 3.0, 5.0  # bounds on the correction of a batch toward the running moments


class LayerNorm(nn.Module):
    """Layer normalization (Ba, Kiros & Hinton 2016): each row of [S, B, N] to mean 0 and variance 1, then scaled."""

    def __init__(self, stack: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.ones(stack, 1, width))
        self.bias = nn.Parameter(torch.zeros(stack, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (self.width,)) * self.weight + self.bias


class BatchRenorm(nn.Module):
    """Batch renormalization (Ioffe 2017, algorithm 1): each number of [S, B, N] by its moments over the batch.

    In training these are the moments of the batch, corrected within bounds toward the running ones after `warmup`
    batches; in evaluation the running ones.

    Attributes:
        mean, variance: running moments, [S, 1, N].
        batches: how many batches they were computed from, [S, 1, 1].
        sample_weights: weight of each row in the moments of a batch, [S, B, 1]; None for equal weights.
        warmup: batches before the correction starts; it never does unless this is set.
    """

    warmup: float = math.inf
    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, stack: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(stack, 1, width))
        self.bias = nn.Parameter(torch.zeros(stack, 1, width))
        self.register_buffer("mean", torch.zeros(stack, 1, width))
        self.register_buffer("variance", torch.ones(stack, 1, width))
        self.register_buffer("batches", torch.zeros(stack, 1, 1))
        self.sample_weights: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            scale = self.weight / (self.variance + EPS).sqrt()
            return (x - self.mean) * scale + self.bias
        weights = x.new_full((1, 1, 1), 1 / x.shape[1]) if self.sample_weights is None else self.sample_weights
        standardized, mean, variance = _Standardize.apply(x, weights)
        with torch.no_grad():
            r, d = corrections(mean, variance, self.mean, self.variance)
            warm = self.batches >= self.warmup
            r, d = torch.where(warm, r, 1.0), torch.where(warm, d, 0.0)
            self.mean.lerp_(mean, RATE)
            self.variance.lerp_(variance, RATE)
            self.batches.add_(1.0)
        return torch.addcmul(d * self.weight + self.bias, standardized, r * self.weight)


class _Standardize(torch.autograd.Function):
    """Standardizes [S, B, N] over weighted rows [S, B, 1]; returns both moments [S, 1, N] too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = (x * weights).sum(1, keepdim=True)
        centered = x - mean
        variance = (centered * centered).mul_(weights).sum(1, keepdim=True)
        deviation = (variance + EPS).sqrt()
        standardized = centered.div_(deviation)
        ctx.save_for_backward(standardized, deviation, weights)
        ctx.mark_non_differentiable(mean, variance)
        return standardized, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        standardized, deviation, weights = ctx.saved_tensors
        gradient = gradients[0]
        through_mean = gradient.sum(1, keepdim=True)
        through_variance = (gradient * standardized).sum(1, keepdim=True)
        through = (standardized * through_variance).add_(through_mean).mul_(weights)
        return (gradient - through).div_(deviation), None


def corrections(
    mean: Tensor, variance: Tensor, running_mean: Tensor, running_variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return r and d, which correct a batch's moments toward the running ones (Ioffe 2017, section 3)."""
    deviation, running_deviation = (variance + EPS).sqrt(), (running_variance + EPS).sqrt()
    r = (deviation / running_deviation).clamp(1 / R_MAX, R_MAX)
    d = ((mean - running_mean) / running_deviation).clamp(-D_MAX, D_MAX)
    return r, d
