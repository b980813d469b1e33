"""The interface between an algorithm and the training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce, wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, cast

from annotated_types import Ge, Le

from lab.common.imports import torch
from lab.common.streams import Streams
from lab.common.validation import Count, Scalar
from lab.env.spec import EnvSpec
from lab.errors import LabError, require, require_one_of
from lab.net.net import NORMS

if TYPE_CHECKING:
    import gymnasium as gym
    from torch import nn

    from lab.env.vector import Spaces
    from lab.memory.replay import Replay
    from lab.memory.rollout import Rollout
    from lab.net.compiled import Compiler
    from lab.net.learner import Learner
    from lab.net.net import Net
    from lab.net.network import Parameters

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def compilable(method: F) -> F:
    """Mark a method of an algorithm as one that its `compiler` compiles; without a compiler it is called as it is.

    Its arguments are tensors [S, ...], or nested dicts and dataclasses of them; keyword arguments are constants, each
    combination of which is compiled for itself. It returns tensors [S, ...], or nested dicts and tuples of them. It
    must not read a tensor's numbers on the host, draw random numbers, or depend on what changes in Python.
    """

    @wraps(method)
    def call(self: Algorithm, *arguments: Any, **constants: Any) -> Any:
        if self.compiler is None:
            return method(self, *arguments, **constants)
        return self.compiler.call(method, arguments, constants)

    return cast("F", call)


@dataclass
class Algorithm:
    """Base of the schemas in conf/algo/, and of the objects that learn.

    As a schema it holds one Session's hyperparameters. `stack` turns several into the object that learns: each Scalar
    becomes a tensor [S, 1], and `build` makes the networks. conf/algo/ explains the hyperparameters.

    Attributes set by `build`:
        learners: networks that are optimized together, by name.
        targets: parameters of target networks, by name.
        active: 1 for Sessions that still learn, 0 for others, [S, 1].
        carry_size: numbers that a recurrent agent carries from step to step, K; 0 for others.
        compiler: what compiles the methods marked `compilable`; None if they run as they are.
        problems: problems found by the checks of every step (mode=dev), by index of the Session; None without checks.
        replay: the replay memory, if the algorithm has one and `allocate` made it.
    """

    name: str
    horizon: Count
    gamma: Annotated[Scalar, Ge(0), Le(1)]

    METRICS: ClassVar[tuple[str, ...]] = ()  # names of the metrics that `learn` returns
    COMPILES: ClassVar[bool] = True  # whether its learning steps have static shapes, so that they can be compiled
    SERVES_RECURRENT: ClassVar[bool] = False  # whether it learns from sequences, as recurrent networks need
    SERVES_MASKS: ClassVar[bool] = False  # whether it learns with action masks
    SERVES_BY_BATCH: ClassVar[bool] = False  # whether it learns with networks that normalize by minibatches

    def check(self, env: EnvSpec) -> None:
        """Raise LabError for values that do not fit together."""

    def learning_steps(self, frames: int, num_envs: int) -> int:
        """Return how many optimizer steps a Session of so many frames takes, about."""
        return frames // (self.horizon * num_envs)

    def check_net(self, net: Net) -> None:
        """Raise LabError for a network that the algorithm cannot use."""
        if net.recurrent and not self.SERVES_RECURRENT:
            raise LabError(
                f"algo={self.name} cannot learn with {net.choice}, a recurrent network: it learns from"
                " single steps. Choose another network, as net=mlp, or an algorithm that learns from sequences, as"
                " algo=ppo or algo=a2c."
            )
        key, norm, chosen = "net.norm", getattr(self, "norm", None), getattr(net, "norm", "none")
        if norm is not None:
            require(chosen == "none", key, chosen, f"none with algo={self.name}, whose algo.norm takes its place")
            require_one_of("algo.norm", norm, NORMS)
            key, chosen = "algo.norm", norm
        serves = self.SERVES_BY_BATCH or not self.normalized_net(net).by_batch
        require(serves, key, chosen, f"none or layer with algo={self.name}: only crossq learns with {chosen}")

    def normalized_net(self, net: Net) -> Net:
        """Return the net with the normalization of `norm`, for algorithms that have this field in place of net.norm.

        Raises:
            LabError: it has no layers to normalize between.
        """
        norm = getattr(self, "norm", None)
        return net if norm is None else net.with_norm(norm)

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        """Raise LabError for an environment whose spaces the algorithm cannot learn."""
        allowed = f"false with algo={self.name}, which learns no action masks"
        require(not spaces.has_mask or self.SERVES_MASKS, "env.action_mask", True, allowed)

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        """Make networks and optimizers, drawing from each Session's stream of initialization."""
        self.spaces = spaces
        self.learners: dict[str, Learner] = {}
        self.targets: dict[str, Parameters] = {}
        self.active = torch.ones(len(streams), 1, device=device)
        self.carry_size = 0
        self.problems: dict[int, str] | None = None
        self.compiler: Compiler | None = None
        self.replay: Replay | None = None

    def action_mask(self, observation: torch.Tensor) -> torch.Tensor | None:
        """Return which actions are valid, 1, and which are not, 0, of observations [..., D]; None if all are."""
        from lab.common.rows import Row

        row = self.spaces.observation
        return observation[..., : row.mask] if isinstance(row, Row) and row.mask else None

    def add_target(self, name: str, prefix: str, network: nn.Module) -> Any:
        """Return a copy of a network as a target network; `prefix` begins the names of its parameters."""
        from torch import nn

        from lab.net.network import Parameters

        target = copy.deepcopy(network).to(self.active.device)
        self.targets[name] = Parameters(nn.ModuleDict({prefix: target}))
        return target

    def update_learning_rates(self, fraction_done: float) -> None:
        """Set every learner's learning rate; call it once in each learning call, as schedules of torch count these."""
        for learner in self.learners.values():
            learner.update_lr(fraction_done)

    @property
    def learning_rate(self) -> torch.Tensor:
        """The learning rate of the present learning call, [S, 1]."""
        return next(iter(self.learners.values())).lr

    def allocate(self, num_envs: int) -> None:
        """Make what only learning needs, such as a replay memory.

        Raises:
            LabError: it does not fit into the memory of this machine.
        """

    def example_action(self) -> torch.Tensor:
        """Return one action, for its shape and type."""
        raise NotImplementedError

    def draw_noise(self, steps: int, num_envs: int, streams: list[Streams], fraction_done: float) -> torch.Tensor:
        """Draw the randomness of a horizon of actions, [T, S, E, ...]."""
        raise NotImplementedError

    def act(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose actions.

        Args:
            observation: [S, E, ...].
            noise: of one step, [S, E, ...]; None for deterministic actions.
            carry: the recurrent state, [S, E, K]; zeros where an episode begins.

        Returns:
            Actions [S, E, ...], and the next carry. Compiled, the next call overwrites them.
        """
        state = carry if self.carry_size else None
        with torch.no_grad():
            # Deterministic actions are for a few episodes of evaluation, with another number of environments.
            if self.compiler is None or noise is None or not self.compiles_choice:
                action, state = self.choose(observation, noise, state)
            else:
                action, state = self.compiler.call(type(self).choose, (observation, noise, state), {})
        return action, carry if state is None else state

    @property
    def compiles_choice(self) -> bool:
        """Whether `choose` reads no tensor's numbers on the host, so that it can be compiled."""
        return True

    def choose(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Choose actions as `act` does; the carry is None for agents that are not recurrent."""
        raise NotImplementedError

    def learn(
        self, rollout: Rollout, streams: list[Streams], fraction_done: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        """Learn from a horizon of steps.

        Args:
            rollout: the steps.
            streams: each Session's random streams.
            fraction_done: fraction of the Session's frames that are done, 0 to 1.
            diagnose: whether to compute the metrics that cost time too.

        Returns:
            Metrics [S] by the names in `metrics`, and `steps`: the number of learning steps.
        """
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `learn` returns, which are columns of metrics.csv."""
        return self.METRICS

    @property
    def networks(self) -> list[Parameters]:
        """The parameters of every network."""
        return [*(learner.parameters for learner in self.learners.values()), *self.targets.values()]

    def drop(self, index: int) -> None:
        """Let one Session learn no more."""
        self.active[index] = 0.0
        if self.compiler:
            self.compiler.skipped.add(index)

    def check_steps(self) -> None:
        """Check every learning step from now on (mode=dev)."""
        self.problems = {}
        for learner in self.learners.values():
            learner.problems = self.problems

    def parameter_sums(self) -> torch.Tensor:
        """Return the sum of all parameters that each Session learns, [S]; it is finite if they are."""
        return reduce(torch.add, (learner.parameters.values.sum(1) for learner in self.learners.values()))

    def weights(self, index: int) -> dict[str, torch.Tensor]:
        """Return copies of all parameters of one Session by name, on the CPU."""
        return {name: value for network in self.networks for name, value in network.session(index).items()}

    def gradients(self, index: int) -> dict[str, torch.Tensor]:
        """Return copies of the last gradients of one Session by name, on the CPU."""
        learners = self.learners.values()
        return {k: v for learner in learners for k, v in learner.parameters.session_gradients(index).items()}

    def state(self, index: int) -> dict[str, Any]:
        """Return what one Session has learned, as tensors and plain data; its memory keeps files of its own."""
        learners = {name: learner.session(index) for name, learner in self.learners.items()}
        return {"parameters": self.weights(index), "learners": learners}

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Set one Session to what `state` returned."""
        for network in self.networks:
            network.restore(index, state["parameters"])
        for name, learner in self.learners.items():
            learner.restore(index, state["learners"][name])


def unsupported_actions(algo: Algorithm, supported: str, actions: gym.Space[Any], env: EnvSpec) -> LabError:
    """Return the error for an environment with actions that an algorithm does not support."""
    return LabError(
        f"algo={algo.name} supports {supported} actions only, and those of env.id={env.id} are {actions}. Choose"
        " another environment, or an algorithm for any actions, as algo=ppo."
    )


def stack(items: list[T], device: torch.device, key: str) -> T:
    """Return one object with the hyperparameters of several Sessions: each float becomes a tensor [S, 1].

    Raises:
        LabError: the Sessions differ in something that is not a float, which their arrays would have to share.
    """
    stacked: Any = copy.copy(items[0])
    for field in fields(items[0]):  # type: ignore[arg-type]
        values = [getattr(item, field.name) for item in items]
        name = f"{key}.{field.name}"
        if is_dataclass(values[0]):
            setattr(stacked, field.name, stack(values, device, name))
        elif all(isinstance(value, float) for value in values):
            column = torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)
            setattr(stacked, field.name, column)
        elif any(value != values[0] for value in values):
            raise LabError(f"{name} differs between Sessions of one stack ({values}): it must be the same for all.")
    return stacked
