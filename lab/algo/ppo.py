"""PPO: proximal policy optimization with a clipped objective (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from lab.algo.algorithm import compilable
from lab.algo.on_policy import OnPolicy
from lab.algo.returns import gae
from lab.algo.samples import (
    approx_kl,
    check_batch_size,
    draw_orders,
    explained_variance,
    has_samples,
    normalize,
    sample_weights,
    weighted_mean,
)
from lab.algo.sil import SelfImitation
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count, Scalar
from lab.env.spec import EnvSpec
from lab.errors import require
from lab.net.checks import ratio_problems

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout
    from lab.net.net import Net


@dataclass
class PPO(OnPolicy):
    """Several epochs of steps on each horizon, while the policy stays near the old one.

    Metrics are means over the last epoch, also for a Session that `target_kl` stopped before.
    """

    gae_lambda: Annotated[Scalar, Ge(0), Le(1)]
    epochs: Count
    batch_size: int
    clip_range: Annotated[Scalar, Gt(0)]
    clip_range_vf: Annotated[Scalar, Gt(0)] | None
    target_kl: Annotated[Scalar, Gt(0)] | None
    sil: SelfImitation

    METRICS: ClassVar[tuple[str, ...]] = (*OnPolicy.METRICS, "clip_fraction")

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        check_batch_size(self.batch_size, self.horizon, env.num_envs)

    def learning_steps(self, frames: int, num_envs: int) -> int:
        return self.epochs * frames // self.batch_size

    def check_net(self, net: Net) -> None:
        super().check_net(net)
        if net.recurrent:
            allowed = (
                f"a multiple of algo.horizon={self.horizon} with a recurrent network: it learns by whole sequences"
            )
            require(self.batch_size % self.horizon == 0, "algo.batch_size", self.batch_size, allowed)

    def learn(
        self, rollout: Rollout, streams: list[Streams], fraction_done: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:

        value = self.values(rollout)
        advantage = gae(rollout.reward, self.discount(rollout), value, rollout.truncated, self.gae_lambda)
        inputs = self.network_inputs(rollout, self.horizon)
        samples = {
            **inputs,
            "action": self.flatten_time(rollout.action),
            "advantage": self.flatten_time(advantage),
            "returns": self.flatten_time(advantage + value[:-1]),
            "mask": self.flatten_time(self.mask_burn_in(rollout.valid)),
        }
        old_value = self.flatten_time(value[:-1])
        if self.clip_range_vf is not None:
            samples["value"] = old_value
        with torch.no_grad():
            samples["log_prob"] = self.policy(inputs).log_prob(samples["action"])
        stack, size = old_value.shape
        count = size // self.batch_size
        units = size // self.horizon if self.carry_size else size  # recurrent networks need whole sequences

        entropy_coef = self.update_schedules(fraction_done)
        steps = torch.zeros(stack, device=value.device)
        totals: dict[str, torch.Tensor] = {}
        learning = self.active
        for epoch, order in enumerate(draw_orders(streams, self.epochs, units, value.device)):
            is_last = epoch == self.epochs - 1
            diagnose = is_last or self.target_kl is not None or self.compiler is not None
            kl = torch.zeros(stack, device=value.device)
            for index, rows in enumerate(order.chunk(count, 1)):
                checks = self.problems is not None and epoch == index == 0
                metrics = self.update(samples, rows, learning, entropy_coef, diagnose=diagnose, checks=checks)
                steps = steps + metrics.pop("steps")
                if self.target_kl is not None:
                    kl = kl + metrics["approx_kl"] / count
                if is_last:
                    totals = {name: totals.get(name, 0) + metric / count for name, metric in metrics.items()}
            if self.target_kl is not None:
                learning = learning * (kl.unsqueeze(1) <= self.target_kl)

        metrics = totals | {
            "steps": steps,
            "explained_variance": explained_variance(old_value, samples["returns"], sample_weights(samples["mask"])),
            **self.schedule_metrics(entropy_coef),
        }
        return metrics | self.imitate(rollout, value, streams, fraction_done, steps)

    @compilable
    def update(
        self,
        samples: dict[str, torch.Tensor],
        rows: torch.Tensor,
        learning: torch.Tensor,
        entropy_coef: torch.Tensor,
        diagnose: bool,
        checks: bool,
    ) -> dict[str, torch.Tensor]:
        """Take an optimizer step on a minibatch, and return metrics [S].

        Args:
            samples: of the horizon by name, [S, N, ...].
            rows: the minibatch, [S, B]: of samples, or of sequences with a recurrent network.
            learning: 1 for Sessions that still learn, 0 for others, [S, 1].
            entropy_coef: weight of the entropy bonus, [S, 1].
            diagnose: whether to compute metrics other than `steps`.
            checks: whether to check that the policy is still the old one (mode=dev).
        """
        from lab.memory.rollout import take

        sequences = samples["mask"].shape[1] // self.horizon if self.carry_size else None
        batch = take(samples, rows, sequences)
        weights = sample_weights(batch["mask"])
        mask = learning * has_samples(weights)
        losses, log_ratio = self.losses(batch, weights)
        if checks and self.problems is not None:
            self.problems |= ratio_problems(log_ratio.exp(), learning)
        norm = self.step(losses, weights, mask, entropy_coef)
        if not diagnose:
            return {"steps": mask[:, 0]}
        is_clipped = ((log_ratio.exp() - 1).abs() > self.clip_range).to(weights.dtype)
        return {
            "steps": mask[:, 0],
            "grad_norm": norm,
            "approx_kl": weighted_mean(approx_kl(log_ratio), weights),
            "clip_fraction": weighted_mean(is_clipped, weights),
            **self.loss_metrics(losses, weights),
        }

    def losses(
        self, batch: dict[str, torch.Tensor], weights: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the losses of a minibatch by name, and the log-ratio of the new policy to the old, [S, B] each.

        With the ratio r = pi(a|s) / pi_old(a|s), the policy loss is -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A)
        (equation 7) and the value loss 1/2 (V(s) - R)^2. With `clip_range_vf` it is the larger of this one and that of
        the value clipped around the old one.
        """
        from torch.nn import functional

        advantage, returns = batch["advantage"], batch["returns"]
        if self.normalize_advantage:
            advantage = normalize(advantage, weights)
        policy, value = self.policy_and_value(batch)
        log_ratio = policy.log_prob(batch["action"]) - batch["log_prob"]
        epsilon = torch.as_tensor(self.clip_range)
        # Of r A and clip(r, ...) A the smaller is that of r A and this, as A is constant.
        bound = torch.where(advantage > 0, 1 + epsilon, 1 - epsilon) * advantage
        value_loss = functional.mse_loss(value, returns, reduction="none")
        if self.clip_range_vf is not None:
            bound_vf = torch.as_tensor(self.clip_range_vf)
            clipped = batch["value"] + (value - batch["value"]).clamp(-bound_vf, bound_vf)
            value_loss = torch.maximum(value_loss, (clipped - returns).square())
        losses = {
            "policy_loss": -torch.minimum(log_ratio.exp() * advantage, bound),
            "value_loss": 0.5 * value_loss,
            "entropy": policy.entropy(),
        }
        return losses, log_ratio.detach()
