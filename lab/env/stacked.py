"""Steps the environments of a stack's Sessions together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lab.env.guard import ProcessSettings
from lab.env.joined import Joined, join
from lab.env.validation import VectorCheck
from lab.env.vector import Environments
from lab.env.vector_envs import Steps
from lab.errors import explain_error


class StackedEnvironments:
    """The environments of Sessions by their index, of which any may be left out of a step.

    Where the environments' vector class offers it, those of all Sessions are stepped by one call (see lab.env.joined).
    """

    def __init__(self, envs: Mapping[int, Environments]) -> None:
        self.envs = envs
        self.settings = ProcessSettings(flush_denormal=True)
        self.shared_rngs = {name for one in envs.values() for name in one.shared_rngs}
        self._joined: Joined | None = None
        self._sessions: list[int] = []  # that the joined environment or, without one, the last step was of

    def step(self, sessions: list[int], actions: np.ndarray, steps: Steps) -> dict[int, str]:
        """Step the environments of some Sessions.

        Args:
            sessions: their indexes.
            actions: of all Sessions, [S, E, ...], in a policy's units.
            steps: arrays [S, E, ...], of which the rows of these Sessions are written.

        Returns:
            Errors by index of the Sessions that failed.
        """
        if not sessions:
            return {}
        if sessions != self._sessions:
            self.split()
            self._join(sessions)
        chosen = actions if len(sessions) == len(actions) else actions[sessions]
        converter = self.envs[sessions[0]].actions
        if not converter.is_identity:
            flat = converter.convert(chosen.reshape(-1, *chosen.shape[2:]))
            chosen = flat.reshape(*chosen.shape[:2], *flat.shape[1:])
        if self._joined:
            return self._step_joined(self._joined, chosen.reshape(-1, *chosen.shape[2:]), steps)
        failures: dict[int, str] = {}
        for s, action in zip(sessions, chosen, strict=True):
            try:
                self.envs[s].step_into(s, action, steps)
            except Exception as error:
                failures[s] = explain_error(error)
            finally:
                self.settings.restore_step_settings()
        return failures

    def _step_joined(self, joined: Joined, actions: np.ndarray, steps: Steps) -> dict[int, str]:
        sessions, failures = self._sessions, dict[int, str]()
        try:
            result: Any = self.envs[sessions[0]].call(joined.step, actions)
        except Exception as error:
            return dict.fromkeys(sessions, explain_error(error))
        finally:
            self.settings.restore_step_settings()
        if self._check.passes(result):
            rows = slice(None) if len(sessions) == len(steps.reward) else sessions
            for values, column in zip(steps, steps.columns(result), strict=False):
                values[rows] = column.reshape(len(sessions), -1, *column.shape[1:])
            return failures
        for k, s in enumerate(sessions):
            part = slice(k * self.envs[s].num_envs, (k + 1) * self.envs[s].num_envs)
            try:
                info = {key: values[part] for key, values in result[4].items() if key == "reported"}
                valid = self._part_checks[k]((*(column[part] for column in result[:4]), info))
            except Exception as error:
                failures[s] = explain_error(error)
                continue
            for values, column in zip(steps, steps.columns(valid), strict=False):
                values[s] = column
        return failures

    def _join(self, sessions: list[int]) -> None:
        """Join the environments of some Sessions if that is possible; before, the joined ones must be split."""
        self._joined, self._sessions = None, list(sessions)
        parts = [self.envs[s].native for s in sessions]
        checked = [part for part in parts if part is not None]
        if len(checked) == len(parts):
            self._joined = join([part.env for part in checked])
            self._part_checks = [part.check for part in checked]
            first = self._part_checks[0]
            self._check = VectorCheck(first.name, first.single, sum(part.num_envs for part in self._part_checks))

    def split(self) -> None:
        """Let each Session's environments have the state that they reached in steps together."""
        if self._joined:
            self._joined.split()

    def reset(self, index: int) -> np.ndarray:
        """Seed and reset one Session's environments; return their observations."""
        return self._change(index).reset()

    def renew(self, index: int) -> np.ndarray:
        """Make one Session's environments again and reset them; return their observations."""
        return self._change(index).renew()

    def state(self, index: int) -> dict[str, Any]:
        """Return the state of one Session's environments."""
        self.split()
        return self.envs[index].state()

    def restore(self, index: int, state: dict[str, Any]) -> None:
        """Continue one Session's environments from what `state` returned."""
        self._change(index).restore(state)

    def _change(self, index: int) -> Environments:
        self.split()
        self._joined, self._sessions = None, []
        return self.envs[index]
