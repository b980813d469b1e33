"""Arithmetic that is faster in another form where it is compiled for one Session on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

WIDE = 128  # inputs and outputs from which oneDNN's product is worth a call that is not compiled
# Of powers of x^2, from the lowest: see `rational_tanh`.
TANH_NUMERATOR = (
    0.9999999810808323, 0.12979226497593194, 0.0029858652023002845, 9.878688910526139e-06, -1.4704302941277864e-08,
    2.350880897817167e-11,
)  # fmt: skip
TANH_DENOMINATOR = (1.0, 0.46312542546768576, 0.024027938114462737, 0.00023720367944905524)


_exporting = False


@contextmanager
def exporting() -> Iterator[None]:
    """Let what is traced meanwhile consist of torch's own operations, for programs that run without Lab."""
    global _exporting
    _exporting = True
    try:
        yield
    finally:
        _exporting = False


def is_exporting() -> bool:
    """Whether a function is being traced for a program that runs without Lab."""
    return _exporting


def is_traced(x: Tensor) -> bool:
    """Whether a tensor holds no numbers, because a function is being traced to be compiled or exported."""
    return _exporting or type(x).__name__ == "FakeTensor"


def compiles_for_cpu(x: Tensor) -> bool:
    """Whether a function of this tensor is being traced to be compiled for a CPU."""
    return not _exporting and is_traced(x) and x.device.type == "cpu"


def product(x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """Return the product [1, B, O] of x [1, B, I] and a weight [1, I, O], or [1, O, I] if it is stored transposed.

    Sums take a fifth of the time of a product with few outputs. oneDNN's product takes half the time of `torch.bmm` on
    processors for which its library is not made.
    """
    if transposed:
        return (x.unsqueeze(2) * weight.unsqueeze(1)).sum(-1)
    if x.shape[1] == 1:
        return (x.mT * weight).sum(1, keepdim=True)
    if min(weight.shape[1:]) >= WIDE and torch.backends.mkldnn.is_available():
        return _WideProduct.apply(x, weight)
    return torch.bmm(x, weight)


# oneDNN's product of a layer in inference; torch.compile takes it for constant weights alone, hence a name of our own.
_LIBRARY = torch.library.Library("lab", "DEF")
_LIBRARY.define("product(Tensor x, Tensor weight) -> Tensor")
_LIBRARY.impl(
    "product", lambda x, weight: torch.ops.mkldnn._linear_pointwise(x, weight.t(), None, "none", [], ""), "CPU"
)
_LIBRARY.impl("product", lambda x, weight: x.new_empty(x.shape[0], weight.shape[1]), "Meta")


def images(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of images [B, C, H, W] with their channels as the last axis in memory.

    Channel by channel it takes a third of the time of one call, and a tenth of that of torch.compile's own code.
    """
    copy = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    for channel in range(x.shape[1]):
        copy[:, channel] = x[:, channel]
    return copy


_LIBRARY.define("images(Tensor x, ScalarType dtype) -> Tensor")
_LIBRARY.impl("images", images, "CPU")
_LIBRARY.impl("images", lambda x, dtype: torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last), "Meta")


class _WideProduct(torch.autograd.Function):
    """The product of x [1, B, I] and a weight [1, I, O] by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.lab.product(x[0], weight[0]).unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0][0].contiguous()
        of_x = torch.ops.lab.product(gradient, weight[0].t()).unsqueeze(0) if ctx.needs_input_grad[0] else None
        of_weight = torch.ops.lab.product(x[0].t(), gradient).unsqueeze(0) if ctx.needs_input_grad[1] else None
        return of_x, of_weight


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent, elementwise, by `rational_tanh`."""
    return _RationalTanh.apply(x) if torch.is_grad_enabled() else rational_tanh(x)


def rational_tanh(x: Tensor) -> Tensor:
    """Return x P(x^2) / Q(x^2), which differs from tanh(x) by a relative error of 4e-7 at most.

    Compiled, a step of PPO takes 12 % less time than with the library's tanh. The coefficients were fitted to tanh on
    [-8, 8] by weighted least squares of the relative error.
    """
    x = x.clamp(-8.0, 8.0)
    square = x * x
    numerator, denominator = torch.zeros_like(x), torch.zeros_like(x)
    for coefficient in reversed(TANH_NUMERATOR):
        numerator = numerator * square + coefficient
    for coefficient in reversed(TANH_DENOMINATOR):
        denominator = denominator * square + coefficient
    return x * numerator / denominator


class _RationalTanh(torch.autograd.Function):
    """tanh by `rational_tanh`, with the gradient 1 - y^2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = rational_tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradients[0] * (1 - y * y)
