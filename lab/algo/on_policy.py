"""What REINFORCE, A2C and PPO share: a policy and a value network, and one step of learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo.algorithm import Algorithm
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import LabError, require, require_one_of
from lab.net.optimizer import OptimizerSpec
from lab.net.schedule import check_schedule, scheduled

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.rollout import Rollout
    from lab.net.distribution import Distribution
    from lab.net.net import Net

DISTRIBUTIONS = ("auto", "gaussian", "tanh_gaussian", "beta")


@dataclass
class OnPolicy(Algorithm):
    """A policy that learns from the steps it has just taken."""

    entropy_coef: float  # weight of the entropy bonus
    entropy_schedule: str  # how it changes: one of schedule.NAMES
    entropy_final: float  # weight at the end of the schedule
    value_coef: float  # weight of the value loss
    normalize_advantage: bool  # whether to scale advantages to mean 0 and deviation 1 before each step
    policy_gain: float  # gain of the initialization of the policy's last layer
    distribution: str  # of continuous actions: one of DISTRIBUTIONS
    log_std_init: float  # initial log standard deviation of continuous actions
    state_dependent_std: bool  # whether the network says it for each observation, from there on
    optimizer: OptimizerSpec

    METRICS: ClassVar[tuple[str, ...]] = (
        "policy_loss", "value_loss", "entropy_loss", "entropy", "approx_kl", "explained_variance", "grad_norm",
        "learning_rate", "ent_coef",
    )  # fmt: skip
    SERVES_RECURRENT: ClassVar[bool] = True

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        schedule, final = self.entropy_schedule, self.entropy_final
        check_schedule("algo.entropy", "algo.entropy_coef", self.entropy_coef, schedule, final)
        require(self.value_coef >= 0, "algo.value_coef", self.value_coef, "0 or more")
        require(self.policy_gain > 0, "algo.policy_gain", self.policy_gain, "above 0")
        require_one_of("algo.distribution", self.distribution, DISTRIBUTIONS)
        normal = not self.state_dependent_std or self.distribution != "beta"
        require(normal, "algo.state_dependent_std", self.state_dependent_std, "false with algo.distribution=beta")
        self.optimizer.check("algo.optimizer")

    def check_net(self, net: Net) -> None:
        super().check_net(net)
        burn_in = getattr(net, "burn_in", 0)
        require(burn_in < self.horizon, "net.burn_in", burn_in, f"less than algo.horizon ({self.horizon} steps)")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        import gymnasium as gym

        space, needed = spaces.action, "numbers (a Box)"
        fits = self.distribution == "auto" or isinstance(space, gym.spaces.Box)
        if self.distribution in ("beta", "tanh_gaussian"):
            needed = "numbers between bounds (a Box)"
            fits = isinstance(space, gym.spaces.Box) and space.is_bounded("both")
        if not fits:
            raise LabError(
                f"algo.distribution={self.distribution} is not possible with env.id={env.id}, whose actions are"
                f" {space}: it needs {needed}. Try algo.distribution=auto."
            )

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.distribution import ActionHead
        from lab.net.learner import Learner
        from lab.net.net import Output

        self.prepare(streams, device)
        self.head = ActionHead(
            spaces.action, self.log_std_init, len(streams), self.distribution, self.state_dependent_std
        )
        gains = torch.as_tensor(self.policy_gain).flatten().tolist()
        outputs = [Output("policy", self.head.size, gains)]
        if self.has_value:
            outputs.append(Output("value", 1, [1.0] * len(streams)))
        rngs = [stream.initialization for stream in streams]
        self.network = net.build(spaces.observation, outputs, rngs)
        self.carry_size = self.network.carry_size
        module = nn.ModuleDict({"network": self.network, "head": self.head})
        self.learners["agent"] = Learner(module, self.optimizer, device)

    def noise(self, steps: int, num_envs: int, streams: list[Streams], progress: float) -> torch.Tensor:
        drawn = [torch.from_numpy(self.head.noise(stream.actions, (steps, num_envs))) for stream in streams]
        return torch.stack(drawn, 1)

    def act(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            (output,), carry = self.network.step(observation, carry, "policy")
            policy: Distribution = self.head(output)
            return policy.mode() if noise is None else policy.sample(noise), carry

    def example_action(self) -> torch.Tensor:
        """Return any one action, for its shape and type."""
        kind = torch.float32 if self.head.continuous else torch.int64
        return torch.zeros(self.head.shape, dtype=kind, device=self.active.device)

    @property
    def has_value(self) -> bool:
        """Whether there is a value network; without one all values are 0."""
        return True

    def look(self, rollout: Rollout, states: int) -> dict[str, torch.Tensor]:
        """Return what networks look at, to tell of the first so many states of a horizon; see `lay_out`.

        Returns:
            Observations [S, B, ...]; for networks that remember also which of them begin an episode, [S, B], and what
            is carried to each environment's first one, [S, E, K].
        """
        seen = {"observation": self.lay_out(rollout.observation[:states])}
        if self.carry_size:
            seen |= {"begins": self.lay_out(rollout.episode_starts[:states]), "carry": rollout.carry}
        return seen

    def lay_out(self, steps: torch.Tensor) -> torch.Tensor:
        """Lay steps [T, S, E, ...] out as [S, B, ...], those of an environment together for networks that remember."""
        from lab.memory.rollout import by_environment, by_session

        return by_environment(steps) if self.carry_size else by_session(steps)

    def compute(self, seen: dict[str, torch.Tensor], *outputs: str) -> tuple[torch.Tensor, ...]:
        """Return named outputs of the network, [S, B, size], for what `look` returned."""
        if not self.carry_size:
            return self.network(seen["observation"], *outputs)
        return self.network.unroll(seen["observation"], seen["carry"], seen["begins"], *outputs)

    def policy(self, seen: dict[str, torch.Tensor]) -> Distribution:
        """Return the distributions of actions for what `look` returned."""
        return self.head(self.compute(seen, "policy")[0])

    def policy_and_value(self, seen: dict[str, torch.Tensor]) -> tuple[Distribution, torch.Tensor]:
        """Return the distributions of actions and the values [S, B] for what `look` returned."""
        if not self.has_value:
            return self.policy(seen), torch.zeros(seen["observation"].shape[:2], device=self.active.device)
        policy, value = self.compute(seen, "policy", "value")
        return self.head(policy), value.squeeze(-1)

    def values(self, rollout: Rollout) -> torch.Tensor:
        """Return the values of every state of a rollout, [T + 1, S, E], without their gradients."""
        length, stack, num_envs = rollout.observation.shape[:3]
        if not self.has_value:
            return torch.zeros(length, stack, num_envs, device=self.active.device)
        with torch.no_grad():
            (value,) = self.compute(self.look(rollout, length), "value")
        if self.carry_size:
            return value.view(stack, num_envs, length).movedim(2, 0)
        return value.view(stack, length, num_envs).transpose(0, 1)

    def settled(self, usable: torch.Tensor) -> torch.Tensor:
        """Return which of the usable steps [T, S, E] are learned from: those after a network's burn-in."""
        if not self.network.burn_in:
            return usable
        return torch.cat([torch.zeros_like(usable[: self.network.burn_in]), usable[self.network.burn_in :]])

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
        """Take one step along the policy gradient from a rollout of T steps; see `learn_from_parts`."""
        return self.learn_from_parts([rollout], returns, advantage, usable, progress, diagnose)

    def learn_from_parts(
        self,
        parts: list[Rollout | None],
        returns: torch.Tensor,
        advantage: torch.Tensor | None,
        usable: torch.Tensor,
        progress: float,
        diagnose: bool,
    ) -> dict[str, torch.Tensor]:
        """Take one step along the policy gradient (Williams 1992, section 5), with a value loss and an entropy bonus.

        Args:
            parts: the steps, T in all, in rollouts of one length; None for one of which nothing is usable.
            returns: what the values are to become, [T, S, E].
            advantage: what the log-probabilities are weighted by, [T, S, E]; None for the returns above the values.
            usable: 1 for the steps to learn from, [T, S, E].
            progress: share of the Session's frames that are done.
            diagnose: whether to compute the metrics that cost time.

        Returns:
            Metrics [S].
        """
        length = len(usable) // len(parts)

        def lay_out(steps: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.lay_out(part) for part in steps.split(length)], 1)

        weight = share(lay_out(torch.cat([self.settled(part) for part in usable.split(length)])))
        returns = lay_out(returns)
        samples = returns[:, : returns.shape[1] // len(parts)]
        log_prob, entropy, value = self.evaluate_actions(parts, samples)
        advantage = returns - value.detach() if advantage is None else lay_out(advantage)
        if self.normalize_advantage:
            advantage = normalize(advantage, weight)
        losses = {
            "policy_loss": -log_prob * advantage,
            "value_loss": 0.5 * (value - returns).square() if self.has_value else torch.zeros_like(value),
            "entropy_loss": -entropy,
        }
        entropy_coef = self.update_schedules(progress)
        active = self.active * any_usable(weight)
        norm = self.descend(losses, weight, entropy_coef, active)
        metrics = {"steps": active[:, 0], "grad_norm": norm, **self.describe(losses, weight, entropy_coef)}
        if diagnose:
            with torch.no_grad():
                log_ratio = self.evaluate_actions(parts, samples)[0] - log_prob
                metrics["approx_kl"] = average(approximate_kl(log_ratio), weight)
                if self.has_value:
                    metrics["explained_variance"] = explained_variance(value, returns, weight)
        return metrics

    def evaluate_actions(
        self, parts: list[Rollout | None], samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return log-probabilities of the actions taken, entropies and values, [S, B] each, of all parts.

        Args:
            parts: rollouts; None gives zeros.
            samples: anything of the shape [S, samples of a part].
        """
        found = []
        for part in parts:
            if part is None:
                found.append((torch.zeros_like(samples),) * 3)
                continue
            policy, value = self.policy_and_value(self.look(part, len(part.action)))
            found.append((policy.log_prob(self.lay_out(part.action)), policy.entropy(), value))
        log_prob, entropy, value = (torch.cat(each, 1) for each in zip(*found, strict=True))
        return log_prob, entropy, value

    def descend(
        self,
        losses: dict[str, torch.Tensor],
        weight: torch.Tensor,
        entropy_coef: torch.Tensor,
        active: torch.Tensor,
    ) -> torch.Tensor:
        """Take one step of the optimizer down the weighted sum of the three losses.

        Args:
            losses: policy_loss, value_loss and entropy_loss of every sample, [S, B].
            weight: each sample's share of its Session's loss, [S, B].
            entropy_coef: weight of the entropy loss, [S, 1].
            active: [S, 1], 0 for Sessions that do not take this step.

        Returns:
            The norm of each Session's gradient before it was clipped, [S].
        """
        total = losses["policy_loss"] + self.value_coef * losses["value_loss"] + entropy_coef * losses["entropy_loss"]
        return self.learners["agent"].step(total, weight, active)

    def update_schedules(self, progress: float) -> torch.Tensor:
        """Set the learning rate of a learning call, and return the weight of the entropy bonus in it, [S, 1]."""
        self.update_learning_rates(progress)
        entropy_coef: torch.Tensor = scheduled(self.entropy_schedule, self.entropy_coef, self.entropy_final, progress)
        return entropy_coef

    def describe(
        self, losses: dict[str, torch.Tensor], weight: torch.Tensor, entropy_coef: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the metrics [S] that every step of the optimizer has."""
        metrics = {name: average(loss.detach(), weight) for name, loss in losses.items()}
        return metrics | {
            "entropy": -metrics["entropy_loss"],
            "learning_rate": self.learning_rate[:, 0],
            "ent_coef": entropy_coef[:, 0],
        }


def share(usable: torch.Tensor) -> torch.Tensor:
    """Return each sample's share [..., B] of an average over the usable ones (1 or 0, [..., B])."""
    return usable / usable.sum(-1, keepdim=True).clamp(min=1.0)


def any_usable(weight: torch.Tensor) -> torch.Tensor:
    """Return 1 for each Session that has a sample to learn from, 0 for others: [S, 1] of weights [S, B]."""
    return (weight.sum(-1, keepdim=True) > 0).to(weight.dtype)


def average(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted average over the last axis."""
    return (values * weight).sum(-1)


def normalize(advantage: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return advantages [..., B] with weighted mean 0 and deviation 1."""
    centered = advantage - average(advantage, weight).unsqueeze(-1)
    return centered / (average(centered.square(), weight).sqrt().unsqueeze(-1) + 1e-8)


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
