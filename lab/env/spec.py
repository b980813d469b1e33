"""The schema of conf/env/."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lab.common.validation import Count, Positive
from lab.errors import LabError, require
from lab.run.schemas import MEANINGS

COLUMNS = ("frame", "eval_length")  # of metrics.csv, beside MEANINGS and those of the algorithm


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
    backend: Literal["gymnasium", "envpool"] = "gymnasium"
    isolate_rng: Literal["auto", "always", "never"] = "auto"
    max_episode_steps: Count | None = None
    scale_images: bool | Literal["auto"] = True  # `probe` decides what `auto` is
    wrappers: list[Any] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    action_mask: bool = False

    @property
    def reported(self) -> tuple[str, ...]:
        """What the environments report beside what is learned from: columns of `Steps.reported`, which may be none."""
        return ("score", "over", *self.metrics) if self.wrappers or self.metrics else ()

    @property
    def wrapping_keys(self) -> list[str]:
        """Keys that are set which wrap each environment by itself, so that no vector implementation steps them."""
        return [key for key in ("wrappers", "metrics", "action_mask") if getattr(self, key)]

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments for `gymnasium.make` and `gymnasium.make_vec`."""
        limit = {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        return {**self.kwargs, **limit}

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""
        if "max_episode_steps" in self.kwargs:
            limit = self.kwargs["max_episode_steps"]
            raise LabError(f"env.kwargs.max_episode_steps cannot be set: write env.max_episode_steps={limit}.")
        if self.wrapping_keys and self.vectorization_mode == "native":
            raise LabError(
                f"env.vectorization_mode=native is not possible with env.{self.wrapping_keys[0]}: {self.id}'s own"
                " vector implementation steps all environments at once. Use auto, sync or async."
            )
        for i, item in enumerate(self.wrappers):
            named = isinstance(item, dict) and isinstance(item.get("name"), str)
            allowed = "a name, as ClipAction, or a name and arguments, as {name: TimeLimit, max_episode_steps: 200}"
            require(isinstance(item, str) or named, f"env.wrappers[{i}]", item, allowed)
        known = {*MEANINGS, *COLUMNS}
        for name in self.metrics:
            valid = re.fullmatch(r"[\w./-]+", name) and not name.startswith("eval_") and name not in known
            allowed = "names of letters, digits, _, -, . and /, of which none begins with eval_ or is a column of Lab's"
            require(bool(valid), "env.metrics", self.metrics, f"{allowed} ({name!r} is not)")
        require(len(set(self.metrics)) == len(self.metrics), "env.metrics", self.metrics, "different names")
        if self.backend == "envpool":
            for key in self.wrapping_keys:
                allowed = "false" if key == "action_mask" else "empty"
                require(False, f"env.{key}", getattr(self, key), f"{allowed} with env.backend=envpool")
            key, value = "env.vectorization_mode", self.vectorization_mode
            require(
                value in ("auto", "native"), key, value, "auto with env.backend=envpool, which steps them all at once"
            )
            saved = "auto or reset with env.backend=envpool, whose environments cannot be saved"
            require(self.restore in ("auto", "reset"), "env.restore", self.restore, saved)
        reserved = {"num_envs", "render_mode", "vectorization_mode"}
        free = not reserved & set(self.kwargs)
        require(free, "env.kwargs", self.kwargs, f"free of {', '.join(sorted(reserved))}: those are set elsewhere")
