"""A2C: synchronous advantage actor-critic (Mnih et al. 2016, "Asynchronous methods for deep RL", algorithm S3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from lab.algo.algorithm import compilable
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


COSTLY = ("approx_kl", "explained_variance")  # metrics that take another pass through the network


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
        entropy_coef = self.update_schedules(fraction_done)
        measure = diagnose or self.compiler is not None  # one program instead of two
        metrics, value = self.update(rollout.session_first(), entropy_coef, diagnose=measure)
        if not diagnose:
            metrics = {name: metric for name, metric in metrics.items() if name not in COSTLY}
        metrics |= self.schedule_metrics(entropy_coef)
        return metrics | self.imitate(rollout, value.transpose(0, 1), streams, fraction_done, metrics["steps"])

    def learned_from(self, rollout: Rollout, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what is learned from a horizon, [T, S, E] each.

        Args:
            rollout: T steps.
            value: values of all states, [T + 1, S, E].

        Returns:
            Returns R, advantages A, and a mask: 1 for steps to learn from, 0 for others.
        """
        discount = self.discount(rollout)
        if self.advantage == "gae":
            advantage = gae(rollout.reward, discount, value, rollout.truncated, self.gae_lambda)
            return advantage + value[:-1], advantage, rollout.valid
        returns = n_step_return(rollout.reward, discount, value[1:], rollout.truncated, self.n_step)
        return returns, returns - value[:-1], rollout.valid

    @compilable
    def update(
        self, steps: dict[str, torch.Tensor], entropy_coef: torch.Tensor, diagnose: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take one step on -log pi(a|s) A, 1/2 (R - V(s))^2 and the entropy bonus.

        Args:
            steps: of a horizon, as `Rollout.session_first` returns them.
            entropy_coef: weight of the entropy bonus, [S, 1].
            diagnose: whether to return the metrics that cost time.

        Returns:
            Metrics [S], and the values of all states, [S, T + 1, E].
        """
        from lab.memory.rollout import Rollout

        rollout = Rollout.from_session_first(steps)
        value = self.values(rollout)
        returns, advantage, mask = self.learned_from(rollout, value)
        inputs, action = self.network_inputs(rollout, len(rollout.action)), self.flatten_time(rollout.action)
        returns, advantage = self.flatten_time(returns), self.flatten_time(advantage)
        weights = sample_weights(self.flatten_time(self.mask_burn_in(mask)))
        if self.normalize_advantage:
            advantage = normalize(advantage, weights)
        policy, new_value = self.policy_and_value(inputs)
        log_prob = policy.log_prob(action)
        losses = {
            "policy_loss": -log_prob * advantage,
            "value_loss": 0.5 * (new_value - returns).square(),
            "entropy": policy.entropy(),
        }
        active = self.active * has_samples(weights)
        norm = self.step(losses, weights, active, entropy_coef)
        metrics = {"steps": active[:, 0], "grad_norm": norm, **self.loss_metrics(losses, weights)}
        if diagnose:
            with torch.no_grad():
                log_ratio = self.policy(inputs).log_prob(action) - log_prob
                metrics["approx_kl"] = weighted_mean(approx_kl(log_ratio), weights)
                metrics["explained_variance"] = explained_variance(new_value, returns, weights)
        return metrics, value.transpose(0, 1)
