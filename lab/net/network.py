"""A network with named outputs, and the buffer that holds all parameters of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lab.net.layers import LANES, NoisyLinear

if TYPE_CHECKING:
    from lab.common.rows import Row


class StackedNetwork(nn.Module):
    """Trunks and heads by the name of an output. Outputs may share a trunk, which is then computed once.

    A trunk maps observations [S, B, ...] and optional extra numbers [S, B, extra] to features [S, B, N].

    Attributes:
        carry_size: numbers carried from one environment step to the next, K; 0 without memory.
        burn_in: steps at the start of a sequence that only update the recurrent state.
        row: observations [S, B, D] of which the trunks take what it selects; None if they take them as they are.
    """

    carry_size = 0
    burn_in = 0
    row: Row | None = None

    def __init__(self, trunks: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunks, self.heads = nn.ModuleDict(trunks), nn.ModuleDict(heads)
        self._parts = {name: (trunks[name], heads[name]) for name in heads}  # faster to read than a ModuleDict

    def forward(self, x: Tensor, *outputs: str, extra: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the named outputs [S, B, size] for observations [S, B, ...] and extra numbers [S, B, extra]."""
        if self.row:
            x = self.row.select(x)
        features: dict[nn.Module, Tensor] = {}
        results = []
        for output in outputs:
            trunk, head = self._parts[output]  # called without hooks, which take as long as a small layer
            if trunk not in features:
                features[trunk] = trunk.forward(x, extra)
            results.append(head.forward(features[trunk]))
        return tuple(results)

    def step(self, x: Tensor, carry: Tensor | None, *outputs: str) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return the named outputs [S, E, size] of one environment step, and the new carry [S, E, K]."""
        return self.forward(x, *outputs), carry

    def unroll(self, x: Tensor, carry: Tensor, begins: Tensor, *outputs: str) -> tuple[Tensor, ...]:
        """Compute named outputs for M sequences of T steps, laid out one after the other.

        Args:
            x: observations, [S, M * T, ...].
            carry: state before each sequence, [S, M, K].
            begins: 1 for steps that begin an episode, before which the state is reset, [S, M * T].
            outputs: their names.

        Returns:
            The outputs [S, M * T, size], in the order asked for.
        """
        return self(x, *outputs)

    def draw(self, rngs: list[np.random.Generator] | None) -> None:
        """Draw the noise of noisy layers from each Session's stream; None removes it."""
        for module in self.modules():
            if isinstance(module, NoisyLinear):
                module.draw(rngs)


class Parameters:
    """All parameters of a stack's networks, moved into one buffer [S, P], and their gradients in another.

    Each parameter [S, ...] becomes a view of its slot. Slots are padded with zeros to whole vector registers, so that
    elementwise code rounds a Session's numbers the same way at any place in a stack.

    Attributes:
        values: the parameters, [S, P].
        gradients: their gradients, [S, P].
        buffers: other state of the networks by name, such as running statistics, [S, ...].
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        self.named = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        frozen = {name: parameter for name, parameter in parameters.items() if not parameter.requires_grad}
        self.buffers = frozen | {name: buffer for name, buffer in module.named_buffers() if buffer.numel()}
        self.leaves = list(self.named.values())
        self._shapes = [leaf.shape[1:] for leaf in self.leaves]
        self._slots = [shape.numel() + -shape.numel() % LANES for shape in self._shapes]
        self.values = self.leaves[0].new_zeros(len(self.leaves[0]), sum(self._slots), requires_grad=False)
        self.gradients = torch.zeros_like(self.values)
        for leaf, view in zip(self.leaves, self._split(self.values), strict=True):
            leaf.data = view.copy_(leaf.data)
        self._gradient_views = self._split(self.gradients)

    def _split(self, buffer: Tensor) -> list[Tensor]:
        """Return views of the slots in a buffer [S', P], each of the shape of its parameter."""
        parts = zip(self._shapes, buffer.split(self._slots, 1), strict=True)
        return [part[:, : shape.numel()].view(-1, *shape) for shape, part in parts]

    @property
    def views(self) -> list[Tensor]:
        """The parameters, and the gradients of each, all of them views of the buffers."""
        return [*self.leaves, *self._gradient_views]

    def views_of(self, values: Tensor, gradients: Tensor) -> list[Tensor]:
        """Return the same views of other buffers; those of values can be differentiated."""
        leaves = [view.detach().requires_grad_() for view in self._split(values)]
        return [*leaves, *self._split(gradients)]

    def backward(self, losses: Tensor, sample_weights: Tensor) -> None:
        """Set `gradients` to those of each Session's weighted sum of losses, both [S, B]."""
        gradients = torch.autograd.grad(losses, self.leaves, sample_weights, allow_unused=True, materialize_grads=True)
        torch._foreach_copy_(self._gradient_views, gradients)

    def session(self, index: int) -> dict[str, Tensor]:
        """Return copies of one Session's parameters and buffers by name, without the session axis, on the CPU."""
        return {name: value.detach()[index].cpu().clone() for name, value in (self.named | self.buffers).items()}

    def session_gradients(self, index: int) -> dict[str, Tensor]:
        """Return copies of one Session's gradients by name, without the session axis, on the CPU."""
        views = zip(self.named, self._gradient_views, strict=True)
        return {name: view[index].cpu().clone() for name, view in views}

    @torch.no_grad()
    def restore(self, index: int, values: dict[str, Tensor]) -> None:
        """Set one Session's parameters and buffers to what `session` returned."""
        for name, leaf in (self.named | self.buffers).items():
            leaf[index].copy_(values[name])

    @torch.no_grad()
    def polyak_update(self, other: Parameters, tau: Tensor) -> None:
        """Move the parameters by a fraction tau [S, 1] toward those of a network of the same kind; 1 copies them."""
        self.values.lerp_(other.values, tau)
        for name, buffer in self.buffers.items():
            buffer.copy_(other.buffers[name])
