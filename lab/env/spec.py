"""The schema of conf/env/."""

from dataclasses import dataclass
from typing import Any, Literal

from lab.common.validation import Count, Positive
from lab.errors import require


@dataclass
class Reference:
    """Known returns of an environment that results are compared with; None where unknown."""

    id: str | None  # Gymnasium id that the returns belong to; they are ignored for any other
    random_return: float | None  # mean return of uniformly random actions
    solved: float | None  # 100-episode mean return at which it counts as solved
    random_return_error: float | None = None  # standard error of random_return


@dataclass
class EnvSpec:
    """One Gymnasium environment, how many of them a Session steps, and how."""

    name: str  # short name, used in the name of a run
    id: str  # Gymnasium id
    num_envs: Count  # environments that a Session steps together
    kwargs: dict[str, Any]  # arguments for the environment's constructor
    vectorization_mode: Literal["auto", "native", "sync", "async"]
    restore: Literal["auto", "pickle", "replay", "reset"]
    normalize_observations: bool  # whether to scale observations by their running mean and deviation
    normalize_rewards: bool  # whether to scale rewards by the running deviation of the discounted return
    normalize_clip: Positive  # bound on normalized observations and rewards, in deviations
    reference: Reference
    isolate_rng: Literal["auto", "always", "never"] = "auto"

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""
        reserved = {"num_envs", "render_mode", "vectorization_mode"}
        free = not reserved & set(self.kwargs)
        require(free, "env.kwargs", self.kwargs, f"free of {', '.join(sorted(reserved))}: those are set elsewhere")
