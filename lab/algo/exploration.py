"""Exploration of algorithms that choose the action of the highest value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lab.common.imports import torch
from lab.common.streams import Streams
from lab.errors import require, require_one_of
from lab.net.schedule import scheduled

METHODS = ("epsilon_greedy", "boltzmann")
SCHEDULES = ("constant", "linear", "exponential", "cosine", "periodic")


@dataclass
class ExplorationSpec:
    """How often, or how far, actions are not those of the highest value."""

    method: str  # epsilon_greedy, or boltzmann: in proportion to exp(value / temperature)
    start: float  # probability of a random action (epsilon_greedy), or temperature (boltzmann)
    final: float  # the same at the end of the schedule
    schedule: str  # how it changes: one of SCHEDULES
    fraction: float  # share of the Session's frames after which it is final
    cycles: int  # periodic: how often it falls from start to final in that time

    def check(self, key: str) -> None:
        """Raise LabError for a value that is not allowed; `key` is the name of the group."""
        require_one_of(f"{key}.method", self.method, METHODS)
        require_one_of(f"{key}.schedule", self.schedule, SCHEDULES)
        epsilon = self.method == "epsilon_greedy"
        allowed = "from 0 to 1" if epsilon else "above 0"
        for name in ("start", "final"):
            value = getattr(self, name)
            within = 0 <= value <= 1 if epsilon else value > 0
            require(within, f"{key}.{name}", value, allowed)
            positive = value > 0 or self.schedule != "exponential"
            require(positive, f"{key}.{name}", value, "above 0 if the schedule is exponential")
        require(0 < self.fraction <= 1, f"{key}.fraction", self.fraction, "above 0, up to 1")
        require(self.cycles >= 1, f"{key}.cycles", self.cycles, "1 or more")

    @cached_property
    def _sessions(self) -> list[tuple[float, float, float]]:
        columns = (torch.as_tensor(value).flatten().tolist() for value in (self.start, self.final, self.fraction))
        return list(zip(*columns, strict=True))

    def values(self, progress: float) -> list[float]:
        """Return the probability or temperature of each Session, whose numbers are vectors [S, 1] here."""
        found = []
        for start, final, fraction in self._sessions:
            part = min(progress / fraction, 1.0)
            if self.schedule == "periodic" and part < 1:
                found.append(scheduled("cosine", start, final, part * self.cycles % 1))
            elif self.schedule == "periodic":
                found.append(final)
            else:
                found.append(scheduled(self.schedule, start, final, part))
        return found

    def expectation(self, values: torch.Tensor, progress: float) -> torch.Tensor:
        """Return the expected value of the action that exploration chooses, [..., S, E] of values [..., S, E, A].

        Sutton & Barto 2018, equation 7.8: the value of a state under the policy that explores around these values.
        """
        degree = values.new_tensor(self.values(progress)).unsqueeze(-1)
        if self.method == "boltzmann":
            return ((values / degree.unsqueeze(-1)).softmax(-1) * values).sum(-1)
        return (1 - degree) * values.amax(-1) + degree * values.mean(-1)

    def noise(self, shape: tuple[int, int], choices: int, streams: list[Streams], progress: float) -> torch.Tensor:
        """Draw what is added to the values of actions before the highest is taken.

        For a random action that is infinity in its place (Sutton & Barto 2018, section 2.2). For Boltzmann
        exploration it is Gumbel noise times the temperature, the highest of which sums has the probabilities of a
        softmax (Maddison, Tarlow & Minka 2014, section 2).

        Args:
            shape: steps and environments, T and E.
            choices: number of actions, A.
            streams: each Session's random streams.
            progress: share of the Session's frames that are done.

        Returns:
            [T, S, E, A].
        """
        drawn = []
        for stream, value in zip(streams, self.values(progress), strict=True):
            if self.method == "boltzmann":
                waits = np.maximum(stream.actions.standard_exponential((*shape, choices)), 1e-300)
                drawn.append((-value * np.log(waits)).astype(np.float32))
                continue
            noise = np.zeros((*shape, choices), np.float32)
            draw = stream.actions.random(shape)
            random = (draw < value).nonzero()
            if len(random[0]):  # a draw below the probability is, divided by it, as good as another one
                action = np.minimum((draw[random] * (choices / value)).astype(np.int64), choices - 1)
                noise[(*random, action)] = np.inf
            drawn.append(noise)
        return torch.from_numpy(np.stack(drawn, 1))
