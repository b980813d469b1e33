"""Exploration of algorithms that choose the action of the highest value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Le

from lab.algo.samples import sample_weights, weighted_mean
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.transfer import upload
from lab.common.validation import Count, Scalar
from lab.errors import require
from lab.net.schedule import scheduled

RANDOM = 1e30  # least noise of a random action where some are invalid: above any value


@dataclass
class ExplorationSpec:
    """How actions other than that of the highest value are chosen.

    The scheduled value is the probability of a random action (epsilon_greedy) or the temperature (boltzmann).
    """

    method: Literal["epsilon_greedy", "boltzmann"]
    start: Scalar
    final: Scalar
    schedule: Literal["constant", "linear", "exponential", "cosine", "periodic"]
    fraction: Annotated[Scalar, Gt(0), Le(1)]
    cycles: Count

    def check(self, key: str) -> None:
        """Raise LabError for values that do not fit together; `key` is the name of the group."""
        epsilon = self.method == "epsilon_greedy"
        for name, value in (("start", float(self.start)), ("final", float(self.final))):
            within = 0 <= value <= 1 if epsilon else value > 0
            require(within, f"{key}.{name}", value, "from 0 to 1" if epsilon else "above 0")
            positive = value > 0 or self.schedule != "exponential"
            require(positive, f"{key}.{name}", value, "above 0 if the schedule is exponential")

    @cached_property
    def _sessions(self) -> list[tuple[float, float, float]]:
        columns = (torch.as_tensor(value).flatten().tolist() for value in (self.start, self.final, self.fraction))
        return list(zip(*columns, strict=True))

    def scheduled_values(self, fraction_done: float) -> list[float]:
        """Return each Session's probability or temperature."""
        return [self._scheduled(*session, fraction_done) for session in self._sessions]

    def scheduled_tensor(self, fraction_done: float, device: torch.device) -> torch.Tensor:
        """Return the same as a tensor [S] on a device."""
        return upload(torch.tensor(self.scheduled_values(fraction_done)), device)

    def _scheduled(self, start: float, final: float, fraction: float, fraction_done: float) -> float:
        part = min(fraction_done / fraction, 1.0)
        if self.schedule != "periodic":
            return float(scheduled(self.schedule, start, final, part))
        return float(scheduled("cosine", start, final, part * self.cycles % 1)) if part < 1 else final

    def expectation(self, values: torch.Tensor, fraction_done: float, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the expected value of the explored action, [..., S, E] of values [..., S, E, A].

        Sutton & Barto 2018, equation 7.8: the value of a state under the policy that explores around these values. A
        mask [..., S, E, A] is 0 for invalid actions.
        """
        degree = self.scheduled_tensor(fraction_done, values.device).unsqueeze(-1)
        if self.method == "boltzmann":
            return ((values / degree.unsqueeze(-1)).softmax(-1) * values).sum(-1)
        mean = values.mean(-1) if mask is None else weighted_mean(values, sample_weights(mask))
        return (1 - degree) * values.amax(-1) + degree * mean

    def draw_noise(
        self,
        shape: tuple[int, int],
        num_actions: int,
        streams: list[Streams],
        fraction_done: float,
        masked: bool = False,
    ) -> torch.Tensor:
        """Draw noise [T, S, E, A] that is added to action values before the highest is chosen.

        Epsilon-greedy: infinity in the place of a random action (Sutton & Barto 2018, section 2.2). Boltzmann: Gumbel
        noise times the temperature, whose highest sum has the probabilities of a softmax (Maddison, Tarlow & Minka
        2014, section 2).

        Args:
            shape: steps and environments, T and E.
            num_actions: A.
            streams: each Session's random streams.
            fraction_done: fraction of the Session's frames that are done.
            masked: whether some actions may be invalid. Then a random action is the valid one of the highest noise.
        """
        noise = np.zeros((shape[0], len(streams), shape[1], num_actions), np.float32)
        for s, (stream, value) in enumerate(zip(streams, self.scheduled_values(fraction_done), strict=True)):
            if self.method == "boltzmann":
                waits = np.maximum(stream.actions.standard_exponential((*shape, num_actions)), 1e-300)
                noise[:, s] = -value * np.log(waits)
                continue
            uniform = stream.actions.random(shape)
            step, env = (uniform < value).nonzero()
            if masked:
                noise[step, s, env] = RANDOM * (1 + stream.actions.random((len(step), num_actions)))
            elif len(step):  # below the probability, uniform / value is again uniform between 0 and 1
                action = np.minimum((uniform[step, env] * (num_actions / value)).astype(np.int64), num_actions - 1)
                noise[step, s, env, action] = np.inf
        return torch.from_numpy(noise)
