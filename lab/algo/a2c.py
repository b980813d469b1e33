"""A2C: synchronous advantage actor-critic (Mnih et al. 2016, "Asynchronous methods for deep RL", algorithm S3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from lab.algo.on_policy import OnPolicy
from lab.algo.returns import gae, n_step_return
from lab.algo.samples import approx_kl, explained_variance, has_samples, normalize, sample_weights, weighted_mean
from lab.algo.sil import SelfImitation
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count, Scalar
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout


@dataclass
class A2C(OnPolicy):
    """One step along the policy gradient after each horizon."""

    advantage: Literal["gae", "n_step"]
    gae_lambda: Annotated[Scalar, Ge(0), Le(1)]
    n_step: Count
    sil: SelfImitation

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        fits = self.advantage == "gae" or self.n_step <= self.horizon
        require(fits, "algo.n_step", self.n_step, f"from 1 to algo.horizon ({self.horizon}) with algo.advantage=n_step")

    def learn(
        self, rollout: Rollout, streams: list[Streams], fraction_done: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        value, discount = self.values(rollout), self.discount(rollout)
        if self.advantage == "gae":
            advantage = gae(rollout.reward, discount, value, rollout.truncated, self.gae_lambda)
            returns = advantage + value[:-1]
        else:
            returns = n_step_return(rollout.reward, discount, value[1:], rollout.truncated, self.n_step)
            advantage = returns - value[:-1]
        metrics = self.update(rollout, returns, advantage, rollout.valid, fraction_done, diagnose)
        return metrics | self.imitate(rollout, value, streams, fraction_done, metrics["steps"])

    def update(
        self,
        rollout: Rollout,
        returns: torch.Tensor,
        advantage: torch.Tensor,
        mask: torch.Tensor,
        fraction_done: float,
        diagnose: bool,
    ) -> dict[str, torch.Tensor]:
        """Take one step on -log pi(a|s) A, 1/2 (R - V(s))^2 and the entropy bonus, and return metrics [S].

        Args:
            rollout: T steps.
            returns: R, [T, S, E].
            advantage: A, [T, S, E].
            mask: 1 for steps to learn from, 0 for others, [T, S, E].
            fraction_done: fraction of the Session's frames that are done.
            diagnose: whether to compute the metrics that cost time.
        """
        inputs, action = self.network_inputs(rollout, len(mask)), self.flatten_time(rollout.action)
        returns, advantage = self.flatten_time(returns), self.flatten_time(advantage)
        weights = sample_weights(self.flatten_time(self.mask_burn_in(mask)))
        if self.normalize_advantage:
            advantage = normalize(advantage, weights)
        policy, value = self.policy_and_value(inputs)
        log_prob = policy.log_prob(action)
        losses = {
            "policy_loss": -log_prob * advantage,
            "value_loss": 0.5 * (value - returns).square(),
            "entropy": policy.entropy(),
        }
        entropy_coef = self.update_schedules(fraction_done)
        active = self.active * has_samples(weights)
        norm = self.step(losses, weights, active, entropy_coef)
        metrics = {"steps": active[:, 0], "grad_norm": norm, **self.loss_metrics(losses, weights, entropy_coef)}
        if diagnose:
            with torch.no_grad():
                log_ratio = self.policy(inputs).log_prob(action) - log_prob
                metrics["approx_kl"] = weighted_mean(approx_kl(log_ratio), weights)
                metrics["explained_variance"] = explained_variance(value, returns, weights)
        return metrics
