"""What a memory normalizes by: the statistics of a stack at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """What a stack's observations and rewards are scaled by at one moment; None where they are not normalized.

    Attributes:
        clip: bound on what is scaled.
        mean: of observations, [S, 1, ...].
        deviation: of observations, [S, 1, ...].
        reward_deviation: of the discounted return, [S, 1].
    """

    clip: float
    mean: Tensor | None = None
    deviation: Tensor | None = None
    reward_deviation: Tensor | None = None

    def normalize_observations(self, raw: Tensor) -> Tensor:
        """Return observations [S, B, ...] as networks are to see them."""
        if self.mean is None or self.deviation is None:
            return raw
        return ((raw - self.mean) / self.deviation).clamp(-self.clip, self.clip)

    def normalize_rewards(self, raw: Tensor) -> Tensor:
        """Return rewards [..., S, B] scaled and clipped."""
        return raw if self.reward_deviation is None else self.scale_returns(raw).clamp(-self.clip, self.clip)

    def scale_returns(self, raw: Tensor) -> Tensor:
        """Return sums of rewards [..., S, B] scaled; they are not clipped, as the bound is on one reward."""
        return raw if self.reward_deviation is None else raw / self.reward_deviation

    def unscale_returns(self, scaled: Tensor) -> Tensor:
        """Return scaled values [..., S, B] in the environment's own units."""
        return scaled if self.reward_deviation is None else scaled * self.reward_deviation
