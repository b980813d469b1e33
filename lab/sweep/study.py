"""The Optuna study behind an Experiment: where the points of a search come from, and what decides on pruning.

Trials have the same numbers here as in the run directory. Only the process that controls the sweep opens a study.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.pool import NullPool

from lab.errors import LabError
from lab.experiment import Outcome

STATES = {
    "completed": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
    "running": TrialState.RUNNING,
}
RUNG_NOTES = "completed_rung_"  # what successive halving notes of a trial
logging.getLogger("optuna").setLevel(logging.WARNING)


class Study:
    """Trials, what came of them, and which go on."""

    def __init__(
        self,
        directions: Sequence[str],
        pruner: optuna.pruners.BasePruner,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        space: dict[str, BaseDistribution],
        extend: Callable[[optuna.Trial], None] | None = None,
        path: Path | None = None,
    ) -> None:
        """Describe a study; `open` starts it or goes on with it.

        Args:
            directions: maximize or minimize, for each objective.
            pruner: decides on pruning.
            sampler: makes the sampler for the Trial of a number. Each number has its own random draws, so that a study
                that was interrupted goes on with the points that it would have had.
            space: a distribution for each hyperparameter that is searched.
            extend: suggests more hyperparameters to a Trial.
            path: the file that keeps the study; null keeps it in memory.
        """
        self.directions, self.pruner, self.sampler = list(directions), pruner, sampler
        self.space, self.extend, self.path = space, extend, path
        self._trials: dict[int, optuna.Trial] = {}

    def open(self, begun: dict[int, Outcome]) -> None:
        """Start the study, or make it anew from the file and from what the run directories say now.

        Figures change when seeds are added, and Optuna lets no finished trial change: so they are written afresh.

        Args:
            begun: how each Trial that has a directory stands, by number, from 0 on without a gap.

        Raises:
            LabError: the file lacks a Trial that has a directory, or cannot be read.
        """
        self._trials = {}
        earlier, attributes = self._read()
        if self.path and len(earlier) < len(begun):
            raise LabError(
                f"{self.path} holds {len(earlier)} of the {len(begun)} Trials that were begun beside it,"
                " so the search cannot go on. Search again in another directory."
            )
        aside = self.path.with_name(f".{self.path.name}.new") if self.path else None
        if aside:
            aside.unlink(missing_ok=True)
        self._study = self._create(aside)
        for key, value in attributes.items():
            self._study._storage.set_study_system_attr(self._study._study_id, key, value)
        for number, outcome in sorted(begun.items()):
            if self.path:
                self._study.add_trial(frozen(earlier[number], outcome))
            else:  # a pruner remembers more than figures: it is told all of them again
                self._replay(outcome)
        if aside and self.path:
            self._study._storage.remove_session()
            aside.replace(self.path)
            self._study = self._create(self.path)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Begin another Trial; return its number and its hyperparameters, as they are written on the command line."""
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = self.sampler(number)
        trial = self._study.ask(self.space)
        if self.extend:
            self.extend(trial)
        self._trials[number] = trial
        return number, trial.params

    def report(self, number: int, rung: int, value: float) -> bool:
        """Take in the objective of a running Trial at a rung, and say whether it should be pruned."""
        trial = self._trial(number)
        trial.report(value, rung)
        return trial.should_prune()

    def tell(self, number: int, outcome: Outcome) -> None:
        """Take in how a Trial ended."""
        state = STATES[outcome.state]
        values = outcome.values if outcome.state == "completed" else None
        self._study.tell(self._trial(number), values, state, skip_if_finished=True)

    def _replay(self, outcome: Outcome) -> None:
        number, _ = self.ask()
        if outcome.state != "running":
            for rung, value in outcome.rungs.items():
                self.report(number, rung, value)
            self.tell(number, outcome)

    def _trial(self, number: int) -> optuna.Trial:
        if number not in self._trials:  # begun by an earlier process
            frozen = self._study.get_trials(deepcopy=False)[number]
            self._trials[number] = optuna.trial.Trial(self._study, frozen._trial_id)
        return self._trials[number]

    def _create(self, path: Path | None) -> optuna.Study:
        storage = storage_of(path) if path else None
        return optuna.create_study(
            study_name="study",
            storage=storage,
            directions=self.directions,  # type: ignore[arg-type]
            pruner=self.pruner,
            sampler=self.sampler(0),
            load_if_exists=True,
        )

    def _read(self) -> tuple[list[FrozenTrial], dict[str, Any]]:
        """Return the trials of the file, and what samplers have noted there of the whole study."""
        if self.path is None or not self.path.exists():
            return [], {}
        try:
            study = optuna.load_study(study_name="study", storage=storage_of(self.path))
            return study.get_trials(), study._storage.get_study_system_attrs(study._study_id)
        except Exception as error:
            raise LabError(f"{self.path} cannot be read as an Optuna study: {' '.join(str(error).split())}.") from error


def storage_of(path: Path) -> optuna.storages.RDBStorage:
    """Return the storage in a file; its path is handed on as it is, as an address gives some characters a meaning."""
    connect = {"creator": lambda: sqlite3.connect(path, check_same_thread=False), "poolclass": NullPool}
    return optuna.storages.RDBStorage("sqlite://", engine_kwargs=connect)


def frozen(earlier: FrozenTrial, outcome: Outcome) -> FrozenTrial:
    """Return an earlier Trial with what its files say now; one that runs again has come to no rung yet."""
    again = outcome.state == "running"
    notes = {key: value for key, value in earlier.system_attrs.items() if not (again and key.startswith(RUNG_NOTES))}
    return create_trial(
        state=STATES[outcome.state],
        values=outcome.values,
        params=earlier.params,
        distributions=earlier.distributions,
        system_attrs=notes,
        intermediate_values={} if again else {**earlier.intermediate_values, **outcome.rungs},
    )
