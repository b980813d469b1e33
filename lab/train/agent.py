"""The agents of a stack: an algorithm with its networks, and the normalization of what it sees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lab.algo.algorithm import stack
from lab.common.streams import Streams
from lab.env.normalize import RunningMoments
from lab.env.vector import Spaces
from lab.errors import LabError
from lab.memory.rollout import Statistics
from lab.spec import Spec
from lab.train.lockstep import settings


class Agent:
    """What acts and learns in S Sessions at once.

    Attributes:
        algorithm: the algorithm, built for the stack.
        streams: each Session's random streams.
        moments: each Session's running moments of observations; none if they are not normalized.
        statistics: what observations are normalized by now.
        device: where the networks are.
        observations: one environment's observations, as the networks take them.
        spaces: the environment's observations and actions, as texts.
    """

    def __init__(self, specs: list[Spec], spaces: Spaces, device: torch.device) -> None:
        first = specs[0]
        if len(specs) > 1 and first.threads > 1:
            raise LabError(
                f"threads={first.threads} is not allowed for a stack of {len(specs)} Sessions: with several threads the"
                " last bits of a result depend on how many Sessions share them. Use threads=1, or one seed."
            )
        for spec in specs[1:]:
            one, other = settings(first), settings(spec)
            for key in dict.fromkeys((*one, *other)):
                if one.get(key) != other.get(key):
                    raise LabError(f"{key} differs between Sessions of one stack: {one.get(key)} and {other.get(key)}.")
        self.spec, self.device = first, device
        self.observations = spaces.observation
        self.spaces = {"observations": str(spaces.original), "actions": str(spaces.action)}
        self.streams = [Streams.spawn(spec.seed) for spec in specs]
        self.algorithm = stack([spec.algo for spec in specs], device, "algo")
        self.algorithm.build(spaces, self.algorithm.normed(first.net), self.streams, device)
        if first.mode == "dev":
            self.algorithm.check_steps()
        self.moments: list[RunningMoments] = []
        self.statistics = Statistics(first.env.normalize_clip)
        if first.env.normalize_observations:
            self.moments = [RunningMoments(math.prod(self.observations.shape)) for _ in specs]
            self._update_scale()

    def observe(self, raw: torch.Tensor) -> torch.Tensor:
        """Return raw observations [S, E, ...] as the networks are to see them, on their device."""
        return self.statistics.normalize_observations(raw.to(self.device))

    def take_in(self, raw: np.ndarray, valid: np.ndarray) -> None:
        """Update the normalization with the observations [T, S, E, ...] of a horizon; those not valid are left out."""
        if self.moments:
            for index, moments in enumerate(self.moments):
                seen = raw[:, index][valid[:, index]]
                moments.update(seen.reshape(-1, len(moments.mean)))
            self._update_scale()

    def _update_scale(self) -> None:
        def column(rows: list[np.ndarray]) -> torch.Tensor:
            stacked = torch.tensor(np.stack(rows), dtype=torch.float32, device=self.device)
            return stacked.view(len(rows), 1, *self.observations.shape)

        mean = column([moments.mean for moments in self.moments])
        deviation = column([moments.deviation for moments in self.moments])
        self.statistics = Statistics(self.spec.env.normalize_clip, mean, deviation)

    def state(self, index: int) -> dict[str, Any]:
        """Return all that one Session's agent has learned, and its random streams, as tensors and plain data."""
        return {
            **self.algorithm.state(index),
            "streams": self.streams[index].state(),
            "observations": self.moments[index].state() if self.moments else None,
            "spaces": dict(self.spaces),
        }

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session's agent to what `state` returned.

        Raises:
            LabError: it was the state of an agent for other spaces, or with other parameters.
        """
        name = f"the checkpoint at frame {state['frame']:,}" if "frame" in state else "the checkpoint"
        for what, there in state.get("spaces", {}).items():
            if there != self.spaces[what]:
                now = f"env.id={self.spec.env.id} has {what} {self.spaces[what]} now"
                raise LabError(f"{now}, and {name} was written with {there}.")
        parameters = self.algorithm.state(index)["parameters"]
        change = _find_change(state["parameters"], parameters)
        if change:
            raise LabError(f"The agent is another one than that of {name}: {change}. Did its code change?")
        try:
            self.algorithm.restore(index, state)
            self.streams[index].restore(state["streams"])
            if self.moments:
                self.moments[index].restore(state["observations"])
                self._update_scale()
        except Exception as error:  # whatever an optimizer or a schedule raises that is another one now
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise LabError(f"The agent is another one than that of {name} ({text}). Did its code change?") from error


def _find_change(before: dict[str, torch.Tensor], now: dict[str, torch.Tensor]) -> str | None:
    """Say which parameters are not the same in name and shape, if some are not."""
    for name in dict.fromkeys((*before, *now)):
        shapes = [list(values[name].shape) if name in values else "absent" for values in (before, now)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} there and {shapes[1]} now"
    return None
