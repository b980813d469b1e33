"""Modules as a user would write them, for one agent, by paths such as tests.modules.Torso."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Torso(nn.Module):
    """Two layers, with what behaves differently in training, what remembers, and what is not learned."""

    def __init__(self, observation_space: Any, width: int, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        inputs = observation_space.shape[0]
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Dropout(dropout))
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.frozen = nn.Parameter(torch.full((width,), 0.5), requires_grad=False)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, observation: Tensor) -> Tensor:
        if self.training:
            self.calls = self.calls + 1  # put in the place of the other, not changed
        return self.norm(self.layers(observation) * self.frozen)


class Lazy(nn.Module):
    """Finds out what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(7)

    def forward(self, observation: Tensor) -> Tensor:
        return self.layer(observation.flatten(1)).relu()


class Critic(nn.Module):
    """Looks at actions too."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs + actions, 6)

    def forward(self, observation: Tensor, extra: Tensor) -> Tensor:
        return self.layer(torch.cat([observation, extra], -1)).tanh()


class Anything(nn.Module):
    """Gives what its argument says."""

    def __init__(self, gives: str = "", **others: Any) -> None:
        super().__init__()
        if others:
            raise ValueError(f"too many: {others}")
        self.gives = gives
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64 if gives == "double" else torch.float32))

    def forward(self, observation: Tensor) -> Any:
        if self.gives == "error":
            raise ValueError("cannot look")
        return {"row": observation[0], "text": "features"}.get(self.gives, observation.flatten(1) * self.weight)


class Shared(nn.Module):
    """Has an argument whose name has another meaning."""

    def __init__(self, shared: int = 0) -> None:
        super().__init__()
