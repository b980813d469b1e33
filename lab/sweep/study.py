"""The Optuna study of an Experiment: it suggests the points of a search, and decides on pruning.

Trials have the same numbers as in the run directory. Only the controller of the sweep opens the study.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.pool import NullPool

from lab.common.text import plural
from lab.errors import LabError
from lab.trial import Outcome

STATES = {
    "completed": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
    "running": TrialState.RUNNING,
}
RUNG_ATTRIBUTE = "completed_rung_"  # prefix of what SuccessiveHalvingPruner stores for a trial
logging.getLogger("optuna").setLevel(logging.WARNING)


class Study:
    """An Optuna study that can be opened again after the controller was killed."""

    def __init__(
        self,
        directions: Sequence[str],
        pruner: optuna.pruners.BasePruner,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        space: dict[str, BaseDistribution],
        extend: Callable[[optuna.Trial], None] | None = None,
        path: Path | None = None,
        name: str = "study",
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """Describe a study; `open` starts or continues it.

        Args:
            directions: "maximize" or "minimize" for each objective.
            pruner: as in Optuna.
            sampler: makes the sampler for the Trial of a number. Each has its own random draws, so that an interrupted
                study continues with the points that it would have suggested.
            space: a distribution for each hyperparameter.
            extend: suggests conditional hyperparameters.
            path: the database; None keeps the study in memory.
            name: of the study in its database, which holds no other.
            defaults: values by key that are the first point.
        """
        self.directions, self.pruner, self.sampler = list(directions), pruner, sampler
        self.space, self.extend, self.path, self.name, self.defaults = space, extend, path, name, defaults
        self._trials: dict[int, optuna.Trial] = {}

    def open(self, outcomes: dict[int, Outcome]) -> None:
        """Start the study, or rewrite it from its database and the current outcomes of the started Trials.

        It is rewritten because metrics change when seeds are added, and Optuna never changes a finished trial.

        Args:
            outcomes: of each Trial that has a directory, by number, from 0 without a gap.

        Raises:
            LabError: the database cannot be read, or lacks a Trial that has a directory.
        """
        self._trials = {}
        earlier, attributes = self._read()
        if self.path and len(earlier) < len(outcomes):
            raise LabError(
                f"{self.path} holds {len(earlier)} of {plural(len(outcomes), 'Trial')} started beside it,"
                " so the search cannot be continued. Search again in another directory."
            )
        aside = self.path.with_name(f".{self.path.name}.new") if self.path else None
        if aside:
            aside.unlink(missing_ok=True)
        self._study = self._create(aside)
        for key, value in attributes.items():
            self._study._storage.set_study_system_attr(self._study._study_id, key, value)
        for number, outcome in sorted(outcomes.items()):
            if self.path:
                self._study.add_trial(update_trial(earlier[number], outcome))
            else:  # a pruner has state of its own, so everything is reported to it again
                self._replay(outcome)
        if aside and self.path:
            self._study._storage.remove_session()
            aside.replace(self.path)
            self._study = self._create(self.path)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Start another Trial; return its number and its hyperparameters, in Hydra's grammar."""
        number = len(self._study.get_trials(deepcopy=False))
        if number == 0 and self.defaults is not None:
            self._study.enqueue_trial(self.defaults)
        self._study.sampler = self.sampler(number)
        trial = self._study.ask(self.space)
        if self.extend:
            self.extend(trial)
        self._trials[number] = trial
        return number, trial.params

    def distributions(self, number: int) -> dict[str, BaseDistribution]:
        """Return the distributions from which the hyperparameters of a Trial were suggested."""
        return self._trial(number).distributions

    def report(self, number: int, rung: int, value: float) -> bool:
        """Report the objective of a running Trial at a rung; return whether the Trial should be pruned."""
        trial = self._trial(number)
        trial.report(value, rung)
        return trial.should_prune()

    def describe(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Set user attributes of a Trial that has not ended, which a dashboard shows."""
        if not self._study.get_trials(deepcopy=False)[number].state.is_finished():
            for key, value in attributes.items():
                self._trial(number).set_user_attr(key, value)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Finish a Trial with its outcome."""
        self.describe(number, outcome.attributes)
        values = outcome.values if outcome.state == "completed" else None
        self._study.tell(self._trial(number), values, STATES[outcome.state], skip_if_finished=True)

    def _replay(self, outcome: Outcome) -> None:
        number, _ = self.ask()
        if outcome.state != "running":
            for rung, value in outcome.rungs.items():
                self.report(number, rung, value)
            self.tell(number, outcome)

    def _trial(self, number: int) -> optuna.Trial:
        if number not in self._trials:  # started by an earlier controller
            frozen = self._study.get_trials(deepcopy=False)[number]
            self._trials[number] = optuna.trial.Trial(self._study, frozen._trial_id)
        return self._trials[number]

    def _create(self, path: Path | None) -> optuna.Study:
        return optuna.create_study(
            study_name=self.name,
            storage=open_storage(path) if path else None,
            directions=self.directions,  # type: ignore[arg-type]
            pruner=self.pruner,
            sampler=self.sampler(0),
            load_if_exists=True,
        )

    def _read(self) -> tuple[list[FrozenTrial], dict[str, Any]]:
        """Return the trials of the database, and the attributes that samplers stored for the whole study."""
        if self.path is None or not self.path.exists():
            return [], {}
        try:
            study = optuna.load_study(study_name=None, storage=open_storage(self.path))
            return study.get_trials(), study._storage.get_study_system_attrs(study._study_id)
        except Exception as error:
            raise LabError(f"{self.path} cannot be read as an Optuna study: {' '.join(str(error).split())}.") from error


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """Return Optuna's storage in a file; a URL would give some characters of the path a meaning."""
    connect = {"creator": lambda: sqlite3.connect(path, check_same_thread=False), "poolclass": NullPool}
    return optuna.storages.RDBStorage("sqlite://", engine_kwargs=connect)


def update_trial(earlier: FrozenTrial, outcome: Outcome) -> FrozenTrial:
    """Return an earlier trial with its current outcome; if it runs again, it has reached no rung yet."""
    again = outcome.state == "running"
    attributes = {
        key: value for key, value in earlier.system_attrs.items() if not (again and key.startswith(RUNG_ATTRIBUTE))
    }
    return create_trial(
        state=STATES[outcome.state],
        values=outcome.values,
        params=earlier.params,
        distributions=earlier.distributions,
        system_attrs=attributes,
        user_attrs={**earlier.user_attrs, **outcome.attributes},
        intermediate_values={} if again else {**earlier.intermediate_values, **outcome.rungs},
    )
