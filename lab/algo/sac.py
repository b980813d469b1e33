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
from lab.net.schedule import Scalar

if TYPE_CHECKING:
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.distribution import Categorical, TanhGaussian
    from lab.net.net import Net


@dataclass
class SAC(ActorCritic):
    """Learns values that include the entropy of the policy, at a temperature alpha that is learned too.

    With n_step > 1 a return includes the entropy in the state that completes it, and not in those between.

    Attributes set by `build`:
        log_temperature: log alpha, [S, 1].
        target: the critics that targets come from: target networks, or the critics themselves if `tau` is None.
    """

    tau: Annotated[Scalar, Gt(0), Le(1)] | None
    temperature: Annotated[Scalar, Gt(0)]
    learn_temperature: bool
    temperature_lr: Annotated[Scalar, Gt(0)]
    target_entropy: Scalar | None
    target_entropy_fraction: Annotated[Scalar, Gt(0), Le(1)]

    METRICS: ClassVar[tuple[str, ...]] = ("entropy", "ent_coef", *ActorCritic.METRICS)
    OUTPUTS_PER_ACTION: ClassVar[int] = 2  # mean and log standard deviation

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.learner import Learner

        super().build(spaces, net, streams, device)
        self.target = self.critic if self.tau is None else self.add_target("target", "target", self.critic)
        starts = [[math.log(start)] for start in torch.as_tensor(self.temperature).flatten().tolist()]
        self.log_temperature = nn.Parameter(torch.tensor(starts, device=device))
        if self.learn_temperature:
            module = nn.ParameterDict({"log_temperature": self.log_temperature})
            spec = replace(self.optimizer, lr=self.temperature_lr, lr_schedule="constant", lr_schedule_kwargs={})
            spec.max_grad_norm = None
            self.learners["temperature"] = Learner(module, spec, device)

    def update(
        self, batch: Batch, streams: list[Streams], mask: torch.Tensor, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        next_noise, noise = self.draw_update_noise(streams)
        metrics = self.update_critic(batch, next_noise, mask, diagnose)
        if self.is_policy_step:
            actor_metrics, log_prob = self.update_actor(batch, noise, mask)
            metrics |= actor_metrics | self.update_temperature(batch, log_prob, mask)
        if self.tau is not None:
            self.targets["target"].polyak_update(self.learners["critic"].parameters, self.tau * mask)
        return metrics

    def update_critic(
        self, batch: Batch, noise: torch.Tensor, mask: torch.Tensor, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        """Fit both critics to y = r + gamma V'(s'), where V' is the soft value by the target critics (equation 5)."""
        with torch.no_grad():
            next_value, _ = self.soft_value(self.target, batch.next_observation, noise)
            target = batch.reward + batch.discount * next_value
        return self.step_critic(batch, self.batch_q_values(batch), target, mask, diagnose)

    def update_actor(
        self, batch: Batch, noise: torch.Tensor, mask: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Take a step of the policy on -V(s) = alpha log pi(a|s) - min_i Q_i(s, a) (equation 7).

        Returns:
            Metrics [S], and the log-probabilities of the actions, [S, B].
        """
        value, log_prob = self.soft_value(self.critic, batch.observation, noise)
        norm = self.learners["actor"].step(-value, batch.weight, mask)
        weights, log_prob = sample_weights(batch.weight), log_prob.detach()
        metrics = {"actor_loss": weighted_mean(-value.detach(), weights), "actor_grad_norm": norm}
        return metrics | {"entropy": -weighted_mean(log_prob, weights)}, log_prob

    def update_temperature(self, batch: Batch, log_prob: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take a step of log alpha on -log alpha (log pi(a|s) + target entropy), and return alpha from before, [S].

        The logarithm keeps alpha above 0; in equation 18 alpha itself stands in its place.
        """
        temperature = self.log_temperature.detach().exp()[:, 0]
        if self.learn_temperature:
            losses = -self.log_temperature * (log_prob + self.entropy_target)
            self.learners["temperature"].step(losses, sample_weights(batch.weight), mask)
        return {"ent_coef": temperature}

    def soft_value(
        self, critic: nn.ModuleDict, observation: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the soft value E[min_i Q_i(s, a) - alpha log pi(a|s)] and E[log pi(a|s)], [S, B] each (equation 3).

        Box actions are one sample a of the policy, Discrete ones the whole expectation over it.
        """
        action, log_prob = self.sample_actions(observation, noise)
        # A Discrete policy learns through its probabilities alone, a Box policy through the values too.
        with torch.set_grad_enabled(action is not None and torch.is_grad_enabled()):
            value = torch.minimum(*self.q_values(critic, observation, action))
        value, log_prob = self.expectation_over_policy(value, log_prob)
        return value - self.log_temperature.detach().exp() * log_prob, log_prob

    def policy(self, observation: torch.Tensor) -> Categorical | TanhGaussian:
        """Return the distribution of actions for observations [S, B, ...]."""
        from lab.net.distribution import LOG_STD_LEAST, LOG_STD_MOST, Categorical, TanhGaussian

        output = self.actor(observation, "policy")[0]
        if self.num_actions:
            return Categorical(output)
        mean, log_std = output.split(self.action_dim, -1)
        return TanhGaussian(mean, log_std.clamp(LOG_STD_LEAST, LOG_STD_MOST))

    def choose_actions(self, observation: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        policy = self.policy(observation)
        return policy.mode() if noise is None else policy.sample(noise)

    def sample_actions(
        self, observation: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return Box actions [S, B, A] and their log-probabilities [S, B], or None and those of all Discrete ones."""
        from lab.net.distribution import Categorical

        policy = self.policy(observation)
        return (None, policy.log_probs) if isinstance(policy, Categorical) else policy.sample_with_log_prob(noise)

    def expectation_over_policy(self, value: torch.Tensor, log_prob: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values and log-probabilities of what `sample_actions` returned, [S, B] each.

        Those of Discrete actions, [S, B, A], are averaged over the policy (Christodoulou 2019, equations 10 and 12).
        """
        if not self.num_actions:
            return value, log_prob
        probabilities = log_prob.exp()
        return (probabilities * value).sum(-1), (probabilities * log_prob).sum(-1)

    @property
    def entropy_target(self) -> Scalar:
        """Entropy that the temperature aims at, in nats."""
        if self.target_entropy is not None:
            return self.target_entropy
        return (
            self.target_entropy_fraction * math.log(self.num_actions) if self.num_actions else -float(self.action_dim)
        )
