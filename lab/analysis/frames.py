"""What run directories hold, as tables of pandas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lab.analysis.experiment import read_experiment, trials_table
from lab.analysis.session import Session, read_session
from lab.analysis.trial import Trial, read_trial
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level


@dataclass(frozen=True)
class Results:
    """The results of a Session, a Trial or an Experiment, each read from its files when it is first asked for.

    Every table but `trials` has the columns `trial`, the number of the Trial in its Experiment and 0 elsewhere, and
    `seed`.

    Attributes:
        path: the run directory.
    """

    path: Path

    @cached_property
    def _level(self) -> str:
        return find_level(self.path)

    @cached_property
    def _trials(self) -> list[Trial]:
        if self._level == "experiment":
            return read_experiment(SweepDir(self.path)).trials
        if self._level == "trial":
            return [read_trial(TrialDir(self.path))]
        session = read_session(RunDir(self.path), 0)
        if session.tables:
            session.seed = int(session.tables.spec["seed"])
        return [Trial(TrialDir(self.path.parent), None, {}, [session])]

    def _sessions(self) -> list[tuple[int, Session]]:
        return [(trial.number or 0, session) for trial in self._trials for session in trial.sessions]

    def _join(self, name: str) -> pd.DataFrame:
        """Return the rows of a table of all Sessions, one after the other."""
        parts = []
        for trial, session in self._sessions():
            if session.tables:
                rows: pd.DataFrame = getattr(session.tables, name).copy()
                rows.insert(0, "seed", session.seed)
                rows.insert(0, "trial", trial)
                parts.append(rows)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"trial": [], "seed": []})

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row for each log interval of each Session: the columns of metrics.csv."""
        return self._join("metrics")

    @cached_property
    def episodes(self) -> pd.DataFrame:
        """A row for each training episode of each Session: the columns of episodes.csv."""
        return self._join("episodes")

    @cached_property
    def timing(self) -> pd.DataFrame:
        """A row for each log interval of each Session: the columns of timing.csv."""
        return self._join("timing")

    @cached_property
    def sessions(self) -> pd.DataFrame:
        """A row for each Session: its state, its frames, and its metrics as in session.json."""
        return pd.DataFrame(
            [
                {"trial": trial, "seed": one.seed, "state": one.state, "frames": one.frame, **_numbers(one.metrics)}
                for trial, one in self._sessions()
            ]
        )

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row for each Trial: the columns of trials.csv in an Experiment, and the mean of each metric elsewhere.

        In an Experiment the best comes first; those without a rank come last.
        """
        if self._level == "experiment":
            return trials_table(read_experiment(SweepDir(self.path))).sort_values(
                "rank", kind="stable", ignore_index=True
            )
        rows: list[dict[str, Any]] = []
        for trial in self._trials:
            row: dict[str, Any] = {"trial": trial.number or 0, "environment": trial.environment, "state": trial.state}
            row |= {"completed": len(trial.completed), "planned": len(trial.sessions)}
            row |= _numbers({f"{metric}_mean": each["mean"]["value"] for metric, each in trial.summaries.items()})
            rows.append(row)
        return pd.DataFrame(rows)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return values with NaN for None, so that a column of them is one of numbers."""
    return {name: float("nan") if value is None else value for name, value in values.items()}
