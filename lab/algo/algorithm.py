"""What every algorithm is to the training loop."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lab.env.spec import EnvSpec
from lab.errors import LabError, require
from lab.lazy import torch
from lab.streams import Streams

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.rollout import Rollout
    from lab.net.net import Net
    from lab.net.network import Parameters
    from lab.net.optimiser import Optimiser

T = TypeVar("T")


@dataclass
class Algorithm:
    """Base of the schemas in conf/algo/, and of the objects that learn.

    As a schema it holds one Session's hyperparameters. `stack` makes of several the object that learns, whose
    numbers with a decimal point are vectors [S, 1] over the session axis, and `build` gives it networks.

    Attributes set by `build`:
        parameters: the parameters of every network.
        active: [S, 1], 1 for each Session that still learns.
        checks: whether to check every learning step (mode=dev).
        problems: what those checks found, by index of the Session.
    """

    name: str  # what the algorithm is called, in config and in the name of a run
    horizon: int  # steps each environment takes between learning
    gamma: float  # discount of the next step's reward

    METRICS: ClassVar[tuple[str, ...]] = ()  # names of what `learn` returns, the columns of metrics.csv

    def check(self, env: EnvSpec) -> None:
        """Raise LabError for a value that is not allowed."""
        require(self.horizon >= 1, "algo.horizon", self.horizon, "1 step or more")
        require(0 <= self.gamma <= 1, "algo.gamma", self.gamma, "from 0 to 1")

    def check_spaces(self, spaces: Spaces, env: EnvSpec) -> None:
        """Raise LabError for an environment whose spaces the algorithm cannot serve."""

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        """Make networks and optimisers, drawing from each Session's stream of initialisation."""
        self.parameters: Parameters
        self.optim: Optimiser
        self.active: torch.Tensor
        self.checks: bool
        self.problems: dict[int, str]
        raise NotImplementedError

    def noise(self, steps: int, num_envs: int, streams: list[Streams]) -> torch.Tensor:
        """Draw the randomness of a horizon of actions, [T, S, E, ...]."""
        raise NotImplementedError

    def act(self, observation: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Choose actions [S, E, ...] for observations [S, E, D]; without noise, the policy's deterministic ones."""
        raise NotImplementedError

    def learn(
        self, rollout: Rollout, streams: list[Streams], progress: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        """Learn from a horizon of steps.

        Args:
            rollout: the steps.
            streams: each Session's random streams.
            progress: share of the Session's frames that are done, 0 to 1.
            diagnose: whether to compute the metrics that cost time too.

        Returns:
            Metrics [S] of this call by names in METRICS, and `steps`: how many the optimiser took.
        """
        raise NotImplementedError


def stack(items: list[T], device: torch.device, key: str) -> T:
    """Make one object of several Sessions' hyperparameters: numbers become vectors [S, 1] over the session axis.

    Raises:
        LabError: the Sessions differ in something that is not a number with a decimal point, which would give their
            arrays different shapes.
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
