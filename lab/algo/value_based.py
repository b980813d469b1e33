"""The base of SARSA, PQN and DQN: a network of action values, and exploration around the highest of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from lab.algo.algorithm import Algorithm, compilable, unsupported_actions
from lab.algo.exploration import ExplorationSpec
from lab.algo.samples import (
    check_batch_size,
    draw_orders,
    explained_variance,
    gather_actions,
    has_samples,
    sample_weights,
    weighted_mean,
)
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count, Scalar
from lab.env.spec import EnvSpec
from lab.net.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.rollout import Rollout
    from lab.net.net import Net
    from lab.net.network import StackedNetwork


@dataclass
class ValueBased(Algorithm):
    """Chooses the action of the highest value, or explores.

    The network's outputs for all actions are their values, [S, B, A], or atoms of their distribution, [S, B, A, N].
    """

    SERVES_MASKS: ClassVar[bool] = True

    dueling: bool
    exploration: ExplorationSpec
    optimizer: OptimizerSpec

    if TYPE_CHECKING:
        network: StackedNetwork  # set by `build`

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        self.exploration.check("algo.exploration")
        self.optimizer.check("algo.optimizer")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        import gymnasium as gym

        super().check_spaces(spaces, env)
        if not isinstance(spaces.action, gym.spaces.Discrete):
            raise unsupported_actions(self, "Discrete", spaces.action, env)

    def build_network(
        self, spaces: Spaces, net: Net, streams: list[Streams], num_atoms: int = 0, noisy: bool = False
    ) -> StackedNetwork:
        """Return a network of action values, or of the atoms of their distribution if there are any."""
        from lab.net.net import Output

        self.num_actions, self.num_atoms = int(spaces.action.n), num_atoms  # type: ignore[attr-defined]
        ones = [1.0] * len(streams)
        outputs = [Output("advantage", self.num_actions * max(num_atoms, 1), ones, noisy)]
        if self.dueling:
            outputs.append(Output("value", max(num_atoms, 1), ones, noisy))
        return net.build(spaces.observation, outputs, [stream.initialization for stream in streams])

    def action_outputs(self, network: StackedNetwork, observation: torch.Tensor) -> torch.Tensor:
        """Return a network's outputs for all actions, of observations [S, B, ...]."""
        names = ("advantage", "value") if self.dueling else ("advantage",)
        outputs = network.forward(observation, *names)
        if self.num_atoms:
            outputs = tuple(output.unflatten(-1, (-1, self.num_atoms)) for output in outputs)
        if not self.dueling:
            return outputs[0]
        advantage, value = outputs
        mask = self.action_mask(observation)
        if mask is None:
            return value + advantage - advantage.mean(2, keepdim=True)  # Wang et al. 2016, equation 9
        weights = sample_weights(mask).unsqueeze(-1) if self.num_atoms else sample_weights(mask)  # of valid actions
        return value + advantage - (advantage * weights).sum(2, keepdim=True)

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the values that the network's outputs stand for, without their last axis if it is one of atoms."""
        return outputs

    def values_of(self, outputs: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """Return the values of all actions, [S, B, A], of a network's outputs; those of invalid actions are INVALID."""
        from lab.net.distribution import mask_invalid

        return mask_invalid(self.expectation(outputs), self.action_mask(observation))

    def q_values(self, observation: torch.Tensor) -> torch.Tensor:
        """Return the values of all actions, [S, B, A], of observations [S, B, ...]."""
        return self.values_of(self.action_outputs(self.network, observation), observation)

    def draw_noise(self, steps: int, num_envs: int, streams: list[Streams], fraction_done: float) -> torch.Tensor:
        size, masked = (steps, num_envs), self.spaces.has_mask
        return self.exploration.draw_noise(size, self.num_actions, streams, fraction_done, masked)

    def choose(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        from lab.net.distribution import mask_invalid

        values = self.q_values(observation)
        if noise is not None:
            values = mask_invalid(values + noise, self.action_mask(observation))
        return values.argmax(-1), carry


@dataclass
class OnPolicyValueBased(ValueBased):
    """Action values that move toward the lambda-returns of the newest steps, without memory or target network.

    Subclasses compute the value that completes a one-step return.
    """

    td_lambda: Annotated[Scalar, Ge(0), Le(1)]
    epochs: Count
    batch_size: int | None

    METRICS: ClassVar[tuple[str, ...]] = (
        "q_loss", "q_values", "td_error", "explained_variance", "exploration_rate", "grad_norm", "learning_rate",
    )  # fmt: skip

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        if self.batch_size is not None:
            check_batch_size(self.batch_size, self.horizon, env.num_envs)

    def learning_steps(self, frames: int, num_envs: int) -> int:
        return self.epochs * frames // (self.batch_size or self.horizon * num_envs)

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.learner import Learner

        super().build(spaces, net, streams, device)
        self.network = self.build_network(spaces, net, streams)
        self.learners["q"] = Learner(nn.ModuleDict({"q": self.network}), self.optimizer, device)

    def rollout_values(self, rollout: Rollout) -> torch.Tensor:
        """Return the values of all actions in every state of a rollout, [T + 1, S, E, A], without gradients."""
        from lab.memory.rollout import by_session

        length, stack, num_envs = rollout.observation.shape[:3]
        with torch.no_grad():
            values = self.q_values(by_session(rollout.observation))
        return values.view(stack, length, num_envs, self.num_actions).transpose(0, 1)

    def fit(
        self,
        rollout: Rollout,
        values: torch.Tensor,
        returns: torch.Tensor,
        streams: list[Streams],
        fraction_done: float,
    ) -> dict[str, torch.Tensor]:
        """Take steps on 1/2 (Q(s, a) - G)^2 in minibatches of a rollout, and return metrics [S].

        Args:
            rollout: T steps.
            values: of all actions before these steps, [T + 1, S, E, A].
            returns: G, [T, S, E].
            streams: each Session's random streams.
            fraction_done: fraction of the Session's frames that are done.
        """
        from lab.memory.rollout import by_session

        samples = {
            "observation": by_session(rollout.observation[:-1]),
            "action": by_session(rollout.action),
            "returns": by_session(returns),
            "mask": by_session(rollout.valid),
        }
        size = samples["mask"].shape[1]
        count = size // (self.batch_size or size)
        self.update_learning_rates(fraction_done)
        totals: dict[str, torch.Tensor] = {}
        for order in draw_orders(streams, self.epochs, size, returns.device):
            for rows in order.chunk(count, 1):
                metrics = self.update(samples, rows)
                totals = {name: totals.get(name, 0.0) + metric for name, metric in metrics.items()}

        metrics = {name: total / (count * self.epochs) for name, total in totals.items()}
        before = by_session(gather_actions(values[:-1], rollout.action))
        return metrics | {
            "steps": totals["steps"],
            "learning_rate": self.learning_rate[:, 0],
            "exploration_rate": self.exploration.scheduled_tensor(fraction_done, returns.device),
            "explained_variance": explained_variance(before, samples["returns"], sample_weights(samples["mask"])),
        }

    @compilable
    def update(self, samples: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take an optimizer step on a minibatch, and return metrics [S].

        Args:
            samples: of the horizon by name, [S, N, ...].
            rows: those of the minibatch, [S, B].
        """
        from lab.memory.rollout import take

        batch = take(samples, rows)
        weights = sample_weights(batch["mask"])
        value = gather_actions(self.q_values(batch["observation"]), batch["action"])
        error = value - batch["returns"]
        loss = 0.5 * error.square()
        mask = self.active * has_samples(weights)
        norm = self.learners["q"].step(loss, weights, mask)
        return {
            "steps": mask[:, 0],
            "q_loss": weighted_mean(loss.detach(), weights),
            "q_values": weighted_mean(value.detach(), weights),
            "td_error": weighted_mean(error.detach().abs(), weights),
            "grad_norm": norm,
        }
