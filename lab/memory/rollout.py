"""The steps of one horizon, for on-policy learning, and the statistics that normalize them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """What a stack's observations and rewards are normalized by at one moment; None where they are not normalized.

    Attributes:
        clip: bound on normalized values.
        mean: of observations, [S, 1, ...].
        deviation: of observations, [S, 1, ...].
        reward_deviation: of the discounted return, [S, 1].
        bound: on normalized observations where it is not `clip`, [S, 1, ...]: infinity for what is not normalized.
    """

    clip: float
    mean: Tensor | None = None
    deviation: Tensor | None = None
    reward_deviation: Tensor | None = None
    bound: Tensor | None = None

    def normalize_observations(self, raw: Tensor) -> Tensor:
        """Normalize observations [S, B, ...]."""
        if self.mean is None or self.deviation is None:
            return raw
        scaled = (raw - self.mean) / self.deviation
        return scaled.clamp(-self.clip, self.clip) if self.bound is None else scaled.clamp(-self.bound, self.bound)

    def normalize_rewards(self, raw: Tensor) -> Tensor:
        """Scale and clip rewards [..., S, B]."""
        return raw if self.reward_deviation is None else self.scale_returns(raw).clamp(-self.clip, self.clip)

    def scale_returns(self, raw: Tensor) -> Tensor:
        """Scale returns [..., S, B] without clipping, because the bound is on a single reward."""
        return raw if self.reward_deviation is None else raw / self.reward_deviation

    def unscale_returns(self, scaled: Tensor) -> Tensor:
        """Return scaled values [..., S, B] in the environment's own units."""
        return scaled if self.reward_deviation is None else scaled * self.reward_deviation


@dataclass
class Raw:
    """Observations [T + 1, S, E, ...] and rewards [T, S, E] before normalization, and the statistics after them."""

    observation: Tensor
    reward: Tensor
    statistics: Statistics


@dataclass
class Rollout:
    """Steps of a stack, [T, S, E, ...]: time, session, environment.

    Attributes:
        observation: [T + 1, S, E, ...], normalized if the spec says so. observation[t + 1] is the state to bootstrap
            from after step t; at an episode's end it is the true last observation.
        action: [T, S, E, ...], in the policy's units.
        reward: [T, S, E], normalized if the spec says so.
        terminated: [T, S, E], 1 where the episode ended in a terminal state.
        truncated: [T, S, E], 1 where the episode was cut in another state, for example by a time limit.
        valid: [T, S, E], 0 at autoreset steps, which are never learned from.
        carry: [S, E, K], the recurrent state before the first step.
        raw: observations and rewards before normalization, for a replay memory; None if nothing is normalized.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    carry: Tensor
    raw: Raw | None = None

    def session_first(self) -> dict[str, Tensor]:
        """Return by name the tensors with the session axis first, [S, T, E, ...]; without `raw`."""
        steps = {name: value for name, value in vars(self).items() if name not in ("raw", "carry")}
        return {name: value.transpose(0, 1) for name, value in steps.items()} | {"carry": self.carry}

    @classmethod
    def from_session_first(cls, steps: dict[str, Tensor]) -> Rollout:
        """Return the rollout of what `session_first` returned."""
        times: Any = {name: value.transpose(0, 1) for name, value in steps.items() if name != "carry"}
        return cls(**times, carry=steps["carry"])

    @property
    def statistics(self) -> Statistics | None:
        """Statistics after this horizon, for a replay memory; None if nothing is normalized."""
        return self.raw.statistics if self.raw else None

    @property
    def done(self) -> Tensor:
        """1 where an episode terminated or was truncated, [T, S, E]."""
        return torch.maximum(self.terminated, self.truncated)

    @property
    def episode_starts(self) -> Tensor:
        """1 for states that start an episode, [T + 1, S, E]; the first state counts as 0, as `carry` belongs to it."""
        return torch.cat([torch.zeros_like(self.valid[:1]), 1 - self.valid])


def by_session(steps: Tensor) -> Tensor:
    """Flatten [T, S, E, ...] to [S, T * E, ...], step by step."""
    return steps.transpose(0, 1).flatten(1, 2).contiguous()


def by_environment(steps: Tensor) -> Tensor:
    """Flatten [T, S, E, ...] to [S, E * T, ...], environment by environment, so that sequences stay whole."""
    return steps.movedim(0, 2).flatten(1, 2).contiguous()


def take(samples: dict[str, Tensor], rows: Tensor, units: int | None = None) -> dict[str, Tensor]:
    """Return a minibatch: tensors [S, B, ...] by name.

    Args:
        samples: tensors [S, N, ...] by name.
        rows: which of the N samples, [S, B]; or with `units` which sequences.
        units: number of sequences, U, in which each of the tensors is laid out; their lengths may differ.
    """
    stack = len(rows)
    batch = {}
    for name, value in samples.items():
        number, shape = value.shape[1], value.shape[2:]
        sequences = units or number
        offsets = torch.arange(stack, device=rows.device).unsqueeze(1) * sequences
        flat = value.reshape(stack * sequences, number // sequences, *shape)
        batch[name] = flat.index_select(0, (rows + offsets).flatten()).view(stack, -1, *shape)
    return batch
