"""Normalization between the layers of a network, each Session by its own numbers alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-3  # added to the variances of a batch
RATE = 0.01  # share of the way that running moments move toward those of a batch
R_MOST, D_MOST = 3.0, 5.0  # how far a batch may be corrected toward the running moments


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

    While training, those are the moments of the batch, corrected within bounds toward the running ones once these
    have settled; otherwise, the running ones.

    Attributes:
        mean, variance: running moments, [S, 1, N].
        batches: how many batches made them, [S, 1, 1].
        sample_weights: of each row in the moments of a batch, [S, B, 1]; null if they are the same.
        warmup: batches after which the running moments count as settled; never, unless it is set.
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
        share = x.new_full((1, 1, 1), 1 / x.shape[1]) if self.sample_weights is None else self.sample_weights
        standardized, mean, variance = _Standardize.apply(x, share)
        with torch.no_grad():
            r, d = corrections(mean, variance, self.mean, self.variance)
            settled = self.batches >= self.warmup
            r, d = torch.where(settled, r, 1.0), torch.where(settled, d, 0.0)
            self.mean.lerp_(mean, RATE)
            self.variance.lerp_(variance, RATE)
            self.batches.add_(1.0)
        return standardized * (r * self.weight) + (d * self.weight + self.bias)


class _Standardize(torch.autograd.Function):
    """Brings [S, B, N] to mean 0 and variance 1 over rows with shares [S, B, 1]; gives both moments [S, 1, N] too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = (x * share).sum(1, keepdim=True)
        centered = x - mean
        variance = (centered * centered * share).sum(1, keepdim=True)
        deviation = (variance + EPS).sqrt()
        standardized = centered.div_(deviation)
        ctx.save_for_backward(standardized, deviation, share)
        ctx.mark_non_differentiable(mean, variance)
        return standardized, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        standardized, deviation, share = ctx.saved_tensors
        gradient = gradients[0]
        through_mean = gradient.sum(1, keepdim=True)
        through_variance = (gradient * standardized).sum(1, keepdim=True)
        return (gradient - share * (through_mean + standardized * through_variance)) / deviation, None


def sample_weights(usable: Tensor) -> Tensor:
    """Return each row's share [S, B, 1] of an average over the usable ones (1 or 0, [S, B]), or over all if none is."""
    usable = torch.where(usable.sum(1, keepdim=True) > 0, usable, 1.0)
    return (usable / usable.sum(1, keepdim=True)).unsqueeze(-1)


def corrections(
    mean: Tensor, variance: Tensor, running_mean: Tensor, running_variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return r and d, by which a batch's own moments are corrected toward the running ones (Ioffe 2017, section 3)."""
    deviation, running_deviation = (variance + EPS).sqrt(), (running_variance + EPS).sqrt()
    r = (deviation / running_deviation).clamp(1 / R_MOST, R_MOST)
    d = ((mean - running_mean) / running_deviation).clamp(-D_MOST, D_MOST)
    return r, d


def before_layers(norm: str, stack: int, inputs: int) -> list[nn.Module]:
    """Return what stands before the first layer: batch renormalization of its inputs, if that is chosen."""
    return [BatchRenorm(stack, inputs)] if norm == "batch_renorm" else []


def around(norm: str, linear: nn.Module, activation: nn.Module, stack: int, width: int) -> list[nn.Module]:
    """Return a layer and its activation, with a normalization: of rows before it, of batches after it."""
    if norm == "layer":
        return [linear, LayerNorm(stack, width), activation]
    if norm == "batch_renorm":
        return [linear, activation, BatchRenorm(stack, width)]
    return [linear, activation]
