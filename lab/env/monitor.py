"""Reports an environment's own score and episodes, whatever its wrappers change or hide.

`Monitor` lies inside the wrappers and counts; `Report` lies outside of them and gives, at each step and reset, a row
`info["reported"]` of float64 [R]:

    score    sum of the environment's own rewards since the last row, or up to the end if an episode ended since then;
             what came after the end is in the next row
    over     1.0 if an episode of the environment itself ended since the last row, else 0.0
    metrics  env.metrics in the info of the episode's last step; NaN but at an end. If only a wrapper's reset saw that
             step, what wrappers add to the info is that of the agent's last step.

An episode of the environment itself ends where it says so, or where it is reset: a wrapper may end what is learned from
earlier (as at the loss of a life), and may take steps that nobody sees (as no-ops after a reset).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from lab.env.layer import refuse_step
from lab.env.validation import describe, to_number
from lab.errors import LabError, did_you_mean


class Monitor(gym.Wrapper[Any, Any, Any, Any]):
    """Sums an environment's rewards, and notes the ends of its episodes."""

    _over = False  # whether an episode ended, and no reset followed
    _outer = ""

    def __init__(self, env: gym.Env[Any, Any], outer: str = "") -> None:
        """Wrap an environment; `outer` names the wrapper around it."""
        super().__init__(env)
        self._outer = outer
        self._score = 0.0  # that is not reported yet
        # The score until an end that is not reported yet, and the info of its step; the latter is empty for a reset.
        self._ended: tuple[float, dict[str, Any]] | None = None
        self._running = False  # whether an episode has reported a step, and goes on

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; one that goes on ends."""
        if self._running:
            self._ended = self._score, {}
        self._running, self._score, self._over = False, 0.0, False
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, or raise LabError if the wrapper around hid the end of the episode."""
        if self._over:
            raise refuse_step(self._outer)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._score += float(reward)
        self._over = terminated or truncated
        if self._over and self._running:
            self._ended, self._score, self._running = (self._score, dict(info)), 0.0, False
        return observation, reward, terminated, truncated, info

    def start_step(self) -> None:
        """Note that the next step of the environment is one of the agent's."""
        self._running = True

    def pop(self, after_reset: bool = False) -> tuple[float, bool, dict[str, Any]]:
        """Return the score since the last report, whether an episode ended, and the info of the step that ended it.

        After a reset, the score is that of an end alone.
        """
        ended, self._ended = self._ended, None
        if ended is not None:
            return ended[0], True, ended[1]
        if after_reset:
            return 0.0, False, {}
        score, self._score = self._score, 0.0
        return score, False, {}


class Report(gym.Wrapper[Any, Any, Any, Any]):
    """Gives `info["reported"]` alone; raises LabError if a metric is missing at an episode's end, or no number."""

    def __init__(self, env: gym.Env[Any, Any], monitor: Monitor, metrics: Sequence[str], name: str) -> None:
        super().__init__(env)
        self._monitor, self._metrics, self._name = monitor, metrics, name
        self._last: dict[str, Any] | None = None  # info of the last step, if that ended what is learned from

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, _ = self.env.reset(seed=seed, options=options)
        score, over, end = self._monitor.pop(after_reset=True)
        # An episode that is left in its midst, as in trials of how a state is restored, has no metrics.
        left = self._last is None and not end
        return observation, {"reported": self._row(score, over, None if left else {**(self._last or {}), **end})}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._monitor.start_step()
        observation, reward, terminated, truncated, info = self.env.step(action)
        score, over, _ = self._monitor.pop()
        self._last = dict(info) if self._metrics and (terminated or truncated) else None
        return observation, reward, terminated, truncated, {"reported": self._row(score, over, info)}

    def _row(self, score: float, over: bool, info: Mapping[str, Any] | None) -> np.ndarray:
        metrics = [np.nan if info is None or not over else self._read(key, info) for key in self._metrics]
        return np.array([score, over, *metrics])

    def _read(self, key: str, info: Mapping[str, Any]) -> float:
        if key not in info:
            known = f"Its keys are: {', '.join(map(str, info))}." if info else "It is empty."
            raise LabError(
                f"{self._name}: env.metrics names {key!r}, which the info at an episode's end does not have."
                f"{did_you_mean(key, [str(name) for name in info])} {known} It must be there at every end, also of an"
                " episode that is cut."
            )
        number = to_number(info[key])
        if number is None or not np.isfinite(number):
            raise LabError(
                f"{self._name}: {key!r} of env.metrics, in the info at an episode's end, is {describe(info[key])};"
                " it must be a finite number, or True or False."
            )
        return float(number)
