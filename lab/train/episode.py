"""What is counted of an episode."""

from typing import NamedTuple


class Episode(NamedTuple):
    """A finished episode.

    Attributes:
        frame: frames that its Session had done at its end.
        episode_return: sum of its rewards, as the environment gave them.
        length: steps.
    """

    frame: int
    episode_return: float
    length: int
