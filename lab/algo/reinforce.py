"""REINFORCE: Monte-Carlo policy gradient (Williams 1992; Sutton & Barto 2018, sections 13.3 and 13.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo.on_policy import OnPolicy
from lab.algo.returns import episode_ended, lambda_return
from lab.algo.samples import approx_kl, explained_variance, has_samples, normalize, sample_weights, weighted_mean
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count

if TYPE_CHECKING:
    from lab.memory.recent import RecentSteps
    from lab.memory.rollout import Rollout


@dataclass
class REINFORCE(OnPolicy):
    """One step along the gradient of the discounted return of whole episodes.

    After each horizon it learns from the episodes that ended in it, from their first steps on, which may lie several
    horizons back; without any there is no step. A return is the sum of rewards to the end of the episode, also of a
    truncated one: no value completes it.

    With several environments an episode may have started under earlier parameters; all of it is learned from as
    the present policy's. (A step without the episodes in progress would favor short ones.) With algo.horizon=1 and
    env.num_envs=1 a step follows each episode at once, as in the book. The book's factor gamma**t before each gradient
    is left out, as nearly everywhere.
    """

    baseline: bool
    episode_steps: Count

    COMPILES: ClassVar[bool] = False

    def allocate(self, num_envs: int) -> None:
        from lab.memory.recent import RecentSteps

        example, stack = self.example_action(), len(self.active)
        self.replay: RecentSteps | None = RecentSteps(
            self.episode_steps, self.spaces, example, stack, num_envs, self.horizon, self.carry_size
        )

    @property
    def has_value(self) -> bool:
        return self.baseline

    def learn(
        self, rollout: Rollout, streams: list[Streams], fraction_done: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        recent, statistics = self.replay, rollout.statistics
        assert recent
        recent.add(rollout)
        entropy_coef = self.update_schedules(fraction_done)  # in every horizon, whichever Sessions learn from it
        mask = recent.valid * episode_ended(recent.done, self.horizon)
        needed: list[bool] = mask.unflatten(0, (recent.blocks, -1)).flatten(1).any(1).tolist()
        if not any(needed):
            return {"steps": torch.zeros_like(self.active[:, 0])}
        first = needed.index(True) * recent.block
        reward = recent.reward[first:] if statistics is None else statistics.normalize_rewards(recent.reward[first:])
        zeros = torch.zeros_like(reward)
        returns = lambda_return(reward, self.gamma * (1 - recent.done[first:]), zeros, zeros, lambda_=1.0)
        returns = torch.cat([returns.new_zeros(first, *returns.shape[1:]), returns])
        blocks = [recent.read_block(index, statistics) if use else None for index, use in enumerate(needed)]
        return self.update(blocks, returns, mask, entropy_coef, diagnose)

    def update(
        self,
        blocks: list[Rollout | None],
        returns: torch.Tensor,
        mask: torch.Tensor,
        entropy_coef: torch.Tensor,
        diagnose: bool,
    ) -> dict[str, torch.Tensor]:
        """Take one step on -log pi(a|s) (G - b(s)) and 1/2 (G - b(s))^2, and return metrics [S].

        Args:
            blocks: W steps in rollouts of one length; None for those without steps to learn from.
            returns: G, [W, S, E].
            mask: 1 for steps to learn from, 0 for others, [W, S, E].
            entropy_coef: weight of the entropy bonus, [S, 1].
            diagnose: whether to compute the metrics that cost time.
        """
        length = len(mask) // len(blocks)

        def flatten(steps: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.flatten_time(block) for block in steps.split(length)], 1)

        weights = sample_weights(flatten(torch.cat([self.mask_burn_in(block) for block in mask.split(length)])))
        returns = flatten(returns)
        empty = torch.zeros_like(returns[:, : returns.shape[1] // len(blocks)])
        log_prob, entropy, value = self.evaluate_actions(blocks, empty)
        advantage = returns - value.detach()
        if self.normalize_advantage:
            advantage = normalize(advantage, weights)
        losses = {
            "policy_loss": -log_prob * advantage,
            "value_loss": 0.5 * (value - returns).square() if self.baseline else torch.zeros_like(value),
            "entropy": entropy,
        }
        active = self.active * has_samples(weights)
        norm = self.step(losses, weights, active, entropy_coef)
        metrics = {"steps": active[:, 0], "grad_norm": norm, **self.loss_metrics(losses, weights)}
        metrics |= self.schedule_metrics(entropy_coef)
        if diagnose:
            with torch.no_grad():
                log_ratio = self.evaluate_actions(blocks, empty)[0] - log_prob
                metrics["approx_kl"] = weighted_mean(approx_kl(log_ratio), weights)
                if self.baseline:
                    metrics["explained_variance"] = explained_variance(value, returns, weights)
        return metrics

    def evaluate_actions(self, blocks: list[Rollout | None], empty: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return log-probabilities, entropies and values, [S, B] each; those of a block that is None are `empty`."""
        rows = []
        for block in blocks:
            if block is None:
                rows.append((empty, empty, empty))
                continue
            policy, value = self.policy_and_value(self.network_inputs(block, len(block.action)))
            rows.append((policy.log_prob(self.flatten_time(block.action)), policy.entropy(), value))
        return tuple(torch.cat(each, 1) for each in zip(*rows, strict=True))
