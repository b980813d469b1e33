"""Recurrent cells of a stack, and networks of them: a step at a time to act, whole sequences to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from lab.net.layers import ACTIVATIONS, Linear
from lab.net.network import StackedNetwork

sigmoid = ACTIVATIONS["sigmoid"]


class Cell(nn.Module):
    """A recurrent cell: what it is given is turned into `gates` numbers for all steps at once, then a step at a time.

    Attributes:
        size: numbers that it gives, H.
        carry_size: numbers that it remembers, K, of which the first H are what it gives.
    """

    def __init__(self, inputs: int, size: int, gates: int, states: int, rngs: list[np.random.Generator]) -> None:
        """Make a cell with so many gates and states of the same size."""
        super().__init__()
        ones = [1.0] * len(rngs)
        self.size, self.carry_size = size, states * size
        self.given = Linear(inputs, gates * size, ones, rngs)
        self.remembered = Linear(size, gates * size, ones, rngs)

    def forward(self, given: Tensor, carry: Tensor) -> Tensor:
        """Take a step.

        Args:
            given: what the layer `given` made of the inputs, [S, B, gates * H].
            carry: what is remembered, [S, B, K].

        Returns:
            What is remembered now, [S, B, K].
        """
        raise NotImplementedError


class GRU(Cell):
    """Cho et al. 2014, section 2.3, in the form of torch.nn.GRU; gates in the order reset, update, candidate."""

    def __init__(self, inputs: int, size: int, rngs: list[np.random.Generator]) -> None:
        super().__init__(inputs, size, 3, 1, rngs)

    def forward(self, given: Tensor, carry: Tensor) -> Tensor:
        remembered, gates = self.remembered(carry), 2 * self.size
        reset, update = sigmoid(given[..., :gates] + remembered[..., :gates]).chunk(2, -1)
        candidate = torch.tanh(given[..., gates:] + reset * remembered[..., gates:])
        return (1 - update) * candidate + update * carry


class LSTM(Cell):
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates input, forget, output, candidate.

    The bias of the forget gate begins at 1 (Jozefowicz et al. 2015, section 2.2), so that it remembers at first.
    """

    def __init__(self, inputs: int, size: int, rngs: list[np.random.Generator]) -> None:
        super().__init__(inputs, size, 4, 2, rngs)
        with torch.no_grad():
            self.given.bias[..., size : 2 * size] = 1.0

    def forward(self, given: Tensor, carry: Tensor) -> Tensor:
        hidden, cell = carry.split(self.size, -1)
        total = given + self.remembered(hidden.contiguous())
        gates, candidate = total.split([3 * self.size, self.size], -1)
        admit, keep, show = sigmoid(gates.contiguous()).chunk(3, -1)
        cell = keep * cell + admit * torch.tanh(candidate)
        return torch.cat([show * torch.tanh(cell), cell], -1)


class RecurrentTrunk(nn.Module):
    """Layers that encode an observation, and a cell that remembers them."""

    def __init__(self, encoder: nn.Module, cell: Cell) -> None:
        super().__init__()
        self.encoder, self.cell = encoder, cell
        self.carry_size = cell.carry_size

    def step(self, x: Tensor, carry: Tensor) -> Tensor:
        """Return what is remembered [S, B, K] after observations [S, B, ...]; the first H of it are the features."""
        return cast("Tensor", self.cell(self.cell.given(self.encoder(x)), carry))

    def unroll(self, x: Tensor, carry: Tensor, begins: Tensor, burn_in: int) -> Tensor:
        """Return the features [S, M * T, H] of sequences that lie one after the other: see RecurrentNetwork.unroll."""
        given = self.cell.given(self.encoder(x))
        stack, sequences = carry.shape[:2]

        def by_time(values: Tensor) -> tuple[Tensor, ...]:
            # Not with time as the first axis, for which gradients would be added up in another order in a stack.
            return values.view(stack, sequences, -1, values.shape[-1]).unbind(2)

        features = []
        learning = torch.is_grad_enabled()
        for t, (step, begin) in enumerate(zip(by_time(given), by_time(begins.unsqueeze(-1)), strict=True)):
            with torch.set_grad_enabled(learning and t >= burn_in):
                carry = self.cell(step, carry * (1 - begin))
            features.append(carry[..., : self.cell.size])
        return torch.stack(features, 2).flatten(1, 2)


class RecurrentNetwork(StackedNetwork):
    """A network whose trunks remember; what they carry from step to step lies one after the other."""

    def __init__(self, trunks: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], burn_in: int) -> None:
        super().__init__(trunks, heads)
        self.burn_in = burn_in
        # Not registered again: each is in `trunks`, once or twice.
        self._distinct = tuple(dict.fromkeys(cast("RecurrentTrunk", trunk) for trunk in trunks.values()))
        self.carry_size = sum(trunk.carry_size for trunk in self._distinct)

    def parts(self, carry: Tensor) -> dict[RecurrentTrunk, Tensor]:
        """Return what each trunk carries, of what all of them do."""
        sizes = [trunk.carry_size for trunk in self._distinct]
        return dict(zip(self._distinct, carry.split(sizes, -1), strict=True))

    def step(self, x: Tensor, carry: Tensor, *outputs: str) -> tuple[tuple[Tensor, ...], Tensor]:
        # Every trunk takes the step, so that each remembers it, whatever output is asked for.
        after = {trunk: trunk.step(x, part) for trunk, part in self.parts(carry).items()}
        results = []
        for output in outputs:
            trunk = cast("RecurrentTrunk", self.trunks[output])
            results.append(self.heads[output](after[trunk][..., : trunk.cell.size]))
        return tuple(results), torch.cat(list(after.values()), -1)

    def unroll(self, x: Tensor, carry: Tensor, begins: Tensor, *outputs: str) -> tuple[Tensor, ...]:
        parts, features = self.parts(carry), {}
        results = []
        for output in outputs:
            trunk = cast("RecurrentTrunk", self.trunks[output])
            if trunk not in features:
                features[trunk] = trunk.unroll(x, parts[trunk], begins, self.burn_in)
            results.append(self.heads[output](features[trunk]))
        return tuple(results)
