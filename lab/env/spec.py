"""The schema of conf/env/."""

from dataclasses import dataclass
from typing import Any

from lab.errors import require, require_one_of

VECTORIZE = ("auto", "native", "sync", "async")
ISOLATE_RNG = ("auto", "always", "never")
RESTORE = ("auto", "pickle", "replay", "reset")


@dataclass
class Reference:
    """What is known of an environment, to measure results by; null where it is not known."""

    id: str | None  # the environment that the figures are of; they are left out for any other
    random_return: float | None  # mean return of uniformly random actions
    solved: float | None  # 100-episode mean return at which it counts as solved
    random_return_error: float | None = None  # standard error of random_return


@dataclass
class EnvSpec:
    """One Gymnasium environment, how many of them a Session steps, and how."""

    name: str  # short name, used in the name of a run
    id: str  # Gymnasium id
    num_envs: int  # environments that a Session steps side by side
    kwargs: dict[str, Any]  # arguments for the environment's constructor
    vectorize: str  # one of VECTORIZE
    restore: str  # one of RESTORE
    normalize_observations: bool  # whether to scale observations by their running mean and deviation
    normalize_rewards: bool  # whether to scale rewards by the running deviation of the discounted return
    normalize_clip: float  # bound on normalized observations and rewards, in deviations
    reference: Reference
    isolate_rng: str = "auto"  # one of ISOLATE_RNG

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""
        require(self.num_envs >= 1, "env.num_envs", self.num_envs, "1 or more")
        require(self.normalize_clip > 0, "env.normalize_clip", self.normalize_clip, "above 0")
        require_one_of("env.vectorize", self.vectorize, VECTORIZE)
        require_one_of("env.restore", self.restore, RESTORE)
        require_one_of("env.isolate_rng", self.isolate_rng, ISOLATE_RNG)
        reserved = {"num_envs", "render_mode", "vectorization_mode"}
        free = not reserved & set(self.kwargs)
        require(free, "env.kwargs", self.kwargs, f"free of {', '.join(sorted(reserved))}: those are set elsewhere")
