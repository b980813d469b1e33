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

from lab.net.net import Output

LANES = 32  # float32 numbers that torch's vectorized loops take at once: two of the widest registers
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
        pairs = zip(rngs, gains, strict=True)
        weight = np.stack([orthogonal(rng, inputs, outputs, gain) for rng, gain in pairs]).astype(np.float32)
        self.inputs, self.outputs = inputs, outputs
        self.transposed = outputs < NARROW
        self.weight = nn.Parameter(torch.from_numpy(weight.swapaxes(1, 2).copy() if self.transposed else weight))
        self.bias = nn.Parameter(torch.zeros(len(rngs), 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return x times a weight, which is laid out as the layer's own, plus a bias."""
        # A width of 1 takes another path in the batched product for one Session than for several.
        if self.outputs == 1:
            return (x * weight).sum(-1, keepdim=True) + bias
        weight = weight.mT if self.transposed else weight
        if self.inputs == 1:
            return x * weight + bias
        return torch.baddbmm(bias, x, weight)


class NoisyLinear(Linear):
    """A linear layer whose weights are disturbed by factorised noise (Fortunato et al. 2018, section 3b).

    How far is learned, from `sigma` over the root of the number of inputs on. Noise is drawn for a while, by `draw`.
    """

    def __init__(
        self, inputs: int, outputs: int, gains: list[float], rngs: list[np.random.Generator], sigma: float = 0.5
    ) -> None:
        super().__init__(inputs, outputs, gains, rngs)
        self.weight_sigma = nn.Parameter(torch.full_like(self.weight, sigma / inputs**0.5))
        self.bias_sigma = nn.Parameter(torch.full_like(self.bias, sigma / inputs**0.5))
        self._noise: tuple[Tensor, Tensor] | None = None

    def draw(self, rngs: list[np.random.Generator] | None) -> None:
        """Draw the noise of the steps to come from each Session's stream; without streams there is none."""
        if rngs is None:
            self._noise = None
            return
        drawn = np.stack([rng.standard_normal(self.inputs + self.outputs) for rng in rngs])
        noise = torch.from_numpy((np.sign(drawn) * np.sqrt(np.abs(drawn))).astype(np.float32)).to(self.weight.device)
        of_inputs, of_outputs = noise[:, None, : self.inputs], noise[:, None, self.inputs :]
        outer = of_outputs.mT * of_inputs if self.transposed else of_inputs.mT * of_outputs
        self._noise = outer, of_outputs

    def forward(self, x: Tensor) -> Tensor:
        if self._noise is None:
            return super().forward(x)
        of_weight, of_bias = self._noise
        return self.product(x, self.weight + self.weight_sigma * of_weight, self.bias + self.bias_sigma * of_bias)


def head(inputs: int, output: Output, rngs: list[np.random.Generator]) -> Linear:
    """Return the last layer of an output."""
    return (NoisyLinear if output.noisy else Linear)(inputs, output.size, output.gains, rngs)


class _Tanh(torch.autograd.Function):
    """tanh in place, by numpy, whose vectorized float32 version is some six times faster than torch's on a CPU."""

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


# tanh and relu take the place of their argument, which the layer before has no need of.
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
        self.name = name
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
