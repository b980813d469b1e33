"""What SARSA, DQN and PQN share: a network of action values, and exploration around the highest of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.algorithm import Algorithm
from lab.algo.exploration import ExplorationSpec
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.net.net import Net
    from lab.net.network import StackedNetwork


@dataclass
class ValueBased(Algorithm):
    """Chooses the action of the highest value, now and then another one."""

    dueling: bool  # whether the value of a state and the advantages of actions have outputs of their own
    exploration: ExplorationSpec

    if TYPE_CHECKING:
        network: StackedNetwork  # that acts, set by `build`

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        self.exploration.check("algo.exploration")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        import gymnasium as gym

        super().check_spaces(spaces, env)
        if not isinstance(spaces.action, gym.spaces.Discrete):
            raise LabError(
                f"algo={self.name} cannot learn env.id={env.id}, whose actions are {spaces.action}: it needs one choice"
                " from several (Discrete)."
            )

    def build_network(
        self, spaces: Spaces, net: Net, streams: list[Streams], atoms: int = 0, noisy: bool = False
    ) -> StackedNetwork:
        """Return a network of action values, or of so many atoms, N, of their distribution; 0 for values alone."""
        from lab.net.net import Output

        self.choices, self.atom_count = int(spaces.action.n), atoms  # type: ignore[attr-defined]
        ones = [1.0] * len(streams)
        outputs = [Output("advantage", self.choices * max(atoms, 1), ones, noisy)]
        if self.dueling:
            outputs.append(Output("value", max(atoms, 1), ones, noisy))
        return net.build(spaces.observation, outputs, [stream.initialization for stream in streams])

    def atoms_of(self, network: Callable[..., tuple[torch.Tensor, ...]], observation: torch.Tensor) -> torch.Tensor:
        """Return what the network says of every action, [S, B, A] or [S, B, A, N], of observations [S, B, ...]."""
        outputs = network(observation, "advantage", "value") if self.dueling else network(observation, "advantage")
        if self.atom_count:
            outputs = tuple(output.unflatten(-1, (-1, self.atom_count)) for output in outputs)
        if not self.dueling:
            return outputs[0]
        advantage, value = outputs
        return value + advantage - advantage.mean(2, keepdim=True)  # Wang et al. 2016, equation 9

    def values(self, atoms: torch.Tensor) -> torch.Tensor:
        """Return the values of actions, [S, B, A], of what the network says of them, [S, B, A] or [S, B, A, N]."""
        return atoms

    def noise(self, steps: int, num_envs: int, streams: list[Streams], progress: float) -> torch.Tensor:
        return self.exploration.noise((steps, num_envs), self.choices, streams, progress)

    def act(
        self, observation: torch.Tensor, noise: torch.Tensor | None, carry: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            values = self.values(self.atoms_of(self.network, observation))
        return (values if noise is None else values + noise).argmax(-1), carry


def taken(values: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Return what a network says of actions [...], of what it says of all: values [..., A], or atoms [..., A, N]."""
    index = action.unsqueeze(-1)
    if values.dim() == index.dim():
        return values.gather(-1, index).squeeze(-1)
    index = index.unsqueeze(-1).expand(*index.shape, values.shape[-1])
    return values.gather(-2, index).squeeze(-2)
