"""Fully connected layers on one core, forward and backward by numpy.

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

FORWARD: dict[str, Callable[[np.ndarray], Any]] = {
    "tanh": lambda x: np.tanh(x, out=x),
    "relu": lambda x: np.maximum(x, 0.0, out=x),
}
# What a gradient is multiplied by, of what the activation gave.
SLOPE: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tanh": lambda y: 1 - y * y, "relu": lambda y: y > 0}


MOST = 1000  # outputs that may wait for their gradients


class Dense:
    """Linear layers, each with tanh, relu or nothing behind it.

    Attributes:
        waiting: outputs that autograd is to find the gradients of, each with what its layers gave.
        learning: whether the layers' own gradients are wanted, and not only those of what went in.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        """Take layers of which `serves` says that they will do."""
        self.linear = [layer for layer in layers if isinstance(layer, Linear)]
        self.activations: list[str | None] = [None] * len(self.linear)
        count = 0
        for layer in layers:
            if isinstance(layer, Linear):
                count += 1
            elif isinstance(layer, Activation):
                self.activations[count - 1] = layer.name
        self.waiting: list[tuple[Tensor, list[np.ndarray]]] = []
        self.learning = False
        self._at: int | None = None  # where the first weight is, and with it all of them
        self._views: list[tuple[np.ndarray, np.ndarray]] = []
        self._gradients: list[tuple[np.ndarray, np.ndarray]] = []
        self._fresh = True  # whether there are no gradients of the layers yet

    @staticmethod
    def serves(layers: list[nn.Module]) -> bool:
        """Say whether layers, in their order, are of the kinds that are known here."""
        kinds = [type(layer) for layer in layers]
        known = all(
            kind is Linear or (kind is Activation and layer.name in FORWARD)
            for kind, layer in zip(kinds, layers, strict=True)
        )
        alternate = all(Linear in pair for pair in itertools.pairwise(kinds))
        return bool(layers) and kinds[0] is Linear and known and alternate

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layers' output [S, B, outputs] of rows [S, B, inputs]."""
        if not torch.is_grad_enabled():
            return torch.from_numpy(self.forward(x.numpy())[-1])
        given = self.forward(x.detach().numpy())
        if x.requires_grad:
            through: Tensor = _Step.apply(x, self, given)
            return through
        if len(self.waiting) >= MOST:
            raise RuntimeError(
                f"A network was asked {MOST} times for outputs with gradients, and nothing was learned from them: where"
                " none are needed, ask under torch.no_grad()."
            )
        output = torch.from_numpy(given[-1]).requires_grad_()
        self.waiting.append((output, given))
        return output

    def views(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the weight [S, inputs, outputs] and the bias [S, 1, outputs] of every layer, where they lie."""
        where = self.linear[0].weight.data_ptr()
        if self._at != where:
            pairs = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in self.linear]
            turned = zip(self.linear, pairs, strict=True)
            self._views = [(w.swapaxes(1, 2) if layer.transposed else w, b) for layer, (w, b) in turned]
            self._at = where
        return self._views

    def begin(self, gradients: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, list[np.ndarray]]]:
        """Want the layers' gradients from here on, at these places of weights and biases; return what waits for its."""
        if not self._gradients:
            self._gradients = [(weight.numpy(), bias.numpy()) for weight, bias in gradients]
        self.learning, self._fresh = True, True
        waiting, self.waiting = self.waiting, []
        return waiting

    def end(self) -> None:
        """Want the layers' gradients no more; where nothing had any they are zero."""
        self.learning = False
        if self._fresh:
            for pair in self._gradients:
                for gradient in pair:
                    gradient.fill(0.0)

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        """Return what each layer gave, after what went in."""
        given = [x]
        for (weight, bias), name in zip(self.views(), self.activations, strict=True):
            y: np.ndarray = np.matmul(given[-1], weight)
            y += bias
            if name:
                FORWARD[name](y)
            given.append(y)
        return given

    def backward(self, given: list[np.ndarray], gradient: np.ndarray, to_input: bool) -> np.ndarray | None:
        """Keep the gradients of the layers, if they are wanted, and return that of what went in, if it is."""
        views = self.views()
        for index in reversed(range(len(self.linear))):
            name = self.activations[index]
            if name and index < len(self.linear) - 1:  # nobody else has this gradient
                gradient *= SLOPE[name](given[index + 1])
            elif name:
                gradient = gradient * SLOPE[name](given[index + 1])
            if self.learning:
                self._keep(index, given[index], gradient)
            if index or to_input:
                gradient = np.matmul(gradient, views[index][0].swapaxes(1, 2))
        self._fresh = self._fresh and not self.learning
        return gradient if to_input else None

    def _keep(self, index: int, x: np.ndarray, gradient: np.ndarray) -> None:
        """Keep the gradients of a layer, or add them to those of an earlier output."""
        weight, bias = self._gradients[index]
        left, right = (gradient, x) if self.linear[index].transposed else (x, gradient)
        if self._fresh:
            np.matmul(left.swapaxes(1, 2), right, out=weight)
            gradient.sum(1, keepdims=True, out=bias)
        else:
            weight += np.matmul(left.swapaxes(1, 2), right)
            bias += gradient.sum(1, keepdims=True)


class _Step(torch.autograd.Function):
    """All layers as one step of autograd, through which gradients go on to what went in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dense: Dense, given: list[np.ndarray]) -> Tensor:
        ctx.dense, ctx.given = dense, given
        return torch.from_numpy(given[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = np.ascontiguousarray(gradients[0].numpy())
        return torch.from_numpy(ctx.dense.backward(ctx.given, gradient, to_input=True)), None, None
