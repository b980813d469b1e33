"""Episodes that a trained agent plays in an environment of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from lab.common.text import plural
from lab.env.guard import ProcessSettings, close, guard, pop_notices
from lab.env.make import isolate, make_single
from lab.env.spaces import flatten
from lab.env.spec import EnvSpec
from lab.env.vector import isolated_rngs
from lab.errors import LabError, print_to_stderr
from lab.training.policy import Policy


@dataclass
class Episode:
    """An episode that was played.

    Attributes:
        total: its return.
        length: its steps.
        ended: whether it ended by itself, and was not cut.
        metrics: env.metrics by name, if it ended by itself.
    """

    total: float
    length: int
    ended: bool
    metrics: dict[str, float] = field(default_factory=dict)


class Player:
    """A policy and the environment that it plays in."""

    def __init__(
        self, policy: Policy, env: gym.Env[Any, Any], max_steps: int | None = None, deterministic: bool = True
    ) -> None:
        """Join them; episodes are cut after `max_steps`, eval.max_steps of the spec by default."""
        self.policy, self.env, self.deterministic = policy, env, deterministic
        self.max_steps = max_steps or policy.spec.eval.max_steps

    def play(
        self, seed: int, show: Callable[[Any], None] | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Episode:
        """Play an episode.

        Args:
            seed: the seed of the environment.
            show: takes each picture; None for no pictures.
            stop: whether to end the episode.
        """
        policy, env, settings = self.policy, self.env, ProcessSettings()
        dtype = policy.agent.observations.dtype
        policy.reset()
        with guard(f"env.id={policy.spec.env.id}"):
            raw, info = env.reset(seed=seed)
            total, length, done, over = 0.0, 0, False, False
            while not over and length < self.max_steps and not stop():
                if show:
                    show(env.render())
                settings.restore_step_settings()
                if done:  # a wrapper ended what is learned from, as at the loss of a life, and the episode may go on
                    raw, info = env.reset()
                    score, over = info["reported"][:2]
                    total, done = total + float(score), False
                    policy.reset()
                    continue
                rows = flatten(env.observation_space, raw).astype(dtype)[None]
                action = policy.actions.convert(policy.choose(rows, self.deterministic).cpu().numpy())[0]
                raw, reward, terminated, truncated, info = env.step(action)
                done = bool(terminated or truncated)
                score, over = info["reported"][:2] if "reported" in info else (reward, done)
                total, length = total + float(score), length + 1
            if show:
                show(env.render())
        metrics = info["reported"][2:].tolist() if over and "reported" in info else []
        return Episode(total, length, bool(over), dict(zip(policy.spec.env.metrics, metrics, strict=False)))


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Return the seed of the environment in each of some episodes."""
    return [int(value) for value in np.random.SeedSequence(seed).generate_state(episodes)]


def make_env(
    spec: EnvSpec, render_mode: Literal["rgb_array", "human"] | None = None, seed: int = 0
) -> gym.Env[Any, Any]:
    """Make one environment as a Session's, with its wrappers.

    Args:
        spec: of the environment.
        render_mode: None for no pictures.
        seed: of the process's global generators while the constructor runs.

    Raises:
        LabError: it cannot be made, or not be shown so.
    """
    if render_mode != "human":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    generators = isolated_rngs(replace(spec, vectorization_mode="sync"))
    env = isolate(make_single(spec, render_mode, seed), generators)
    if render_mode and render_mode not in env.metadata.get("render_modes", []):
        raise LabError(f"{spec.id} cannot be shown: it has no render mode {render_mode!r}.")
    return env


def close_env(env: gym.Env[Any, Any], spec: EnvSpec, here: bool = False) -> None:
    """Close an environment, and print what it did that a user should know; `here` for a window of this thread."""
    if here:
        env.close()
    else:
        close(f"env.id={spec.id}", env.close)
    for text in pop_notices():
        print_to_stderr(f"Warning: {text}")


def describe_spread(episodes: Sequence[Episode]) -> str:
    """Return lines with the mean and the spread of returns and lengths, and the means of env.metrics."""
    returns, lengths = np.array([(episode.total, episode.length) for episode in episodes]).T
    spread = f" ± {returns.std(ddof=1):.2f}" if len(returns) > 1 else ""
    count = plural(len(returns), "episode")
    lines = [
        f"return {returns.mean():.2f}{spread} (from {returns.min():.2f} to {returns.max():.2f})",
        f"length {lengths.mean():.1f} (from {lengths.min():.0f} to {lengths.max():.0f}), {count}",
    ]
    finished = [episode.metrics for episode in episodes if episode.metrics]
    for name in finished[0] if finished else ():
        lines.append(f"{name} {np.mean([metrics[name] for metrics in finished]):.4g}")
    return "\n".join(lines)
