"""What SARSA and PQN share: action values learned from the steps just taken, with no memory and no target network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lab.algo.minibatches import check_minibatch, orders
from lab.algo.on_policy import any_usable, average, explained_variance, share
from lab.algo.returns import lambda_return
from lab.algo.value_based import ValueBased, taken
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require
from lab.net.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.rollout import Rollout
    from lab.net.net import Net


@dataclass
class Online(ValueBased):
    """Moves the values of the actions just taken toward their lambda-returns; subclasses say what completes these."""

    td_lambda: float  # decay of longer returns, 0 for those of one step
    epochs: int  # passes over each horizon of steps
    batch_size: int | None  # samples in a learning step, null for the whole horizon
    optimizer: OptimizerSpec

    METRICS: ClassVar[tuple[str, ...]] = (
        "q_loss", "q_values", "td_error", "explained_variance", "exploration_rate", "grad_norm", "learning_rate",
    )  # fmt: skip

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(0 <= self.td_lambda <= 1, "algo.td_lambda", self.td_lambda, "from 0 to 1")
        require(self.epochs >= 1, "algo.epochs", self.epochs, "1 or more")
        if self.batch_size is not None:
            check_minibatch(self.batch_size, self.horizon, env.num_envs)
        self.optimizer.check("algo.optimizer")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.learner import Learner

        self.prepare(streams, device)
        self.network = self.build_network(spaces, net, streams)
        self.learners["q"] = Learner(nn.ModuleDict({"q": self.network}), self.optimizer, device)

    def following(self, values: torch.Tensor, rollout: Rollout, progress: float) -> torch.Tensor:
        """Return the value of what follows each step, [T, S, E].

        Args:
            values: of every action in every state of the rollout, [T + 1, S, E, A].
            rollout: the steps.
            progress: share of the Session's frames that were done when they were taken.
        """
        raise NotImplementedError

    def learn(
        self, rollout: Rollout, streams: list[Streams], progress: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        from lab.memory.rollout import by_session, dealt, shuffled

        values = self.rollout_values(rollout)
        discount = self.gamma * (1 - rollout.terminated)
        following = self.following(values, rollout, progress)
        returns = lambda_return(rollout.reward, discount, following, rollout.truncated, self.td_lambda)
        samples = {
            "observation": by_session(rollout.observation[:-1]),
            "action": by_session(rollout.action),
            "returns": by_session(returns),
            "usable": by_session(rollout.valid),
        }

        number = samples["usable"].shape[1]
        count = number // (self.batch_size or number)
        self.update_learning_rates(progress)
        lr = self.learning_rate
        totals: dict[str, torch.Tensor] = {}
        for order in orders(streams, self.epochs, number).to(lr.device).unbind(1):
            batches = shuffled(samples, order, count)
            batches["weight"] = share(batches["usable"])
            for batch in dealt(batches):
                value = taken(self.action_values(batch["observation"]), batch["action"])
                error = value - batch["returns"]
                loss, weight = 0.5 * error.square(), batch["weight"]
                active = self.active * any_usable(weight)
                norm = self.learners["q"].step(loss, weight, active)
                step = {
                    "steps": active[:, 0],
                    "q_loss": average(loss.detach(), weight),
                    "q_values": average(value.detach(), weight),
                    "td_error": average(error.detach().abs(), weight),
                    "grad_norm": norm,
                }
                for name, metric in step.items():
                    totals[name] = totals.get(name, 0.0) + metric

        metrics = {name: total / (count * self.epochs) for name, total in totals.items()}
        metrics |= {"steps": totals["steps"], "learning_rate": lr[:, 0]}
        metrics["exploration_rate"] = lr.new_tensor(self.exploration.values(progress))
        before = by_session(taken(values[:-1], rollout.action))
        metrics["explained_variance"] = explained_variance(before, samples["returns"], share(samples["usable"]))
        return metrics

    def action_values(self, observation: torch.Tensor) -> torch.Tensor:
        """Return the values of all actions, [S, B, A], of observations [S, B, ...]."""
        return self.values(self.atoms_of(self.network, observation))

    def rollout_values(self, rollout: Rollout) -> torch.Tensor:
        """Return the values of all actions in every state of a rollout, [T + 1, S, E, A], without their gradients."""
        from lab.memory.rollout import by_session

        length, stack, num_envs = rollout.observation.shape[:3]
        with torch.no_grad():
            values = self.action_values(by_session(rollout.observation))
        return values.view(stack, length, num_envs, self.choices).transpose(0, 1)
