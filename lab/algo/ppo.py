"""PPO: proximal policy optimization with a clipped objective (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo.minibatches import check_minibatch, orders
from lab.algo.on_policy import any_usable, approximate_kl, average, explained_variance, normalize, share
from lab.algo.returns import gae
from lab.algo.sil import SelfImitation
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require
from lab.net.checks import ratio_problems

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout
    from lab.net.net import Net


@dataclass
class PPO(SelfImitation):
    """Take several epochs of steps on each horizon, while the policy stays near the one that acted.

    Metrics are averages over the last epoch, also for a Session whose KL limit ended its update before.
    """

    gae_lambda: float  # decay of longer returns in the advantage
    epochs: int  # passes over each horizon of steps
    batch_size: int  # samples in a learning step
    clip_range: float  # how far the probability ratio may leave 1 before it stops counting
    clip_range_vf: float | None  # how far a value may leave the old one before it stops counting, null for no bound
    target_kl: float | None  # approximate KL of an epoch at which a Session stops learning from a horizon, or null

    METRICS: ClassVar[tuple[str, ...]] = (*SelfImitation.METRICS, "clip_fraction")

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(0 <= self.gae_lambda <= 1, "algo.gae_lambda", self.gae_lambda, "from 0 to 1")
        require(self.epochs >= 1, "algo.epochs", self.epochs, "1 or more")
        require(self.clip_range > 0, "algo.clip_range", self.clip_range, "above 0")
        require(
            self.clip_range_vf is None or self.clip_range_vf > 0,
            "algo.clip_range_vf",
            self.clip_range_vf,
            "above 0, or null",
        )
        require(self.target_kl is None or self.target_kl > 0, "algo.target_kl", self.target_kl, "above 0, or null")
        check_minibatch(self.batch_size, self.horizon, env.num_envs)

    def check_net(self, net: Net) -> None:
        super().check_net(net)
        if net.recurrent:
            multiple = f"a multiple of algo.horizon={self.horizon} with a network that remembers, as it is learned from"
            whole = self.batch_size % self.horizon == 0
            require(whole, "algo.batch_size", self.batch_size, f"{multiple} by whole sequences")

    def learn(
        self, rollout: Rollout, streams: list[Streams], progress: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        from lab.memory.rollout import dealt, shuffled

        # What the policy that acted thought of its steps.
        value = self.values(rollout)
        advantage = gae(rollout.reward, self.discount(rollout), value, rollout.truncated, self.gae_lambda)
        seen = self.look(rollout, self.horizon)
        samples = {
            **seen,
            "action": self.lay_out(rollout.action),
            "advantage": self.lay_out(advantage),
            "returns": self.lay_out(advantage + value[:-1]),
            "value": self.lay_out(value[:-1]),
            "usable": self.lay_out(self.settled(rollout.valid)),
        }
        with torch.no_grad():
            samples["log_prob"] = self.policy(seen).log_prob(samples["action"])
        stack, number = samples["value"].shape
        count = number // self.batch_size
        units = number // self.horizon if self.carry_size else number  # a network that remembers needs whole sequences

        entropy_coef = self.update_schedules(progress)
        metrics: dict[str, torch.Tensor] = {}
        steps = torch.zeros(stack, device=value.device)
        learning = self.active
        for epoch, order in enumerate(orders(streams, self.epochs, units).to(value.device).unbind(1)):
            batches = shuffled(samples, order, count)
            batches["weight"] = weight = share(batches["usable"])
            if self.normalize_advantage:
                batches["advantage"] = normalize(batches["advantage"], weight)
            batches["bound"] = clipped(batches["advantage"], torch.as_tensor(self.clip_range).unsqueeze(-1))
            last = epoch == self.epochs - 1
            divergence = torch.zeros(stack, device=value.device)
            for index, batch in enumerate(dealt(batches)):
                policy, new_value = self.policy_and_value(batch)
                log_ratio = policy.log_prob(batch["action"]) - batch["log_prob"]
                ratio = log_ratio.exp()
                if self.problems is not None and epoch == index == 0:
                    self.problems |= ratio_problems(ratio, learning)
                losses = {
                    "policy_loss": -torch.minimum(ratio * batch["advantage"], batch["bound"]),
                    "value_loss": self.value_loss(new_value, batch["value"], batch["returns"]),
                    "entropy_loss": -policy.entropy(),
                }
                active = learning * any_usable(batch["weight"])
                norm = self.descend(losses, batch["weight"], entropy_coef, active)
                steps = steps + active[:, 0]
                if self.target_kl is not None or last:
                    kl = average(approximate_kl(log_ratio.detach()), batch["weight"])
                    divergence = divergence + kl / count
                if last:
                    outside = ((ratio.detach() - 1).abs() > self.clip_range).to(ratio.dtype)
                    step = self.describe(losses, batch["weight"], entropy_coef)
                    step |= {"grad_norm": norm, "clip_fraction": average(outside, batch["weight"])}
                    for name, metric in step.items():
                        metrics[name] = metrics.get(name, 0) + metric / count
            if self.target_kl is not None:
                learning = learning * (divergence.unsqueeze(1) <= self.target_kl)

        metrics |= {"steps": steps, "approx_kl": divergence}
        weight = share(samples["usable"])
        metrics["explained_variance"] = explained_variance(samples["value"], samples["returns"], weight)
        return metrics | self.imitate(rollout, value, streams, progress, metrics)

    def value_loss(self, value: torch.Tensor, old: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
        """Return half the squared error of each value, or of the clipped value where that is larger, [S, B]."""
        loss = (value - returns).square()
        if self.clip_range_vf is not None:
            near = old + (value - old).clamp(-self.clip_range_vf, self.clip_range_vf)
            loss = torch.maximum(loss, (near - returns).square())
        return 0.5 * loss


def clipped(advantage: torch.Tensor, clip: torch.Tensor | float) -> torch.Tensor:
    """Return the bound on ratio * advantage that equation 7's clipped term amounts to, advantages being constant.

    The lesser of ratio * A and clamp(ratio, 1 - clip, 1 + clip) * A is the lesser of ratio * A and this.
    """
    return torch.where(advantage > 0, 1 + clip, 1 - clip) * advantage
