"""What every network config is: a dataclass that builds a stacked network."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from lab.common.conf import config_path
from lab.errors import LabError

if TYPE_CHECKING:
    from gymnasium.spaces import Box
    from torch import nn

    from lab.net.network import StackedNetwork

NormName = Literal["none", "layer", "batch_renorm"]
ActivationName = Literal["tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus", "sigmoid"]
NORMS = get_args(NormName)


@dataclass
class Output:
    """One output of a network.

    Attributes:
        name: its name.
        size: numbers for each observation.
        gains: gain of the initialization of its last layer, one for each Session.
        noisy: whether its last layer is a NoisyLinear.
    """

    name: str
    size: int
    gains: list[float]
    noisy: bool = False


@dataclass
class Net:
    """Base of the schemas in conf/net/.

    Attributes:
        named: keys that the command line sets; `net` is one of them unless the net is just the default.
    """

    shared: bool = field(kw_only=True)  # whether the outputs share one trunk

    named = frozenset({"net"})
    recurrent: ClassVar[bool] = False  # whether it carries a state from step to step

    @property
    def path(self) -> str:
        """Path of the class, as in `_target_`."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @property
    def choice(self) -> str:
        """What chooses it on the command line, as net=mlp; net._target_=... for one of the user's own."""
        return net_choice(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return the config that this was made of, as plain data."""
        return {"_target_": self.path, **asdict(self)}

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""

    @property
    def by_batch(self) -> bool:
        """Whether its outputs depend, in training, on the other samples of a minibatch."""
        return False

    def with_norm(self, norm: NormName) -> Net:
        """Return the net with another one of NORMS between its layers.

        Raises:
            LabError: it has no such layers.
        """
        if norm == "none":
            return self
        raise LabError(
            f"algo.norm={norm} is not possible with {self.choice}: it has no normalization between its"
            " layers. Choose algo.norm=none, or net=mlp."
        )

    def check_observations(self, observations: Box, actions: int | None = None) -> None:
        """Raise LabError for observations that the network cannot process; warn of features that seem to be outputs.

        `observations` are those that networks take, as `network_observations` returns them. `actions` is the number of
        choices, or of numbers in an action; None if unknown.
        """

    def trunk(self, observations: Box, extra: int, rngs: list[np.random.Generator]) -> tuple[nn.Module, int]:
        """Return a stacked trunk, and its number of features."""
        raise NotImplementedError

    def build(
        self, observations: Box, outputs: list[Output], rngs: list[np.random.Generator], extra: int = 0
    ) -> StackedNetwork:
        """Build the network of a stack: observations [S, B, ...], each output [S, B, size].

        Args:
            observations: one environment's observations, which may be a Row.
            outputs: what it computes.
            rngs: each Session's stream of initialization; their number is S.
            extra: numbers given beside each observation, as the action to a critic.
        """
        from lab.common.rows import Row, network_observations
        from lab.net.layers import Linear, NoisyLinear

        inner = network_observations(observations)
        trunks: dict[str, nn.Module] = {}
        heads: dict[str, nn.Module] = {}
        for index, output in enumerate(outputs):
            if index == 0 or not self.shared:
                trunk, features = self.trunk(inner, extra, rngs)
            trunks[output.name] = trunk
            layer = NoisyLinear if output.noisy else Linear
            heads[output.name] = layer(features, output.size, output.gains, rngs)
        network = self.assemble(trunks, heads)
        network.row = observations if isinstance(observations, Row) else None
        return network

    def assemble(self, trunks: dict[str, nn.Module], heads: dict[str, nn.Module]) -> StackedNetwork:
        """Return the network of these trunks and heads, by the name of their output."""
        from lab.net.network import StackedNetwork

        return StackedNetwork(trunks, heads)


def net_choice(path: str) -> str:
    """Return the override that chooses a network by its path, as net=mlp; net._target_=... if conf/net/ lacks it."""
    files = sorted(Path(config_path(), "net").glob("*.yaml"))
    is_chosen = re.compile(rf"_target_: {re.escape(path)}\s").match
    option = next((file.stem for file in files if is_chosen(file.read_text(encoding="utf-8"))), None)
    return f"net={option}" if option else f"net._target_={path}"


def refuse_images(net: Net, observations: Box) -> None:
    """Raise LabError for observations with images, for a network that has no convolutions."""
    from lab.common.rows import is_image, parts_of

    shapes = [str(part.space.shape) for part in parts_of(observations) if is_image(part.space)]
    if shapes:
        raise LabError(
            f"{net.choice} takes numbers, not images, and the observations have images of shape"
            f" {', '.join(shapes)}: choose net=multi."
        )
