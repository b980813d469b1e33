"""The schema of conf/env/."""

from dataclasses import dataclass
from typing import Any, Literal

from lab.common.validation import Count, Positive
from lab.errors import require


@dataclass
class Reference:
    """Known returns of an environment that results are compared with; None where unknown."""

    id: str | None
    random_return: float | None
    solved: float | None
    random_return_error: float | None = None


@dataclass
class EnvSpec:
    """One Gymnasium environment, how many of them a Session steps, and how."""

    name: str
    id: str
    num_envs: Count
    kwargs: dict[str, Any]
    vectorization_mode: Literal["auto", "native", "sync", "async"]
    restore: Literal["auto", "pickle", "replay", "reset"]
    normalize_observations: bool
    normalize_rewards: bool
    normalize_clip: Positive
    reference: Reference
    isolate_rng: Literal["auto", "always", "never"] = "auto"

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""
        reserved = {"num_envs", "render_mode", "vectorization_mode"}
        free = not reserved & set(self.kwargs)
        require(free, "env.kwargs", self.kwargs, f"free of {', '.join(sorted(reserved))}: those are set elsewhere")
