"""PPO: proximal policy optimization with a clipped objective (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Le

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
        from lab.memory.rollout import minibatches, shuffle

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
        metrics: dict[str, torch.Tensor] = {}
        learning = self.active
        for epoch, order in enumerate(draw_orders(streams, self.epochs, units).to(value.device)):
            is_last = epoch == self.epochs - 1
            kl = torch.zeros(stack, device=value.device)
            for index, batch in enumerate(minibatches(self.prepare(shuffle(samples, order, count)))):
                weights, mask = batch["weights"], learning * batch["has_samples"]
                losses, log_ratio = self.losses(batch)
                if self.problems is not None and epoch == index == 0:
                    self.problems |= ratio_problems(log_ratio.exp(), learning)
                norm = self.step(losses, weights, mask, entropy_coef)
                steps = steps + mask[:, 0]
                if self.target_kl is not None or is_last:
                    kl = kl + weighted_mean(approx_kl(log_ratio), weights) / count
                if is_last:
                    is_clipped = ((log_ratio.exp() - 1).abs() > self.clip_range).to(value.dtype)
                    step = self.loss_metrics(losses, weights, entropy_coef)
                    step |= {"grad_norm": norm, "clip_fraction": weighted_mean(is_clipped, weights)}
                    metrics = {name: metrics.get(name, 0) + metric / count for name, metric in step.items()}
            if self.target_kl is not None:
                learning = learning * (kl.unsqueeze(1) <= self.target_kl)

        weights = sample_weights(samples["mask"])
        metrics |= {
            "steps": steps,
            "approx_kl": kl,
            "explained_variance": explained_variance(old_value, samples["returns"], weights),
        }
        return metrics | self.imitate(rollout, value, streams, fraction_done, steps)

    def prepare(self, batches: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Add to all minibatches of an epoch what does not depend on the network, at once as it is faster."""
        weights, advantage = sample_weights(batches["mask"]), batches["advantage"]
        if self.normalize_advantage:
            advantage = normalize(advantage, weights)
        epsilon = torch.as_tensor(self.clip_range).unsqueeze(-1)
        # Of r A and clip(r, ...) A the smaller is that of r A and this, as A is constant.
        bound = torch.where(advantage > 0, 1 + epsilon, 1 - epsilon) * advantage
        return batches | {
            "weights": weights,
            "has_samples": has_samples(weights),
            "cost": -advantage,
            "least_loss": -bound,
        }

    def losses(self, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the losses of a minibatch by name, and the log-ratio of the new policy to the old, [S, B] each.

        With the ratio r = pi(a|s) / pi_old(a|s), the policy loss is -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A)
        (equation 7) and the value loss 1/2 (V(s) - R)^2. With `clip_range_vf` it is the larger of this one and that of
        the value clipped around the old one.
        """
        from torch.nn import functional

        returns = batch["returns"]
        policy, value = self.policy_and_value(batch)
        log_ratio = policy.log_prob(batch["action"]) - batch["log_prob"]
        value_loss = functional.mse_loss(value, returns, reduction="none")
        if self.clip_range_vf is not None:
            bound = torch.as_tensor(self.clip_range_vf)
            clipped = batch["value"] + (value - batch["value"]).clamp(-bound, bound)
            value_loss = torch.maximum(value_loss, (clipped - returns).square())
        losses = {
            "policy_loss": torch.maximum(log_ratio.exp() * batch["cost"], batch["least_loss"]),
            "value_loss": 0.5 * value_loss,
            "entropy": policy.entropy(),
        }
        return losses, log_ratio.detach()
