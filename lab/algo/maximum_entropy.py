"""What SAC and CrossQ share: a policy that is rewarded for its entropy, at a temperature that is learned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lab.algo.actor_critic import ActorCritic
from lab.algo.off_policy import shares
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Batch
    from lab.net.distribution import Categorical, TanhGaussian
    from lab.net.net import Net


@dataclass
class MaximumEntropy(ActorCritic):
    """Learns values that count the entropy of the policy in all states to come (Haarnoja et al. 2018).

    Actions on a scale are drawn from a normal distribution brought between the bounds by tanh; of choices, all are
    weighed by their probabilities instead of one being drawn (Christodoulou 2019). A return of several rewards (n > 1)
    counts the entropy of the state that completes it, and not of those between.
    """

    temperature: float  # weight of the entropy, or where it starts if it is learned
    learn_temperature: bool  # whether it follows the difference between the entropy and its target
    temperature_lr: float  # learning rate of the temperature
    target_entropy: float | None  # nats that the entropy is to have; null for what suits the actions
    target_entropy_fraction: float  # choices: that target as a share of the entropy of random ones

    METRICS: ClassVar[tuple[str, ...]] = ("entropy", "ent_coef", *ActorCritic.METRICS)

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(self.temperature > 0, "algo.temperature", self.temperature, "above 0")
        require(self.temperature_lr > 0, "algo.temperature_lr", self.temperature_lr, "above 0")
        share = self.target_entropy_fraction
        require(0 < share <= 1, "algo.target_entropy_fraction", share, "above 0, up to 1")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.learner import Learner

        self.build_networks(spaces, net, streams, device)
        starts = torch.as_tensor(self.temperature).flatten().tolist()
        column = torch.tensor([math.log(start) for start in starts], device=device).unsqueeze(1)
        self.log_temperature = nn.Parameter(column)
        if self.learn_temperature:
            module = nn.ParameterDict({"log_temperature": self.log_temperature})
            spec = replace(
                self.optimizer,
                lr=self.temperature_lr,
                lr_schedule="constant",
                lr_schedule_kwargs={},
                max_grad_norm=None,
            )
            self.learners["temperature"] = Learner(module, spec, device)
        self.aimed_entropy = self.aim()

    def aim(self) -> torch.Tensor | float:
        """Return the entropy that the temperature is to bring about: a number, or [S, 1]."""
        if self.target_entropy is not None:
            return self.target_entropy
        return self.target_entropy_fraction * math.log(self.choices) if self.choices else -float(self.numbers)

    @property
    def outputs(self) -> int:
        return 2

    def policy(self, observation: torch.Tensor) -> Categorical | TanhGaussian:
        """Return the distribution of actions for observations [S, B, ...]."""
        from lab.net.distribution import LOG_STD_LEAST, LOG_STD_MOST, Categorical, TanhGaussian

        (output,) = self.actor(observation, "policy")
        if self.choices:
            return Categorical(output)
        mean, log_std = output.split(self.numbers, -1)
        return TanhGaussian(mean, log_std.clamp(LOG_STD_LEAST, LOG_STD_MOST))

    def choose(self, observation: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        policy = self.policy(observation)
        return policy.mode() if noise is None else policy.sample(noise)

    def propose(self, observation: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return actions of the policy and their log-probabilities [S, B].

        For choices none is drawn: null, and the log-probabilities of all of them, [S, B, choices].
        """
        from lab.net.distribution import Categorical

        policy = self.policy(observation)
        return (None, policy.log_probs) if isinstance(policy, Categorical) else policy.sample_with_log_prob(noise)

    def expected(self, values: list[torch.Tensor], log_prob: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lesser of both critics' values of what was proposed, and its log-probability, [S, B] each.

        For choices these are expectations over the policy (Christodoulou 2019, equations 10 and 12).
        """
        least = torch.minimum(*values)
        if not self.choices:
            return least, log_prob
        probabilities = log_prob.exp()
        return (probabilities * least).sum(-1), (probabilities * log_prob).sum(-1)

    def rate(
        self, critic: nn.ModuleDict, observation: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lesser of both critics' values of the policy's actions, and their log-probabilities, [S, B]."""
        action, log_prob = self.propose(observation, noise)
        # Of choices the policy learns by their probabilities alone, of numbers through the values too.
        with torch.set_grad_enabled(action is not None and torch.is_grad_enabled()):
            values = self.values(critic, observation, action)
        return self.expected(values, log_prob)

    def improve_policy(self, batch: Batch, noise: torch.Tensor, active: torch.Tensor) -> dict[str, torch.Tensor]:
        temperature = self.log_temperature.detach().exp()
        value, log_prob = self.rate(self.critic, batch.observation, noise)
        losses = temperature * log_prob - value
        norm = self.learners["actor"].step(losses, batch.weight, active)
        log_prob, share = log_prob.detach(), shares(batch)
        if self.learn_temperature:
            # By its logarithm, which keeps it above 0 (Haarnoja et al. 2018, section 5).
            surplus = -self.log_temperature * (log_prob + self.aimed_entropy)
            self.learners["temperature"].step(surplus, share, active)
        with torch.no_grad():
            return {
                "actor_loss": (losses * share).sum(-1),
                "actor_grad_norm": norm,
                "entropy": -(log_prob * share).sum(-1),
                "ent_coef": temperature[:, 0],
            }
