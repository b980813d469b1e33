"""A network with named outputs, and the buffer that holds the parameters of a whole stack."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lab.net.layers import LANES


class StackedNetwork(nn.Module):
    """Trunks and heads by the name of an output; outputs may share a trunk, which is then computed once."""

    def __init__(self, trunks: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunks, self.heads = nn.ModuleDict(trunks), nn.ModuleDict(heads)

    def forward(self, x: Tensor, *outputs: str) -> tuple[Tensor, ...]:
        """Compute the named outputs [S, B, size] of observations [S, B, D], in the order asked for."""
        features: dict[nn.Module, Tensor] = {}
        results = []
        for output in outputs:
            trunk = self.trunks[output]
            if trunk not in features:
                features[trunk] = trunk(x)
            results.append(self.heads[output](features[trunk]))
        return tuple(results)


class Parameters:
    """All parameters of a stack's networks, moved into one buffer [S, P], and their gradients in its twin.

    Each parameter [S, ...] becomes a view of its slot. Slots are padded to whole vector registers, so that a Session's
    numbers take the same path through elementwise code at any place in a stack; padding stays zero.

    Attributes:
        values: the parameters, [S, P].
        gradients: their gradients, [S, P].
    """

    def __init__(self, module: nn.Module) -> None:
        self.named = dict(module.named_parameters())
        self.leaves = list(self.named.values())
        sizes = [leaf[0].numel() for leaf in self.leaves]
        slots = [size + -size % LANES for size in sizes]
        stack, device = self.leaves[0].shape[0], self.leaves[0].device
        self.values = torch.zeros(stack, sum(slots), device=device)
        self.gradients = torch.zeros_like(self.values)
        self._gradient_views = []
        start = 0
        for leaf, size, slot in zip(self.leaves, sizes, slots, strict=True):
            view = self.values[:, start : start + size].view(leaf.shape)
            view.copy_(leaf.data)
            leaf.data = view
            self._gradient_views.append(self.gradients[:, start : start + size].view(leaf.shape))
            start += slot

    def differentiate(self, loss: Tensor) -> None:
        """Fill `gradients` with those of a loss, the sum of each Session's own; a parameter it lacks gets zero."""
        gradients = torch.autograd.grad(loss, self.leaves, materialize_grads=True)
        torch._foreach_copy_(self._gradient_views, gradients)

    def session(self, index: int) -> dict[str, Tensor]:
        """Return copies of one Session's parameters by name, without the session axis, on the CPU."""
        return {name: leaf.detach()[index].cpu().clone() for name, leaf in self.named.items()}

    def session_gradients(self, index: int) -> dict[str, Tensor]:
        """Return copies of one Session's gradients by name, without the session axis, on the CPU."""
        views = zip(self.named, self._gradient_views, strict=True)
        return {name: view[index].cpu().clone() for name, view in views}

    @torch.no_grad()
    def restore(self, index: int, values: dict[str, Tensor]) -> None:
        """Set one Session's parameters to what `session` returned."""
        for name, leaf in self.named.items():
            leaf[index].copy_(values[name])
