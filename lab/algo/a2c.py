"""A2C: synchronous advantage actor-critic (Mnih et al. 2016, "Asynchronous methods for deep RL", algorithm S3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.returns import gae, n_step_return
from lab.algo.sil import SelfImitation
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require, require_one_of

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout


@dataclass
class A2C(SelfImitation):
    """Follow the policy gradient weighted by n-step advantages, or by generalized ones."""

    advantage: str  # gae, or n_step
    gae_lambda: float  # decay of longer returns in the advantage (gae)
    n_step: int  # rewards in a return before the value completes it (n_step)

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require_one_of("algo.advantage", self.advantage, ("gae", "n_step"))
        require(0 <= self.gae_lambda <= 1, "algo.gae_lambda", self.gae_lambda, "from 0 to 1")
        fits = self.advantage == "gae" or 1 <= self.n_step <= self.horizon
        require(fits, "algo.n_step", self.n_step, f"from 1 to algo.horizon ({self.horizon}) with algo.advantage=n_step")

    def learn(
        self, rollout: Rollout, streams: list[Streams], progress: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        value, discount = self.values(rollout), self.discount(rollout)
        if self.advantage == "gae":
            advantage = gae(rollout.reward, discount, value, rollout.truncated, self.gae_lambda)
            returns = advantage + value[:-1]
        else:
            returns = n_step_return(rollout.reward, discount, value[1:], rollout.truncated, self.n_step)
            advantage = returns - value[:-1]
        metrics = self.learn_once(rollout, returns, advantage, rollout.valid, progress, diagnose)
        return metrics | self.imitate(rollout, value, streams, progress, metrics)
