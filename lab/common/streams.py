"""The random streams of a Session, one for each purpose."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Streams:
    """Independent random generators, spawned from one seed (law 2: a Session uses no others).

    How much one purpose draws never changes the draws of another.
    """

    initialization: np.random.Generator
    actions: np.random.Generator
    minibatches: np.random.Generator
    environments: np.random.Generator
    evaluation: np.random.Generator

    @classmethod
    def spawn(cls, seed: int) -> "Streams":
        """Return the streams of the Session with this seed."""
        children = np.random.SeedSequence(seed).spawn(len(cls.__dataclass_fields__))
        return cls(*(np.random.Generator(np.random.PCG64(child)) for child in children))

    def state(self) -> dict[str, Any]:
        """Return the state of every stream, for a checkpoint."""
        return {name: getattr(self, name).bit_generator.state for name in self.__dataclass_fields__}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned."""
        for name, value in state.items():
            getattr(self, name).bit_generator.state = value
