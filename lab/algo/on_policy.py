"""The base of REINFORCE, A2C and PPO: a policy and a value network, and a step on their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from lab.algo.algorithm import Algorithm
from lab.algo.samples import weighted_mean
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Scalar
from lab.env.spec import EnvSpec
from lab.errors import LabError, require
from lab.net.optimizer import OptimizerSpec
from lab.net.schedule import check_schedule, scheduled

if TYPE_CHECKING:
    from lab.algo.sil import SelfImitation
    from lab.env.vector import Spaces
    from lab.memory.rollout import Rollout
    from lab.net.distribution import Distribution
    from lab.net.net import Net


@dataclass
class OnPolicy(Algorithm):
    """A policy that learns from its newest steps."""

    entropy_coef: Scalar
    entropy_schedule: str
    entropy_final: Scalar
    value_coef: Annotated[Scalar, Ge(0)]
    normalize_advantage: bool
    policy_gain: Annotated[Scalar, Gt(0)]
    distribution: Literal["auto", "gaussian", "tanh_gaussian", "beta"]
    log_std_init: Scalar
    state_dependent_std: bool
    optimizer: OptimizerSpec

    METRICS: ClassVar[tuple[str, ...]] = (
        "policy_loss", "value_loss", "entropy_loss", "entropy", "approx_kl", "explained_variance", "grad_norm",
        "learning_rate", "ent_coef",
    )  # fmt: skip
    SERVES_RECURRENT: ClassVar[bool] = True
    SERVES_MASKS: ClassVar[bool] = True

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        schedule, final = self.entropy_schedule, self.entropy_final
        check_schedule("algo.entropy", "algo.entropy_coef", self.entropy_coef, schedule, final)
        normal = not self.state_dependent_std or self.distribution != "beta"
        require(normal, "algo.state_dependent_std", self.state_dependent_std, "false with algo.distribution=beta")
        self.optimizer.check("algo.optimizer")
        if self.imitation:
            self.imitation.check("algo.sil", self.horizon * env.num_envs)

    def check_net(self, net: Net) -> None:
        super().check_net(net)
        burn_in = getattr(net, "burn_in", 0)
        require(burn_in < self.horizon, "net.burn_in", burn_in, f"less than algo.horizon ({self.horizon} steps)")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        import gymnasium as gym

        super().check_spaces(spaces, env)
        space, needed = spaces.action, "Box actions"
        fits = self.distribution == "auto" or isinstance(space, gym.spaces.Box)
        if self.distribution in ("beta", "tanh_gaussian"):
            needed = "bounded Box actions"
            fits = isinstance(space, gym.spaces.Box) and space.is_bounded("both")
        if not fits:
            raise LabError(
                f"algo.distribution={self.distribution} is not possible with env.id={env.id}, whose actions are"
                f" {space}: it needs {needed}. Try algo.distribution=auto."
            )
        if self.imitation:
            self.imitation.memory.check_observations("algo.sil.memory", spaces.observation, env.id)

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        from torch import nn

        from lab.net.distribution import ActionHead
        from lab.net.learner import Learner
        from lab.net.net import Output

        super().build(spaces, net, streams, device)
        stack = len(streams)
        self.head = ActionHead(spaces.action, self.log_std_init, stack, self.distribution, self.state_dependent_std)
        outputs = [Output("policy", self.head.size, torch.as_tensor(self.policy_gain).flatten().tolist())]
        if self.has_value:
            outputs.append(Output("value", 1, [1.0] * stack))
        self.network = net.build(spaces.observation, outputs, [stream.initialization for stream in streams])
        self.carry_size = self.network.carry_size
        module = nn.ModuleDict({"network": self.network, "head": self.head})
        self.learners["agent"] = Learner(module, self.optimizer, device)

    def allocate(self, num_envs: int) -> None:
        if self.imitation:
            self.replay = self.imitation.allocate(self, num_envs)

    @property
    def has_value(self) -> bool:
        """Whether there is a value network; without one all values are 0."""
        return True

    @property
    def imitation(self) -> SelfImitation | None:
        """Self-imitation learning, for algorithms with the field `sil`, if it takes any gradient steps."""
        sil: SelfImitation | None = getattr(self, "sil", None)
        return sil if sil and sil.gradient_steps else None

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*self.METRICS, *self.imitation.METRICS) if self.imitation else self.METRICS

    def example_action(self) -> torch.Tensor:
        dtype = torch.float32 if self.head.continuous else torch.int64
        return torch.zeros(self.head.shape, dtype=dtype, device=self.active.device)

    def draw_noise(self, steps: int, num_envs: int, streams: list[Streams], fraction_done: float) -> torch.Tensor:
        drawn = [torch.from_numpy(self.head.noise(stream.actions, (steps, num_envs))) for stream in streams]
        return torch.stack(drawn, 1)

    @property
    def compiles_choice(self) -> bool:
        return self.head.kind != "beta"  # whose quantiles are computed by scipy

    def choose(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        (output,), carry = self.network.step(observation, carry, "policy")
        policy = self.head.forward(output, self.action_mask(observation))
        return policy.mode() if noise is None else policy.sample(noise), carry

    def network_inputs(self, rollout: Rollout, states: int) -> dict[str, torch.Tensor]:
        """Return the network's inputs for the first states of a rollout, laid out by `flatten_time`.

        Returns:
            `observation` [S, B, ...]; for recurrent networks also `begins` [S, B], 1 for states that begin an episode,
            and `carry` [S, E, K], the recurrent state before each environment's first step.
        """
        inputs = {"observation": self.flatten_time(rollout.observation[:states])}
        if self.carry_size:
            inputs |= {"begins": self.flatten_time(rollout.episode_starts[:states]), "carry": rollout.carry}
        return inputs

    def flatten_time(self, steps: torch.Tensor) -> torch.Tensor:
        """Flatten steps [T, S, E, ...] to [S, B, ...], by environment for recurrent networks."""
        from lab.memory.rollout import by_environment, by_session

        return by_environment(steps) if self.carry_size else by_session(steps)

    def forward(self, inputs: dict[str, torch.Tensor], *outputs: str) -> tuple[torch.Tensor, ...]:
        """Return named outputs of the network, [S, B, size], for what `network_inputs` returned."""
        if not self.carry_size:
            return self.network.forward(inputs["observation"], *outputs)
        return self.network.unroll(inputs["observation"], inputs["carry"], inputs["begins"], *outputs)

    def policy(self, inputs: dict[str, torch.Tensor]) -> Distribution:
        """Return the distributions of actions for what `network_inputs` returned."""
        return self.head.forward(self.forward(inputs, "policy")[0], self.action_mask(inputs["observation"]))

    def policy_and_value(self, inputs: dict[str, torch.Tensor]) -> tuple[Distribution, torch.Tensor]:
        """Return the distributions of actions and the values [S, B] for what `network_inputs` returned."""
        if not self.has_value:
            return self.policy(inputs), torch.zeros(inputs["observation"].shape[:2], device=self.active.device)
        policy, value = self.forward(inputs, "policy", "value")
        return self.head.forward(policy, self.action_mask(inputs["observation"])), value.squeeze(-1)

    def values(self, rollout: Rollout) -> torch.Tensor:
        """Return the values of every state of a rollout, [T + 1, S, E], without gradients."""
        length, stack, num_envs = rollout.observation.shape[:3]
        with torch.no_grad():
            (value,) = self.forward(self.network_inputs(rollout, length), "value")
        if self.carry_size:
            return value.view(stack, num_envs, length).movedim(2, 0)
        return value.view(stack, length, num_envs).transpose(0, 1)

    def mask_burn_in(self, mask: torch.Tensor) -> torch.Tensor:
        """Return a mask of steps [T, S, E] with those of the network's burn-in set to 0."""
        burn_in = self.network.burn_in
        return torch.cat([torch.zeros_like(mask[:burn_in]), mask[burn_in:]]) if burn_in else mask

    def discount(self, rollout: Rollout) -> torch.Tensor:
        """Return each step's discount, [T, S, E]: gamma, or 0 where the episode terminated."""
        return self.gamma * (1 - rollout.terminated)

    def update_schedules(self, fraction_done: float) -> torch.Tensor:
        """Set the learning rate of a learning call, and return its weight of the entropy bonus, [S, 1]."""
        self.update_learning_rates(fraction_done)
        entropy_coef: torch.Tensor = scheduled(
            self.entropy_schedule, self.entropy_coef, self.entropy_final, fraction_done
        )
        return entropy_coef

    def step(
        self, losses: dict[str, torch.Tensor], weights: torch.Tensor, mask: torch.Tensor, entropy_coef: torch.Tensor
    ) -> torch.Tensor:
        """Take an optimizer step on policy_loss + value_coef * value_loss - entropy_coef * entropy.

        Args:
            losses: these two losses and the entropy of every sample by name, [S, B].
            weights: weights of the samples, [S, B].
            mask: 1 for Sessions that take this step, 0 for others, [S, 1].
            entropy_coef: [S, 1].

        Returns:
            The norm of each Session's gradient before clipping, [S].
        """
        total = torch.addcmul(losses["policy_loss"], torch.as_tensor(self.value_coef), losses["value_loss"])
        total = torch.addcmul(total, entropy_coef, losses["entropy"], value=-1)
        return self.learners["agent"].step(total, weights, mask)

    def loss_metrics(self, losses: dict[str, torch.Tensor], weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the metrics [S] of a step's losses."""
        metrics = {name: weighted_mean(loss.detach(), weights) for name, loss in losses.items()}
        return metrics | {"entropy_loss": -metrics["entropy"]}

    def schedule_metrics(self, entropy_coef: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the metrics [S] of what is scheduled."""
        return {"learning_rate": self.learning_rate[:, 0], "ent_coef": entropy_coef[:, 0]}

    def imitate(
        self,
        rollout: Rollout,
        value: torch.Tensor,
        streams: list[Streams],
        fraction_done: float,
        steps: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the metrics of self-imitation after a horizon, and all its learning steps; empty if it is off."""
        if self.imitation is None:
            return {}
        return self.imitation.learn(self, self.policy_and_value, rollout, value, streams, fraction_done, steps)
