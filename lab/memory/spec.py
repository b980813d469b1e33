"""The settings of a replay memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.errors import LabError, require, require_one_of

if TYPE_CHECKING:
    from gymnasium.spaces import Box

DTYPES = ("float32", "float16")
FLOAT16_MOST = 65504.0  # the largest number of half precision
UNBOUNDED = 1e38  # bounds from here on are those of a type, and not of an observation


@dataclass
class ReplaySpec:
    """How much is remembered, and what is drawn from it."""

    size: int  # transitions kept, the newest ones
    dtype: str  # of numbers in observations: one of DTYPES; images in bytes stay bytes
    combined: bool  # whether each minibatch holds the newest transition (Zhang & Sutton 2017)
    prioritized: bool  # whether transitions are drawn in proportion to their priority (Schaul et al. 2016)
    alpha: float  # prioritized: how far priorities count, from 0 (not at all) to 1
    beta: float  # prioritized: how far the bias of the draw is corrected, from 0 (not at all) to 1
    beta_final: float  # prioritized: the same at the end of training
    eps: float  # prioritized: added to errors, so that none is never drawn again

    def check(self, key: str) -> None:
        """Raise LabError for a value that is not allowed; `key` is the name of the group."""
        require(self.size >= 1, f"{key}.size", self.size, "1 transition or more")
        require_one_of(f"{key}.dtype", self.dtype, DTYPES)
        require(0 <= self.alpha <= 1, f"{key}.alpha", self.alpha, "from 0 to 1")
        require(0 <= self.beta <= 1, f"{key}.beta", self.beta, "from 0 to 1")
        require(0 <= self.beta_final <= 1, f"{key}.beta_final", self.beta_final, "from 0 to 1")
        require(self.eps > 0, f"{key}.eps", self.eps, "above 0")

    def check_observations(self, key: str, observations: Box, env: str) -> None:
        """Raise LabError for observations that cannot be kept; `key` is the name of the group."""
        if self.dtype != "float16" or observations.dtype == np.uint8:
            return
        bounds = np.abs(np.stack([observations.low, observations.high]).astype(np.float64))
        most = bounds[bounds < UNBOUNDED].max(initial=0.0)
        if most > FLOAT16_MOST:
            raise LabError(
                f"{key}.dtype=float16 is not possible with env.id={env}, whose observations reach {most:,.0f}: half"
                f" precision ends at {FLOAT16_MOST:,.0f}. Use {key}.dtype=float32."
            )
