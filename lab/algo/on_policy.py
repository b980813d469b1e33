"""What REINFORCE, A2C and PPO share: a policy and a value network, and one step of learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo import checks
from lab.algo.algorithm import Algorithm
from lab.algo.schedule import NAMES as SCHEDULES
from lab.algo.schedule import scheduled
from lab.env.spec import EnvSpec
from lab.errors import require, require_one_of
from lab.lazy import torch
from lab.net.optimiser import OptimiserSpec
from lab.streams import Streams

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.rollout import Rollout
    from lab.net.distribution import Distribution
    from lab.net.net import Net


@dataclass
class OnPolicy(Algorithm):
    """A policy that learns from the steps it has just taken."""

    lr: float  # learning rate
    lr_schedule: str  # how it changes: one of SCHEDULES
    lr_final: float  # learning rate at the end of the schedule
    entropy_coef: float  # weight of the entropy bonus
    entropy_schedule: str  # how it changes: one of SCHEDULES
    entropy_final: float  # weight at the end of the schedule
    value_coef: float  # weight of the value loss
    normalise_advantage: bool  # whether to scale advantages to mean 0 and deviation 1 before each step
    max_grad_norm: float  # bound on the norm of a Session's gradient
    policy_gain: float  # gain of the initialisation of the policy's last layer
    log_std: float  # initial log standard deviation of continuous actions
    optimiser: OptimiserSpec

    METRICS: ClassVar[tuple[str, ...]] = (
        "policy_loss", "value_loss", "entropy_loss", "entropy", "approx_kl", "explained_variance", "grad_norm",
        "lr", "entropy_coef",
    )  # fmt: skip

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        for key, start_key in (("lr", "lr"), ("entropy", "entropy_coef")):
            schedule = getattr(self, f"{key}_schedule")
            start, final = getattr(self, start_key), getattr(self, f"{key}_final")
            require_one_of(f"algo.{key}_schedule", schedule, SCHEDULES)
            require(start >= 0, f"algo.{start_key}", start, "0 or more")
            positive = schedule != "exponential" or (start > 0 and final > 0)
            require(final >= 0 and positive, f"algo.{key}_final", final, "0 or more, and above 0 if exponential")
        require(self.lr > 0, "algo.lr", self.lr, "above 0")
        require(self.value_coef >= 0, "algo.value_coef", self.value_coef, "0 or more")
        require(self.max_grad_norm > 0, "algo.max_grad_norm", self.max_grad_norm, "above 0")
        require(self.policy_gain > 0, "algo.policy_gain", self.policy_gain, "above 0")
        self.optimiser.check("algo.optimiser")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.distribution import ActionHead
        from lab.net.net import Output
        from lab.net.network import Parameters
        from lab.net.optimiser import Optimiser

        self.head = ActionHead(spaces.action, self.log_std, len(streams))
        gains = torch.as_tensor(self.policy_gain).flatten().tolist()
        outputs = [Output("policy", self.head.size, gains)]
        if self.has_value:
            outputs.append(Output("value", 1, [1.0] * len(streams)))
        rngs = [stream.initialisation for stream in streams]
        self.network = net.build(spaces.observation.shape[0], outputs, rngs)
        self.parameters = Parameters(nn.ModuleDict({"network": self.network, "head": self.head}).to(device))
        self.optim = Optimiser(self.optimiser, self.parameters.values)
        self.active = torch.ones(len(streams), 1, device=device)
        self.checks = False
        self.problems = {}

    def noise(self, steps: int, num_envs: int, streams: list[Streams]) -> torch.Tensor:
        drawn = [torch.from_numpy(self.head.noise(stream.actions, (steps, num_envs))) for stream in streams]
        return torch.stack(drawn, 1)

    def act(self, observation: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad():
            policy = self.policy(observation)
            return policy.mode() if noise is None else policy.sample(noise)

    @property
    def has_value(self) -> bool:
        """Whether there is a value network; without one all values are 0."""
        return True

    def policy(self, observation: torch.Tensor) -> Distribution:
        """Return the distribution of actions for observations [S, B, D]."""
        return self.head(self.network(observation, "policy")[0])

    def policy_and_value(self, observation: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """Return the distribution of actions and the values [S, B] for observations [S, B, D]."""
        if not self.has_value:
            return self.policy(observation), observation.new_zeros(observation.shape[:2])
        policy, value = self.network(observation, "policy", "value")
        return self.head(policy), value.squeeze(-1)

    def values(self, rollout: Rollout) -> torch.Tensor:
        """Return the values of every state of a rollout, [T + 1, S, E], without their gradients."""
        from lab.memory.rollout import by_session

        length, stack, num_envs = rollout.observation.shape[:3]
        if not self.has_value:
            return rollout.observation.new_zeros(length, stack, num_envs)
        with torch.no_grad():
            (value,) = self.network(by_session(rollout.observation), "value")
        return value.view(stack, length, num_envs).transpose(0, 1)

    def discount(self, rollout: Rollout) -> torch.Tensor:
        """Return each step's discount, [T, S, E]: gamma, and 0 where the episode terminated."""
        return self.gamma * (1 - rollout.terminated)

    def learn_once(
        self,
        rollout: Rollout,
        returns: torch.Tensor,
        advantage: torch.Tensor,
        usable: torch.Tensor,
        progress: float,
        diagnose: bool,
    ) -> dict[str, torch.Tensor]:
        """Take one step along the policy gradient (Williams 1992, section 5), with a value loss and an entropy bonus.

        Args:
            rollout: the steps.
            returns: what the values are to become, [T, S, E].
            advantage: what the log-probabilities are weighted by, [T, S, E].
            usable: 1 for the steps to learn from, [T, S, E].
            progress: share of the Session's frames that are done.
            diagnose: whether to compute the metrics that cost time.

        Returns:
            Metrics [S].
        """
        from lab.memory.rollout import by_session

        observation, action = by_session(rollout.observation[:-1]), by_session(rollout.action)
        returns, advantage, weight = by_session(returns), by_session(advantage), share(by_session(usable))
        if self.normalise_advantage:
            advantage = normalise(advantage, weight)
        policy, value = self.policy_and_value(observation)
        log_prob = policy.log_prob(action)
        losses = {
            "policy_loss": -log_prob * advantage,
            "value_loss": 0.5 * (value - returns).square() if self.has_value else torch.zeros_like(value),
            "entropy_loss": -policy.entropy(),
        }
        lr, entropy_coef = self.scheduled(progress)
        active = self.active * any_usable(weight)
        norm = self.descend(losses, weight, lr, entropy_coef, active)
        metrics = {"steps": active[:, 0], "grad_norm": norm, **self.describe(losses, weight, lr, entropy_coef)}
        if diagnose:
            with torch.no_grad():
                log_ratio = self.policy(observation).log_prob(action) - log_prob
                metrics["approx_kl"] = average(approximate_kl(log_ratio), weight)
                if self.has_value:
                    metrics["explained_variance"] = explained_variance(value, returns, weight)
        return metrics

    def descend(
        self,
        losses: dict[str, torch.Tensor],
        weight: torch.Tensor,
        lr: torch.Tensor,
        entropy_coef: torch.Tensor,
        active: torch.Tensor,
    ) -> torch.Tensor:
        """Take one step of the optimiser down the weighted sum of the three losses.

        Args:
            losses: policy_loss, value_loss and entropy_loss of every sample, [S, B].
            weight: each sample's share of its Session's loss, [S, B].
            lr: learning rate, [S, 1].
            entropy_coef: weight of the entropy loss, [S, 1].
            active: [S, 1], 0 for Sessions that do not take this step.

        Returns:
            The norm of each Session's gradient before it was clipped, [S].
        """
        total = losses["policy_loss"] + self.value_coef * losses["value_loss"] + entropy_coef * losses["entropy_loss"]
        self.parameters.differentiate((total * weight).sum())
        gradients = self.parameters.gradients
        gradients.masked_fill_(active == 0, 0.0)
        norm = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        gradients.mul_((self.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        before = self.parameters.values.clone() if self.checks else None
        self.optim.step(gradients, lr, active)
        if before is not None:
            self.problems |= checks.step_problems(self.parameters, before, active)
            self.problems |= checks.gradient_problems(self.parameters, active)
        return norm[:, 0]

    def scheduled(self, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the learning rate and the weight of the entropy bonus at this point of training, [S, 1] each."""
        lr = scheduled(self.lr_schedule, self.lr, self.lr_final, progress)
        return lr, scheduled(self.entropy_schedule, self.entropy_coef, self.entropy_final, progress)

    def describe(
        self, losses: dict[str, torch.Tensor], weight: torch.Tensor, lr: torch.Tensor, entropy_coef: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the metrics [S] that every step of the optimiser has."""
        metrics = {name: average(loss.detach(), weight) for name, loss in losses.items()}
        return metrics | {"entropy": -metrics["entropy_loss"], "lr": lr[:, 0], "entropy_coef": entropy_coef[:, 0]}


def share(usable: torch.Tensor) -> torch.Tensor:
    """Return each sample's share [..., B] of an average over the usable ones (1 or 0, [..., B])."""
    return usable / usable.sum(-1, keepdim=True).clamp(min=1.0)


def any_usable(weight: torch.Tensor) -> torch.Tensor:
    """Return 1 for each Session that has a sample to learn from, 0 for others: [S, 1] of weights [S, B]."""
    return (weight.sum(-1, keepdim=True) > 0).to(weight.dtype)


def average(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted average over the last axis."""
    return (values * weight).sum(-1)


def normalise(advantage: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return advantages [..., B] with weighted mean 0 and deviation 1."""
    centred = advantage - average(advantage, weight).unsqueeze(-1)
    return centred / (average(centred.square(), weight).sqrt().unsqueeze(-1) + 1e-8)


def approximate_kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """Return an estimate, 0 or more, of KL(old || new) from log(new / old) of actions drawn from old.

    Schulman 2020, "Approximating KL divergence", estimator k3.
    """
    return log_ratio.exp() - 1 - log_ratio


def explained_variance(value: torch.Tensor, returns: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return 1 - Var(returns - value) / Var(returns) over samples [S, B]: 1 is perfect, 0 no better than a constant."""

    def variance(x: torch.Tensor) -> torch.Tensor:
        return average((x - average(x, weight).unsqueeze(-1)).square(), weight)

    return 1 - variance(returns - value) / variance(returns).clamp(min=1e-8)
