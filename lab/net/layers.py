"""Layers with a leading session axis.

Each Session's numbers are bit for bit those it would have alone (law 1): matrix products keep to shapes for which the
batched product guarantees it, and elementwise functions whose vector and scalar code round differently get whole
vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lab.common.transfer import upload
from lab.net import kernels
from lab.net.kernels import compiles_for_cpu, is_exporting, is_traced

LANES = 32  # float32 numbers that torch's vectorized loops process at once: two of the widest registers
NARROW = 16  # outputs below which a product is some four times faster with its weight stored transposed


def orthogonal(rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> np.ndarray:
    """Return a random weight [inputs, outputs] with orthonormal rows or columns, times gain (Saxe et al. 2014)."""
    rows, columns = max(inputs, outputs), min(inputs, outputs)
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    q *= np.sign(np.diag(r))
    return gain * (q if inputs >= outputs else q.T)


class Linear(nn.Module):
    """A linear layer for every Session: [S, B, inputs] to [S, B, outputs], orthogonally initialized, bias zero."""

    def __init__(self, inputs: int, outputs: int, gains: list[float], rngs: list[np.random.Generator]) -> None:
        super().__init__()
        weights = [orthogonal(rng, inputs, outputs, gain) for rng, gain in zip(rngs, gains, strict=True)]
        self.inputs, self.outputs = inputs, outputs
        self.transposed = outputs < NARROW
        stacked = [weight.T if self.transposed else weight for weight in weights]
        self.weight = nn.Parameter(torch.from_numpy(np.stack(stacked).astype(np.float32)))
        self.bias = nn.Parameter(torch.zeros(len(rngs), 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        parameters: Any = self._parameters  # as attributes of a module they take as long to read as to multiply
        return self.product(x, parameters["weight"], parameters["bias"])

    def product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return x times a weight, stored in the layout of this layer, plus a bias."""
        # A width of 1 takes another path in the batched product for one Session than for several.
        if self.outputs == 1:
            return (x * weight).sum(-1, keepdim=True) + bias
        if compiles_for_cpu(x):
            return kernels.product(x, weight, self.transposed) + bias
        weight = weight.mT if self.transposed else weight
        if self.inputs == 1:
            return x * weight + bias
        return torch.baddbmm(bias, x, weight)


class NoisyLinear(Linear):
    """A linear layer with factorized noise on its weights (Fortunato et al. 2018, section 3b).

    The scale of the noise is learned, starting at `sigma` / sqrt(inputs). `draw` sets the noise of the next calls.
    """

    def __init__(
        self, inputs: int, outputs: int, gains: list[float], rngs: list[np.random.Generator], sigma: float = 0.5
    ) -> None:
        super().__init__(inputs, outputs, gains, rngs)
        self.weight_sigma = nn.Parameter(torch.full_like(self.weight, sigma / inputs**0.5))
        self.bias_sigma = nn.Parameter(torch.full_like(self.bias, sigma / inputs**0.5))
        self._is_noisy = False
        self._noise = [torch.zeros(len(rngs), 1, size) for size in (inputs, outputs)]

    def draw(self, rngs: list[np.random.Generator] | None) -> None:
        """Draw noise from each Session's stream; None removes it."""
        self._is_noisy = rngs is not None
        if rngs is None:
            return
        drawn = np.stack([rng.standard_normal(self.inputs + self.outputs) for rng in rngs])
        noise = upload((np.sign(drawn) * np.sqrt(np.abs(drawn))).astype(np.float32), self.weight.device).unsqueeze(1)
        for own, values in zip(self._noise, noise.split([self.inputs, self.outputs], -1), strict=True):
            own.copy_(values)

    def forward(self, x: Tensor) -> Tensor:
        if not self._is_noisy:
            return super().forward(x)
        of_inputs, of_outputs = self._noise
        of_weight = of_outputs.mT * of_inputs if self.transposed else of_inputs.mT * of_outputs
        weight, bias = self.weight + self.weight_sigma * of_weight, self.bias + self.bias_sigma * of_outputs
        return self.product(x, weight, bias)

    def _apply(self, fn: Any, recurse: bool = True) -> NoisyLinear:
        super()._apply(fn, recurse)
        self._noise = [fn(noise) for noise in self._noise]
        return self


class _Tanh(torch.autograd.Function):
    """tanh in place by numpy, whose vectorized float32 version is some six times faster than torch's on a CPU."""

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
    """Hyperbolic tangent, elementwise; in place on a CPU."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or is_exporting():
        return torch.tanh(x)
    if compiles_for_cpu(x):
        return kernels.tanh(x)
    if torch.is_grad_enabled():
        return _Tanh.apply(x)
    array = x.numpy()
    np.tanh(array, out=array)
    return x


def in_whole_lanes(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Pad the argument of an elementwise function to a whole number of vector registers for each Session."""

    @wraps(function)
    def padded(x: Tensor) -> Tensor:
        if is_traced(x):
            return function(x)
        flat = x.flatten(1)
        missing = -flat.shape[1] % LANES
        if not missing:
            return function(x)
        return function(functional.pad(flat, (0, missing)))[:, : flat.shape[1]].view(x.shape)

    return padded


# tanh and relu work in place: the layer before does not need its output.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "relu": torch.relu_,
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
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def hidden_layers(
    inputs: int, widths: list[int], activation: str, gain: float, rngs: list[np.random.Generator]
) -> list[nn.Module]:
    """Return fully connected layers, each followed by its activation."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [Linear(inputs, width, [gain] * len(rngs), rngs), Activation(activation)]
        inputs = width
    return layers


class FlatTrunk(nn.Sequential):
    """Layers over flattened observations, to which extra numbers are appended."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        x = scale_images(x).flatten(2)
        if extra is not None:
            x = torch.cat([x, extra], -1)
        for layer in self:
            x = layer.forward(x)
        return x


def scale_images(x: Tensor) -> Tensor:
    """Return observations as floats; images in bytes are scaled to 0..1."""
    return x.float() * (1 / 255) if x.dtype == torch.uint8 else x
