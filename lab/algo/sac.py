"""SAC: soft actor-critic (Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", algorithm 1).

Discrete actions: Christodoulou 2019, "Soft actor-critic for discrete action settings".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Le

from lab.algo.actor_critic import ActorCritic
from lab.algo.samples import sample_weights, weighted_mean
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Scalar

if TYPE_CHECKING:
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.distribution import Categorical, TanhGaussian
    from lab.net.net import Net


@dataclass
class SAC(ActorCritic):
    """Learns values that include the entropy of the policy, at a temperature alpha that is learned too.

    With n_step > 1, the target includes the entropy of the state it bootstraps from, and not of those before.

    Shapes: S Sessions, B samples, A action dimensions (Box) or actions (Discrete).

    Attributes set by `build`:
        log_temperature: log alpha, [S, 1]; the metric `ent_coef` is alpha.
        target_critic: the critics that compute y: target networks, or the critics themselves if `tau` is None.
    """

    tau: Annotated[Scalar, Gt(0), Le(1)] | None
    temperature: Annotated[Scalar, Gt(0)]
    learn_temperature: bool
    temperature_lr: Annotated[Scalar, Gt(0)]
    target_entropy: Scalar | None
    target_entropy_fraction: Annotated[Scalar, Gt(0), Le(1)]

    METRICS: ClassVar[tuple[str, ...]] = ("entropy", "ent_coef", *ActorCritic.METRICS)
    SERVES_MASKS: ClassVar[bool] = True
    OUTPUTS_PER_ACTION: ClassVar[int] = 2  # mean and log standard deviation

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.learner import Learner

        super().build(spaces, net, streams, device)
        self.target_critic = self.critic if self.tau is None else self.add_target("target", "target", self.critic)
        starts = [[math.log(start)] for start in torch.as_tensor(self.temperature).flatten().tolist()]
        self.log_temperature = nn.Parameter(torch.tensor(starts, device=device))
        if self.learn_temperature:
            module = nn.ParameterDict({"log_temperature": self.log_temperature})
            # A constant learning rate of its own, without clipping; the rest is as for the networks.
            spec = replace(self.optimizer, lr=self.temperature_lr, lr_schedule="constant", max_grad_norm=None)
            spec.lr_schedule_kwargs = {}
            self.learners["temperature"] = Learner(module, spec, device)

    def update(
        self, batch: Batch, noise: torch.Tensor | None, mask: torch.Tensor, diagnose: bool, **parts: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        assert noise is not None
        next_noise, own_noise = noise.unbind(1)
        metrics, errors = self.update_critic(batch, next_noise, mask, diagnose)
        if parts["updates_policy"]:
            actor_metrics, log_prob = self.update_actor(batch, own_noise, mask)
            metrics |= actor_metrics | self.update_temperature(batch, log_prob, mask)
        if self.tau is not None:  # in every gradient step, whatever `policy_delay` is
            self.targets["target"].polyak_update(self.learners["critic"].parameters, self.tau * mask)
        return metrics, errors

    def update_critic(
        self, batch: Batch, noise: torch.Tensor, mask: torch.Tensor, diagnose: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take a gradient step of both critics on 1/2 (Q_i(s, a) - y)^2 (equation 5), as `step_critic` does.

        y = R + discount V'(s'), where V' is the soft value by the target critics. R sums `n_step` rewards, and the
        discount is gamma^n_step, or 0 where the episode terminated.
        """
        with torch.no_grad():
            next_value, _ = self.soft_value(self.target_critic, batch.next_observation, noise)
            target = batch.reward + batch.discount * next_value
        values = self.batch_q_values(batch)
        losses = 0.5 * ((values[0] - target).square() + (values[1] - target).square())
        return self.step_critic(batch, losses, values, target, mask, diagnose)

    def update_actor(
        self, batch: Batch, noise: torch.Tensor, mask: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take a gradient step of the policy on -V(s) = alpha log pi(a|s) - min_i Q_i(s, a) (equation 7).

        The learner differentiates the policy's parameters only, so the critics get no gradient.

        Returns:
            Metrics [S], and the log-probabilities of the actions, [S, B].
        """
        value, log_prob = self.soft_value(self.critic, batch.observation, noise)
        norm = self.learners["actor"].step(-value, batch.weight, mask)
        weights, log_prob = sample_weights(batch.weight), log_prob.detach()
        metrics = {"actor_loss": weighted_mean(-value.detach(), weights), "actor_grad_norm": norm}
        return metrics | {"entropy": -weighted_mean(log_prob, weights)}, log_prob

    def update_temperature(self, batch: Batch, log_prob: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a gradient step of log alpha on -log alpha (log pi(a|s) + target entropy); return alpha before it, [S].

        Equation 18 of the paper, and 11 of Christodoulou 2019, optimize alpha; its logarithm keeps alpha positive.
        """
        temperature = self.log_temperature.detach().exp()[:, 0]
        if self.learn_temperature:
            losses = -self.log_temperature * (log_prob + self.resolve_target_entropy(batch.observation))
            self.learners["temperature"].step(losses, sample_weights(batch.weight), mask)
        return {"ent_coef": temperature}

    def soft_value(
        self, critic: nn.ModuleDict, observation: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the soft value E[min_i Q_i(s, a) - alpha log pi(a|s)] and E[log pi(a|s)], [S, B] each (equation 3).

        Box actions are one sample a of the policy, Discrete ones the whole expectation over it.
        """
        action, log_prob = self.sample_actions(observation, noise)
        # Box: the gradient passes through Q into the action. Discrete: only the probabilities depend on the policy.
        with torch.set_grad_enabled(action is not None and torch.is_grad_enabled()):
            value = torch.minimum(*self.q_values(critic, observation, action))
        value, log_prob = self.expectation_over_policy(value, log_prob)
        return value - self.log_temperature.detach().exp() * log_prob, log_prob

    def policy(self, observation: torch.Tensor) -> Categorical | TanhGaussian:
        """Return the distribution of actions for observations [S, B, ...]."""
        from lab.net.distribution import LOG_STD_MAX, LOG_STD_MIN, Categorical, TanhGaussian, mask_invalid

        output = self.actor(observation, "policy")[0]
        if self.num_actions:
            return Categorical(mask_invalid(output, self.action_mask(observation)))
        mean, log_std = output.split(self.action_dim, -1)
        return TanhGaussian(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))

    def choose(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        policy = self.policy(observation)
        return policy.mode() if noise is None else policy.sample(noise), carry

    def sample_actions(
        self, observation: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return Box actions [S, B, A] and their log-probabilities [S, B], or None and those of all Discrete ones."""
        from lab.net.distribution import Categorical

        policy = self.policy(observation)
        return (None, policy.log_probs) if isinstance(policy, Categorical) else policy.sample_with_log_prob(noise)

    def expectation_over_policy(self, value: torch.Tensor, log_prob: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Average values and log-probabilities over a Discrete policy, and return Box ones unchanged, [S, B] each.

        Discrete ones, [S, B, A], are weighted by their probabilities (Christodoulou 2019, equations 10 and 12).
        """
        if not self.num_actions:
            return value, log_prob
        probabilities = log_prob.exp()
        return (probabilities * value).sum(-1), (probabilities * log_prob).sum(-1)

    def resolve_target_entropy(self, observation: torch.Tensor) -> Scalar:
        """Return the entropy in nats that the temperature aims at: a number, [S, 1], or [S, B] with action masks."""
        if self.target_entropy is not None:
            return self.target_entropy
        if not self.num_actions:
            return -float(self.action_dim)
        mask = self.action_mask(observation)
        return self.target_entropy_fraction * (math.log(self.num_actions) if mask is None else mask.sum(-1).log())
