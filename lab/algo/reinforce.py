"""REINFORCE: Monte-Carlo policy gradient (Williams 1992; Sutton & Barto 2018, sections 13.3 and 13.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.base.on_policy import OnPolicy
from lab.algo.base.returns import completed, lambda_return
from lab.lazy import torch
from lab.streams import Streams

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout


@dataclass
class REINFORCE(OnPolicy):
    """Follow the gradient of the discounted return of whole episodes.

    A horizon can end in the middle of an episode. With a baseline, its value completes the return there, as at a
    truncation. Without one nothing is known of the rest, so the steps of an unfinished episode are left out.
    """

    baseline: bool  # whether to subtract a learned state value from the return

    @property
    def has_value(self) -> bool:
        return self.baseline

    def learn(
        self, rollout: Rollout, streams: list[Streams], progress: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        value = self.values(rollout)
        returns = lambda_return(rollout.reward, self.discount(rollout), value[1:], rollout.truncated, lam=1.0)
        advantage = returns - value[:-1]
        usable = rollout.valid if self.baseline else rollout.valid * completed(rollout.done)
        return self.learn_once(rollout, returns, advantage, usable, progress, diagnose)
