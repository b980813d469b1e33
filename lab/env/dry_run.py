"""A short play of an environment, before training, to find out where its random numbers come from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from gymnasium.utils.env_checker import data_equivalence

from lab.env.closing import close
from lab.env.generators import SHARED, Generators, Watch
from lab.env.guard import guard

STEPS = 100  # steps of a play


class Draws(NamedTuple):
    """Where an environment's random numbers come from.

    Attributes:
        shared: the generators that the whole process shares and that it draws from.
        repeatable: whether its seed, and that of the shared generators, decide all that it does.
    """

    shared: tuple[str, ...]
    repeatable: bool

    def warnings(self, name: str) -> list[str]:
        """Say what of it a user should know, with the name of the environment."""
        found = []
        if self.shared:
            found.append(
                f"{name} draws from {' and '.join(self.shared)}, which all of a process share: each environment gets"
                " states of its own, seeded by its Session. To draw from self.np_random is faster."
            )
        if not self.repeatable:
            found.append(
                f"{name} does not do the same again with the same seed and actions: its results cannot be reproduced."
                " It may draw from a generator that no seed reaches, or depend on the time."
            )
        return found


def find_draws(make: Callable[[], Any], name: str = "the environment") -> Draws:
    """Play an environment twice from the same seeds, and compare.

    Args:
        make: makes the environment, or vector environment, in the states that the shared generators are in.
        name: what notices call it.
    """
    plays = []
    for _ in range(2):
        with Generators(SHARED, 0):
            watch = Watch()
            plays.append(_play(make, name))
            changed = watch.changed()
    return Draws(tuple(changed), data_equivalence(plays[0], plays[1], exact=True))


def _play(make: Callable[[], Any], name: str) -> list[Any]:
    """Return what an environment gave, up to an exception of its own if there is one."""
    seen: list[Any] = []
    with suppress(Exception), guard(name):
        env = make()
        try:
            seen.append(env.reset(seed=0)[0])
            env.action_space.seed(0)
            for _ in range(STEPS):
                step = env.step(env.action_space.sample())[:4]
                seen.append(step)
                if step[2] is True or step[3] is True:  # of one that is no vector environment
                    seen.append(env.reset()[0])
        finally:
            close(name, env.close)
            env.closed = True  # or a vector environment would be closed again when nobody refers to it any more
    return seen
