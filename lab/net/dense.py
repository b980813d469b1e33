"""Fully connected layers and what normalizes between them on one core, forward and backward by numpy.

In small networks most of torch's time goes into beginning operations. Numpy begins one in a fifth of the time, and its
products of narrow layers are several times faster; of wide ones they are as fast. Autograd sees an output as a tensor
that was given: what follows from its gradient for the layers is computed here, and lands where the layers' gradients
are kept without a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab.net.layers import Activation, Linear
from lab.net.normalization import EPS, RATE, BatchRenorm, corrections

FORWARD: dict[str, Callable[[np.ndarray], Any]] = {
    "tanh": lambda x: np.tanh(x, out=x),
    "relu": lambda x: np.maximum(x, 0.0, out=x),
}
# What a gradient is multiplied by, of what the activation gave.
SLOPE: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tanh": lambda y: 1 - y * y, "relu": lambda y: y > 0}


MOST = 1000  # outputs that may wait for their gradients


class Step:
    """A layer's arithmetic, forward and backward.

    Attributes:
        module: the layer, which has the numbers.
        gradients: where the gradients of its weight and its bias go; null until they are first wanted.
        fresh: whether nothing has come there yet.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.gradients: tuple[np.ndarray, np.ndarray] | None = None
        self.fresh = True

    def look(self) -> None:
        """Find the layer's numbers, which may lie elsewhere than before."""
        raise NotImplementedError

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the output [S, B, outputs] of rows [S, B, inputs], and what `backward` needs of this."""
        raise NotImplementedError

    def backward(self, kept: Any, gradient: np.ndarray, learning: bool, onward: bool) -> np.ndarray | None:
        """Take the gradient of the output, which is not of use to anyone else unless it is that of the last layer.

        Args:
            kept: what `forward` returned for it.
            gradient: of the output, [S, B, outputs].
            learning: whether to add to `gradients`.
            onward: whether the gradient of the input is wanted.

        Returns:
            The gradient of the input [S, B, inputs], or null.
        """
        raise NotImplementedError


class Product(Step):
    """A linear layer, and the activation behind it, if there is one, which takes the place of its output.

    Attributes:
        activation: its name.
    """

    module: Linear
    activation: str | None = None

    def look(self) -> None:
        weight = self.module.weight.detach().numpy()
        self.weight = weight.swapaxes(1, 2) if self.module.transposed else weight
        self.bias = self.module.bias.detach().numpy()

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y: np.ndarray = np.matmul(x, self.weight)
        y += self.bias
        if self.activation:
            FORWARD[self.activation](y)
        return y, (x, y)

    def backward(self, kept: Any, gradient: np.ndarray, learning: bool, onward: bool) -> np.ndarray | None:
        x, y = kept
        if self.activation:
            gradient *= SLOPE[self.activation](y)
        if learning and self.gradients:
            weight, bias = self.gradients
            left, right = (gradient, x) if self.module.transposed else (x, gradient)
            if self.fresh:
                np.matmul(left.swapaxes(1, 2), right, out=weight)
                gradient.sum(1, keepdims=True, out=bias)
            else:
                weight += np.matmul(left.swapaxes(1, 2), right)
                bias += gradient.sum(1, keepdims=True)
            self.fresh = False
        return np.matmul(gradient, self.weight.swapaxes(1, 2)) if onward else None


class Renormalization(Step):
    """A batch renormalization: see there for the arithmetic, which is the same."""

    module: BatchRenorm

    def look(self) -> None:
        module = self.module
        self.weight, self.bias = module.weight.detach().numpy(), module.bias.detach().numpy()
        self.mean, self.variance, self.batches = (
            buffer.numpy() for buffer in (module.mean, module.variance, module.batches)
        )

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        if not self.module.training:
            inverse = 1 / np.sqrt(self.variance + EPS)
            standardized = x - self.mean
            standardized *= inverse
            y = standardized * self.weight
            y += self.bias
            return y, (standardized, inverse, None, 1.0, 0.0)
        given = self.module.sample_weights
        share = np.full((len(x), x.shape[1], 1), 1 / x.shape[1], np.float32) if given is None else given.numpy()
        across = share.swapaxes(1, 2)
        mean = np.matmul(across, x)
        standardized = x - mean
        variance = np.matmul(across, standardized * standardized)
        inverse = 1 / np.sqrt(variance + EPS)
        standardized *= inverse
        rate = np.float32(RATE)
        r: Any = 1.0
        d: Any = 0.0
        if (self.batches >= self.module.warmup).any():
            found = corrections(*(torch.from_numpy(a) for a in (mean, variance, self.mean, self.variance)))
            settled = self.batches >= self.module.warmup
            r, d = np.where(settled, found[0].numpy(), r), np.where(settled, found[1].numpy(), d)
        self.mean += rate * (mean - self.mean)
        self.variance += rate * (variance - self.variance)
        self.batches += 1
        scale = r * self.weight
        y = standardized * scale
        y += d * self.weight + self.bias
        return y, (standardized, inverse, share, r, d)

    def backward(self, kept: Any, gradient: np.ndarray, learning: bool, onward: bool) -> np.ndarray | None:
        standardized, inverse, share, r, d = kept
        if learning or share is not None:
            total = gradient.sum(1, keepdims=True)
            product = (gradient * standardized).sum(1, keepdims=True)
        if learning and self.gradients:
            weight, bias = self.gradients
            if self.fresh:
                weight.fill(0.0)
                bias.fill(0.0)
            weight += r * product + d * total
            bias += total
            self.fresh = False
        if not onward:
            return None
        if share is not None:  # the moments changed with every row
            through = standardized * product
            through += total
            through *= share
            gradient -= through
        gradient *= r * self.weight * inverse
        return gradient


STEPS: dict[type[nn.Module], type[Step]] = {Linear: Product, BatchRenorm: Renormalization}


class Dense:
    """Layers one after the other, the last of them linear.

    Attributes:
        steps: the layers' arithmetic, in their order.
        waiting: outputs that autograd is to find the gradients of, each with what its layers need for theirs.
        learning: whether the layers' own gradients are wanted, and not only those of what went in.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        """Take layers of which `serves` says that they will do."""
        self.steps: list[Step] = []
        for layer in layers:
            if isinstance(layer, Activation):
                self.steps[-1].activation = layer.name  # type: ignore[attr-defined]
            else:
                self.steps.append(STEPS[type(layer)](layer))
        self.waiting: list[tuple[Tensor, list[Any]]] = []
        self.learning = False
        self._at: int | None = None  # where the first weight is, and with it all numbers

    @staticmethod
    def serves(layers: list[nn.Module]) -> bool:
        """Say whether layers, in their order, are of the kinds that are known here."""
        kinds = [type(layer) for layer in layers]
        known = all(
            layer.name in FORWARD if kind is Activation else kind in STEPS
            for kind, layer in zip(kinds, layers, strict=True)
        )
        # An activation takes the place of its input, which only a linear layer has no need of.
        behind = all(first is Linear for first, second in itertools.pairwise(kinds) if second is Activation)
        return bool(layers) and kinds[0] is not Activation and kinds[-1] is Linear and known and behind

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layers' output [S, B, outputs] of rows [S, B, inputs]."""
        output, kept = self.forward(x.detach().numpy())
        if not torch.is_grad_enabled():
            return torch.from_numpy(output)
        if x.requires_grad:
            through: Tensor = _Through.apply(x, self, output, kept)
            return through
        if len(self.waiting) >= MOST:
            raise RuntimeError(
                f"A network was asked {MOST} times for outputs with gradients, and nothing was learned from them: where"
                " none are needed, ask under torch.no_grad()."
            )
        result = torch.from_numpy(output).requires_grad_()
        self.waiting.append((result, kept))
        return result

    def begin(self, gradients: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, list[Any]]]:
        """Want the layers' gradients from here on, at these places of weights and biases; return what waits for its."""
        for step, (weight, bias) in zip(self.steps, gradients, strict=True):
            step.gradients = step.gradients or (weight.numpy(), bias.numpy())
            step.fresh = True
        self.learning = True
        waiting, self.waiting = self.waiting, []
        return waiting

    def end(self) -> None:
        """Want the layers' gradients no more; where nothing had any they are zero."""
        self.learning = False
        for step in self.steps:
            if step.fresh and step.gradients:
                for gradient in step.gradients:
                    gradient.fill(0.0)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """Return the output, and what each layer needs for its gradients."""
        where = self.steps[0].module.weight.data_ptr()
        if self._at != where:
            for step in self.steps:
                step.look()
            self._at = where
        kept = []
        for step in self.steps:
            x, needed = step.forward(x)
            kept.append(needed)
        return x, kept

    def backward(self, kept: list[Any], gradient: np.ndarray, to_input: bool) -> np.ndarray | None:
        """Keep the gradients of the layers, if they are wanted, and return that of what went in, if it is."""
        found: np.ndarray | None = gradient
        for index in reversed(range(len(self.steps))):
            assert found is not None
            found = self.steps[index].backward(kept[index], found, self.learning, onward=to_input or index > 0)
        return found


class _Through(torch.autograd.Function):
    """All layers as one step of autograd, through which gradients go on to what went in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dense: Dense, output: np.ndarray, kept: list[Any]) -> Tensor:
        ctx.dense, ctx.kept = dense, kept
        return torch.from_numpy(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = np.ascontiguousarray(gradients[0].numpy())
        return torch.from_numpy(ctx.dense.backward(ctx.kept, gradient, to_input=True)), None, None, None
