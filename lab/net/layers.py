"""Layers with a leading session axis.

Each Session's numbers come out bit for bit as if it had been computed alone (law 1). Matrix products keep to shapes
for which the batched product does so, and elementwise functions whose vector and scalar code round differently are
given whole vectors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LANES = 32  # float32 numbers that torch's vectorised loops take at once: two of the widest registers
NARROW = 16  # outputs below which a product is some four times faster with its weight stored transposed


def orthogonal(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> np.ndarray:
    """Return a random weight [inputs, outputs] with orthonormal rows or columns, times gain (Saxe et al. 2014)."""
    rows, columns = max(inputs, outputs), min(inputs, outputs)
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    q *= np.sign(np.diag(r))
    return gain * (q if inputs >= outputs else q.T)


class Linear(nn.Module):
    """A linear layer for every Session: [S, B, inputs] to [S, B, outputs], orthogonally initialised, bias zero."""

    def __init__(self, inputs: int, outputs: int, gains: list[float], rngs: list[np.random.Generator]) -> None:
        super().__init__()
        pairs = zip(rngs, gains, strict=True)
        weight = np.stack([orthogonal(rng, inputs, outputs, gain) for rng, gain in pairs]).astype(np.float32)
        self.inputs, self.outputs = inputs, outputs
        self.transposed = outputs < NARROW
        self.weight = nn.Parameter(torch.from_numpy(weight.swapaxes(1, 2).copy() if self.transposed else weight))
        self.bias = nn.Parameter(torch.zeros(len(rngs), 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        # A width of 1 takes another path in the batched product for one Session than for several.
        if self.outputs == 1:
            return (x * self.weight).sum(-1, keepdim=True) + self.bias
        weight = self.weight.mT if self.transposed else self.weight
        if self.inputs == 1:
            return x * weight + self.bias
        return torch.baddbmm(self.bias, x, weight)


class _Tanh(torch.autograd.Function):
    """tanh in place, by numpy, whose vectorised float32 version is some six times faster than torch's on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        array = x.detach().numpy()
        np.tanh(array, out=array)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(gradients[0], y)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent, elementwise; on a CPU it takes the place of its argument."""
    if x.device.type != "cpu":
        return torch.tanh(x)
    if torch.is_grad_enabled():
        return _Tanh.apply(x)
    array = x.detach().numpy()
    np.tanh(array, out=array)
    return x


def in_whole_lanes(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Make an elementwise function see, for each Session, a whole number of vector registers."""

    def padded(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        missing = -flat.shape[1] % LANES
        if not missing:
            return function(x)
        return function(functional.pad(flat, (0, missing)))[:, : flat.shape[1]].view(x.shape)

    return padded


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": in_whole_lanes(functional.elu),
    "selu": in_whole_lanes(torch.selu),
    "gelu": in_whole_lanes(functional.gelu),
    "silu": in_whole_lanes(functional.silu),
    "mish": in_whole_lanes(functional.mish),
    "softplus": in_whole_lanes(functional.softplus),
    "sigmoid": in_whole_lanes(torch.sigmoid),
}


class Activation(nn.Module):
    """An elementwise function by its name in conf/net/."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
