"""A network with named outputs, and the buffer that holds the parameters of a whole stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab.net.dense import Dense
from lab.net.layers import LANES, Activation, Linear, NoisyLinear, head
from lab.net.net import Output


class StackedNetwork(nn.Module):
    """Trunks and heads by the name of an output; outputs may share a trunk, which is then computed once.

    A trunk turns observations [S, B, ...] and the extra numbers beside them, or null, into features [S, B, N].

    Attributes:
        carry_size: numbers that it carries from one step of an environment to the next, K; 0 for one without a memory.
        burn_in: steps at the start of a sequence in which it only brings its memory up to date.
    """

    carry_size = 0
    burn_in = 0

    def __init__(self, trunks: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunks, self.heads = nn.ModuleDict(trunks), nn.ModuleDict(heads)
        self._parts: dict[str, tuple[Any, Any]] = {name: (trunks[name], head) for name, head in heads.items()}
        parts = {name: [*trunks[name].children(), head] for name, head in heads.items()}
        flat = all(isinstance(trunk, FlatTrunk) for trunk in trunks.values())
        apart = len({id(trunk) for trunk in trunks.values()}) == len(trunks)
        self.dense: dict[str, Dense] = {}  # what computes outputs on one core, if it serves these layers
        if flat and apart and all(Dense.serves(layers) for layers in parts.values()):
            self.dense = {name: Dense(layers) for name, layers in parts.items()}

    def forward(self, x: Tensor, *outputs: str, extra: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute named outputs.

        Args:
            x: observations, [S, B, ...].
            outputs: their names.
            extra: numbers beside each observation, [S, B, extra], for a network that was built for them.

        Returns:
            The outputs [S, B, size] in the order asked for.
        """
        if self.dense and x.device.type == "cpu" and torch.get_num_threads() == 1:
            rows = flat_rows(x, extra)
            return tuple(self.dense[output](rows) for output in outputs)
        features: dict[nn.Module, Tensor] = {}
        results = []
        for output in outputs:
            trunk, head = self._parts[output]
            if trunk not in features:
                features[trunk] = trunk(x, extra)
            results.append(head(features[trunk]))
        return tuple(results)

    def step(self, x: Tensor, carry: Tensor, *outputs: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Compute named outputs for one step of environments.

        Args:
            x: observations, [S, E, ...].
            carry: what is remembered of the steps before, [S, E, K].
            outputs: their names.

        Returns:
            The outputs [S, E, size] in the order asked for, and what is remembered now.
        """
        return self(x, *outputs), carry

    def unroll(self, x: Tensor, carry: Tensor, begins: Tensor, *outputs: str) -> tuple[Tensor, ...]:
        """Compute named outputs for whole sequences, which lie one after the other: M of T steps each.

        Args:
            x: observations, [S, M * T, ...].
            carry: what was remembered before each sequence, [S, M, K].
            begins: 1 for the steps before which the memory is emptied, as an episode begins, [S, M * T].
            outputs: their names.

        Returns:
            The outputs [S, M * T, size] in the order asked for.
        """
        return self(x, *outputs)

    def draw(self, rngs: list[np.random.Generator] | None) -> None:
        """Draw the noise of noisy layers from each Session's stream, or take it away."""
        for module in self.modules():
            if isinstance(module, NoisyLinear):
                module.draw(rngs)


def with_heads(
    trunk: Callable[[], nn.Module],
    width: int,
    shared: bool,
    outputs: list[Output],
    rngs: list[np.random.Generator],
) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Return trunks and heads by the name of their output.

    Args:
        trunk: makes a trunk.
        width: features that a trunk gives, N.
        shared: whether all outputs share one trunk.
        outputs: what the network is to compute.
        rngs: each Session's stream of initialization.
    """
    common = trunk() if shared else None
    trunks: dict[str, nn.Module] = {}
    heads: dict[str, nn.Module] = {}
    for output in outputs:
        trunks[output.name] = common or trunk()
        heads[output.name] = head(width, output, rngs)
    return trunks, heads


def hidden_layers(
    inputs: int, widths: list[int], activation: str, gain: float, rngs: list[np.random.Generator]
) -> list[nn.Module]:
    """Return fully connected layers of some widths, each followed by its activation."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [Linear(inputs, width, [gain] * len(rngs), rngs), Activation(activation)]
        inputs = width
    return layers


class FlatTrunk(nn.Sequential):
    """Layers over observations laid out flat, with the extra numbers behind them."""

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        x = flat_rows(x, extra)
        for layer in self:
            x = layer.forward(x)
        return x


def flat_rows(x: Tensor, extra: Tensor | None) -> Tensor:
    """Return observations [S, B, ...] as rows [S, B, N], with the extra numbers behind them."""
    rows = scaled(x).flatten(2)
    return rows if extra is None else torch.cat([rows, extra], -1)


def scaled(x: Tensor) -> Tensor:
    """Return observations as numbers: those of an image in bytes become 0 to 1."""
    return x.float() * (1 / 255) if x.dtype == torch.uint8 else x


class Parameters:
    """All parameters of a stack's networks, moved into one buffer [S, P], and their gradients in its twin.

    Each parameter [S, ...] becomes a view of its slot. Slots are padded to whole vector registers, so that a Session's
    numbers take the same path through elementwise code at any place in a stack; padding stays zero.

    Attributes:
        values: the parameters, [S, P].
        gradients: their gradients, [S, P].
        buffers: what else the networks remember, as the moments of a normalization or parameters that are not learned,
            [S, ...] by name.
    """

    def __init__(self, module: nn.Module) -> None:
        named = dict(module.named_parameters())
        self.named = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        frozen = {name: parameter for name, parameter in named.items() if not parameter.requires_grad}
        self.buffers = frozen | {name: buffer for name, buffer in module.named_buffers() if buffer.numel()}
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
        self._all = list(zip(self.leaves, self._gradient_views, strict=True))
        views = {id(leaf): view for leaf, view in self._all}
        networks = [part for part in module.modules() if isinstance(part, StackedNetwork) and device.type == "cpu"]
        self._dense = [
            (dense, [(views.pop(id(step.module.weight)), views.pop(id(step.module.bias))) for step in dense.steps])
            for network in networks
            for dense in network.dense.values()
        ]
        self._others = [(leaf, view) for leaf, view in self._all if id(leaf) in views]

    def backward(self, losses: Tensor, weight: Tensor) -> None:
        """Fill `gradients` with those of each Session's weighted sum of losses; a parameter it lacks gets zero.

        Args:
            losses: of every sample, [S, B].
            weight: each sample's share of its Session's loss, [S, B].
        """
        waiting = [(dense, dense.begin(places)) for dense, places in self._dense]
        outputs = [(dense, output, kept) for dense, found in waiting for output, kept in found]
        leaves = self._others if outputs else self._all
        for _, view in self._others:
            view.zero_()
        wanted = [*(output for _, output, _ in outputs), *(leaf for leaf, _ in leaves)]
        gradients = torch.autograd.grad(losses, wanted, weight, allow_unused=True)
        for (dense, _, kept), gradient in zip(outputs, gradients, strict=False):
            if gradient is not None:
                dense.backward(kept, np.ascontiguousarray(gradient.numpy()), to_input=False)
        for dense, _ in self._dense:
            dense.end()
        for (_, view), gradient in zip(leaves, gradients[len(outputs) :], strict=True):
            if gradient is not None:
                view.copy_(gradient)

    def session(self, index: int) -> dict[str, Tensor]:
        """Return copies of one Session's parameters and buffers by name, without the session axis, on the CPU."""
        return {name: leaf.detach()[index].cpu().clone() for name, leaf in (self.named | self.buffers).items()}

    def session_gradients(self, index: int) -> dict[str, Tensor]:
        """Return copies of one Session's gradients by name, without the session axis, on the CPU."""
        views = zip(self.named, self._gradient_views, strict=True)
        return {name: view[index].cpu().clone() for name, view in views}

    @torch.no_grad()
    def restore(self, index: int, values: dict[str, Tensor]) -> None:
        """Set one Session's parameters to what `session` returned."""
        for name, leaf in (self.named | self.buffers).items():
            leaf[index].copy_(values[name])

    @torch.no_grad()
    def polyak_update(self, other: Parameters, tau: Tensor) -> None:
        """Move a share of the way, [S, 1], toward the parameters of another network of the same kind; 1 copies it."""
        self.values.lerp_(other.values, tau)
        for name, buffer in self.buffers.items():
            buffer.copy_(other.buffers[name])
