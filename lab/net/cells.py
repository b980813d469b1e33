"""Recurrent cells of a stack, and networks of them: stepped to act, unrolled over sequences to learn."""

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
    """A recurrent cell: its inputs are mapped to gates for all steps at once, then it takes a step at a time.

    Attributes:
        size: numbers of its output, H.
        carry_size: numbers of its state, K, of which the first H are its output.
    """

    gates: int  # how many gates of H numbers there are
    states: int  # how many states of H numbers there are

    def __init__(self, inputs: int, size: int, rngs: list[np.random.Generator]) -> None:
        super().__init__()
        ones = [1.0] * len(rngs)
        self.size, self.carry_size = size, self.states * size
        self.input_gates = Linear(inputs, self.gates * size, ones, rngs)
        self.hidden_gates = Linear(size, self.gates * size, ones, rngs)

    def forward(self, gates: Tensor, carry: Tensor) -> Tensor:
        """Return the state [S, B, K] after a step from `carry`, given the output of `input_gates`."""
        raise NotImplementedError


class GRU(Cell):
    """Cho et al. 2014, section 2.3, in the form of torch.nn.GRU; gates in the order reset, update, candidate."""

    gates, states = 3, 1

    def forward(self, gates: Tensor, carry: Tensor) -> Tensor:
        hidden, split = self.hidden_gates(carry), 2 * self.size
        reset, update = sigmoid(gates[..., :split] + hidden[..., :split]).chunk(2, -1)
        candidate = torch.tanh(gates[..., split:] + reset * hidden[..., split:])
        return (1 - update) * candidate + update * carry


class LSTM(Cell):
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates input, forget, output, candidate.

    The bias of the forget gate starts at 1, so that the cell remembers at first (Jozefowicz et al. 2015, section 2.2).
    """

    gates, states = 4, 2

    def __init__(self, inputs: int, size: int, rngs: list[np.random.Generator]) -> None:
        super().__init__(inputs, size, rngs)
        with torch.no_grad():
            self.input_gates.bias[..., size : 2 * size] = 1.0

    def forward(self, gates: Tensor, carry: Tensor) -> Tensor:
        hidden, cell = carry.split(self.size, -1)
        gates, candidate = (gates + self.hidden_gates(hidden.contiguous())).split([3 * self.size, self.size], -1)
        admit, keep, show = sigmoid(gates.contiguous()).chunk(3, -1)
        cell = keep * cell + admit * torch.tanh(candidate)
        return torch.cat([show * torch.tanh(cell), cell], -1)


class RecurrentTrunk(nn.Module):
    """Layers that encode an observation, followed by a cell."""

    def __init__(self, encoder: nn.Module, cell: Cell) -> None:
        super().__init__()
        self.encoder, self.cell = encoder, cell

    def step(self, x: Tensor, carry: Tensor) -> Tensor:
        """Return the state [S, B, K] after observations [S, B, ...]; its first H numbers are the features."""
        return cast("Tensor", self.cell(self.cell.input_gates(self.encoder(x)), carry))

    def unroll(self, x: Tensor, carry: Tensor, begins: Tensor, burn_in: int) -> Tensor:
        """Return the features [S, M * T, H] of sequences laid out one after the other: see RecurrentNetwork.unroll."""
        stack, sequences = carry.shape[:2]

        def by_time(values: Tensor) -> tuple[Tensor, ...]:
            # Time is not the first axis: gradients would be added up in another order in a stack.
            return values.view(stack, sequences, -1, values.shape[-1]).unbind(2)

        gates = by_time(self.cell.input_gates(self.encoder(x)))
        features = []
        learning = torch.is_grad_enabled()
        for t, (step, begin) in enumerate(zip(gates, by_time(begins.unsqueeze(-1)), strict=True)):
            with torch.set_grad_enabled(learning and t >= burn_in):
                carry = self.cell(step, carry * (1 - begin))
            features.append(carry[..., : self.cell.size])
        return torch.stack(features, 2).flatten(1, 2)


class RecurrentNetwork(StackedNetwork):
    """A network of recurrent trunks, whose states are concatenated to one carry."""

    def __init__(self, trunks: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], burn_in: int) -> None:
        super().__init__(trunks, heads)
        self.burn_in = burn_in
        # A tuple, so that trunks are not registered twice.
        self._distinct = tuple(dict.fromkeys(cast("RecurrentTrunk", trunk) for trunk in trunks.values()))
        self._sizes = [trunk.cell.carry_size for trunk in self._distinct]
        self.carry_size = sum(self._sizes)

    def split(self, carry: Tensor) -> dict[RecurrentTrunk, Tensor]:
        """Return the state of each trunk."""
        return dict(zip(self._distinct, carry.split(self._sizes, -1), strict=True))

    def step(self, x: Tensor, carry: Tensor | None, *outputs: str) -> tuple[tuple[Tensor, ...], Tensor | None]:
        assert carry is not None
        x = self.row.select(x) if self.row else x
        # Every trunk takes the step, whatever output is asked for.
        states = {trunk: trunk.step(x, state) for trunk, state in self.split(carry).items()}
        results = []
        for output in outputs:
            trunk = cast("RecurrentTrunk", self.trunks[output])
            results.append(self.heads[output](states[trunk][..., : trunk.cell.size]))
        return tuple(results), torch.cat(list(states.values()), -1)

    def unroll(self, x: Tensor, carry: Tensor, begins: Tensor, *outputs: str) -> tuple[Tensor, ...]:
        x = self.row.select(x) if self.row else x
        states, features = self.split(carry), {}
        results = []
        for output in outputs:
            trunk = cast("RecurrentTrunk", self.trunks[output])
            if trunk not in features:
                features[trunk] = trunk.unroll(x, states[trunk], begins, self.burn_in)
            results.append(self.heads[output](features[trunk]))
        return tuple(results)
