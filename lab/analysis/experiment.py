"""An Experiment read from its files: Trials over hyperparameters, ranked by an objective."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.importance import ped_anova
from lab.analysis.objective import Objective
from lab.analysis.scale import is_number
from lab.analysis.statistics import STATISTICS, Estimate, probability_of_improvement
from lab.analysis.text import format_hyperparameter
from lab.analysis.trial import Trial, count_states, read_trial, unfinished_session
from lab.common.text import canonical, format_estimate, format_value, plural
from lab.errors import LabError, warn_once
from lab.run.directory import SweepDir

DEFAULT_OBJECTIVE = Objective(("return",), ("maximize",), "mean")  # if sweep.json is missing
MAIN_METRICS = ("return", "best", "eval_return", "strength", "sample_efficiency", "stability", "frames_to_solve")
MIN_TRIALS = 8  # ranked, for importance


@dataclass
class Ranked:
    """A Trial in the ranking of its environment.

    Trials with equal values share a rank. With several objectives, the rank is that of its front by non-dominated
    sorting: 1 is the Pareto front. `improvement` is the probability that the Trial does better than the next in the
    ranking; None for the last one, and with several objectives.
    """

    rank: int
    trial: Trial
    estimates: list[Estimate]  # of each metric of the objective, with its interval over seeds
    improvement: Estimate | None = None

    @property
    def values(self) -> list[float]:
        """Value of each metric."""
        return [estimate["value"] for estimate in self.estimates if estimate["value"] is not None]

    def ends(self, index: int = 0) -> tuple[float, float]:
        """Return the interval ends of the metric with this index; both are its value if it has no interval."""
        low, high = self.estimates[index]["low"], self.estimates[index]["high"]
        return (self.values[index],) * 2 if low is None or high is None else (low, high)


@dataclass
class Experiment:
    """An Experiment, finished or not: its directory, the content of sweep.json, its objective and Trials by number."""

    directory: SweepDir
    sweep: dict[str, Any]
    objective: Objective
    trials: list[Trial]

    @property
    def name(self) -> str:
        """Name of the sweep, or of its directory."""
        name = str(self.sweep.get("name") or self.directory.path.resolve().name)
        return name.encode(errors="replace").decode()  # the name of a directory may not be valid UTF-8

    @property
    def planned(self) -> int:
        """Number of planned Trials."""
        return max(self.sweep.get("trials") or 0, len(self.trials))

    @property
    def planned_sessions(self) -> int:
        """Number of planned Sessions; a Trial may have more than the others."""
        not_started = (self.planned - len(self.trials)) * len(self.sweep.get("seeds") or ())
        return sum(len(trial.sessions) for trial in self.trials) + not_started

    @cached_property
    def by_environment(self) -> dict[str, Experiment]:
        """The Experiment in each environment, by its name; this one if there are not several.

        Trials are ranked within an environment, as returns in different ones mean different things. A Trial whose spec
        cannot be read is in none of several.
        """
        trials = [trial for trial in self.trials if trial.spec]
        names = dict.fromkeys(trial.environment for trial in trials)
        if len(names) < 2:
            return {next(iter(names), "unknown"): self}
        return {name: replace(self, trials=[trial for trial in trials if trial.environment == name]) for name in names}

    @cached_property
    def hyperparameters(self) -> list[str]:
        """Keys that differ between Trials: of those swept, or of the whole spec if sweep and points are missing."""
        swept = dict.fromkeys(key for trial in self.trials for key in trial.hyperparameters)
        keys = swept or dict.fromkeys(key for trial in self.trials for key in trial.spec)
        known = [trial for trial in self.trials if trial.hyperparameters or trial.spec]
        return [key for key in keys if len({canonical(trial.value(key)) for trial in known}) > 1]

    def space(self, key: str) -> str | None:
        """Return the search space of a hyperparameter as the sweep was given it; None outside of a search."""
        texts = {name.lstrip("+"): text for name, text in (self.sweep.get("space") or {}).items()}
        return texts.get(key)

    def point(self, trial: Trial) -> dict[str, Any]:
        """Return the hyperparameters of a Trial that differ between Trials, by key."""
        return {key: trial.value(key) for key in self.hyperparameters}

    @cached_property
    def ranking(self) -> list[Ranked]:
        """Trials whose Sessions all completed with the objective's metrics, by environment, the best first."""
        if len(self.by_environment) > 1:
            return [ranked for part in self.by_environment.values() for ranked in part.ranking]
        unranked = {trial.number for trial, _ in self.unranked}
        trials = [trial for trial in self.trials if trial.number not in unranked]
        values = np.array([self.objective.values(trial) for trial in trials]).reshape(-1, len(self.objective.metrics))
        ranks = rank_rows(values * self.objective.signs)
        ranking = []
        for index in np.argsort(ranks, kind="stable"):
            estimates: list[Estimate] = [
                {"value": value, "low": low, "high": high}
                for value, (low, high) in zip(
                    values[index].tolist(), self.objective.intervals(trials[index]), strict=True
                )
            ]
            ranking.append(Ranked(int(ranks[index]), trials[index], estimates))
        if len(self.objective.metrics) == 1:
            for better, worse in pairwise(ranking):
                better.improvement = self._improvement(better.trial, worse.trial)
        return ranking

    @cached_property
    def unranked(self) -> list[tuple[Trial, str]]:
        """The other Trials, each with the reason."""
        unranked = []
        for trial in self.trials:
            try:
                self.objective.values(trial)
            except LabError as reason:
                unranked.append((trial, str(reason)))
        return unranked

    @property
    def best(self) -> Ranked | None:
        """The first in the ranking; None if no Trial is ranked, with several objectives or several environments."""
        single = len(self.objective.metrics) == len(self.by_environment) == 1
        return self.ranking[0] if self.ranking and single else None

    @property
    def front(self) -> list[Ranked]:
        """The best Trial of each environment and all that tie with it, or its Pareto front."""
        return [ranked for ranked in self.ranking if ranked.rank == 1]

    @cached_property
    def defaults(self) -> Trial | None:
        """The Trial whose spec equals the config without what is swept; None if there is none, as in a grid."""
        point = self.sweep.get("defaults")
        trials = [
            trial for trial in self.trials if point is not None and canonical(trial.hyperparameters) == canonical(point)
        ]
        return trials[0] if trials else None

    @cached_property
    def improvement_over_defaults(self) -> Estimate | None:
        """Probability that the best Trial does better than the defaults; None if there is no pair to compare."""
        trials = [ranked.trial for ranked in self.ranking]
        if self.best is None or self.defaults not in trials[1:]:
            return None
        return self._improvement(self.best.trial, self.defaults)

    def _improvement(self, better: Trial, worse: Trial) -> Estimate:
        metric, sign = self.objective.metrics[0], self.objective.signs[0]
        return probability_of_improvement(*(sign * trial.values(metric) for trial in (better, worse)))

    @cached_property
    def importance(self) -> dict[str, float]:
        """Importance of each hyperparameter by PED-ANOVA; sums to 1, largest first.

        It tells how much a hyperparameter separates the best tenth of the Trials by the first metric (at least five,
        at most half) from all. Empty with fewer than MIN_TRIALS ranked Trials, if they do not differ in any
        hyperparameter, if none is better than another, or with several environments.
        """
        if len(self.by_environment) > 1:
            return {}
        points = [self.point(ranked.trial) for ranked in self.ranking]
        columns = {key: [point[key] for point in points] for key in self.hyperparameters}
        varying = {key: column for key, column in columns.items() if len(set(map(canonical, column))) > 1}
        values = np.array([ranked.values[0] for ranked in self.ranking]) * self.objective.signs[0]
        if len(values) < MIN_TRIALS or not varying or values.min() == values.max():
            return {}
        return ped_anova(varying, values)

    def describe(self) -> str:
        """Return a sentence on what the Experiment varied, and which Trial is best."""
        trials, keys = plural(len(self.trials), "Trial"), ", ".join(self.hyperparameters)
        ranked = f"{len(self.ranking)} of {trials} ranked{keys and f', over {keys}'}"
        if len(self.by_environment) > 1:
            parts = (f"In {name}: {part.describe()}" for name, part in self.by_environment.items())
            return f"{ranked}, within each environment. {' '.join(parts)}"
        if self.best is None:
            return f"{ranked}; there is no single best Trial."
        metric = f"{self.objective.aggregate} {self.objective.metrics[0]}"
        point = ", ".join(f"{key}={format_hyperparameter(value)}" for key, value in self.point(self.best.trial).items())
        return f"{ranked}; the best by {metric}: {format_estimate(self.best.estimates[0])}{point and f' with {point}'}."


def read_experiment(directory: SweepDir) -> Experiment:
    """Read an Experiment.

    Raises:
        LabError: a file in it cannot be read.
    """
    sweep: dict[str, Any] = {}
    if directory.sweep.exists():
        try:
            sweep = directory.read_sweep()
            sweep["objective"]
        except LabError as error:
            raise LabError(f"{error} `resume` makes it again.") from error
    else:
        warn_once(f"{directory.sweep} is missing: Trials are ranked by the mean return, and as many as are there.")
    objective = Objective.from_dict(sweep["objective"]) if sweep else DEFAULT_OBJECTIVE
    started = [trial for trial in directory.trials() if trial.point.exists() or trial.seeds()]
    return Experiment(directory, sweep, objective, [read_trial(trial, as_planned=True) for trial in started])


def rank_rows(values: np.ndarray) -> np.ndarray:
    """Return the rank [n] of each row of values [n, k], of which more is better.

    With k=1 equal values share a rank as in (1, 1, 3). With k>1 the rank is the front by non-dominated sorting: a row
    is dominated by one that is no worse in any column and better in one.
    """
    no_worse = np.all(values[:, None] >= values[None], axis=-1)
    dominates = no_worse & ~no_worse.T
    if values.shape[1] == 1:
        return 1 + dominates.sum(axis=0)
    ranks, front = np.zeros(len(values), int), 0
    while not ranks.all():
        front += 1
        remaining = ranks == 0
        ranks[remaining & ~dominates[remaining].any(axis=0)] = front
    return ranks


def experiment_results(experiment: Experiment) -> dict[str, Any]:
    """Return the content of experiment.json; deterministic, without times, hosts or absolute paths."""
    trials, metrics = experiment.trials, experiment.objective.metrics
    sessions = [session for trial in trials for session in trial.sessions]
    ranking = [
        {
            "rank": ranked.rank,
            "trial": ranked.trial.number,
            "environment": ranked.trial.environment,
            "seeds": len(ranked.trial.sessions),
            **({"extended": True} if ranked.trial.extended else {}),
            "hyperparameters": experiment.point(ranked.trial),
            "objective": dict(zip(metrics, ranked.estimates, strict=True)),
            "improvement": ranked.improvement,
        }
        for ranked in experiment.ranking
    ]
    return {
        "objective": experiment.objective.to_dict(),
        "environments": list(experiment.by_environment),
        "trials": {
            "planned": experiment.planned,
            "started": sum(any(session.state != "pending" for session in trial.sessions) for trial in trials),
            "ranked": len(ranking),
            **count_states(trial.state for trial in trials),
        },
        "sessions": {"planned": experiment.planned_sessions, **count_states(session.state for session in sessions)},
        "best": ranking[0] if experiment.best else None,
        "ranking": ranking,
        **({"pareto": [ranked.trial.number for ranked in experiment.front]} if len(metrics) > 1 else {}),
        "defaults": experiment.defaults
        and {"trial": experiment.defaults.number, "improvement": experiment.improvement_over_defaults},
        "importance": {name: part.importance for name, part in experiment.by_environment.items()},
        "unranked": [
            {"trial": trial.number, "state": trial.state, "reason": reason, "hyperparameters": experiment.point(trial)}
            for trial, reason in experiment.unranked
        ],
        "not_completed": [
            {"trial": trial.number, **unfinished_session(session, f"{trial.directory.path.name}/")}
            for trial in trials
            for session in trial.sessions
            if session.state != "completed"
        ],
    }


def trials_table(experiment: Experiment) -> pd.DataFrame:
    """Return the content of trials.csv: a row for each Trial by number.

    Columns: trial, environment, state, completed and planned (Sessions), rank in the environment, `objective_<metric>`
    with `_low` and `_high`, the hyperparameters that differ, as typed on the command line, and `<metric>_mean` and
    `<metric>_iqm` over the completed Sessions.
    """
    ranking = {ranked.trial.number: ranked for ranked in experiment.ranking}
    rows = []
    for trial in experiment.trials:
        ranked = ranking.get(trial.number)
        row: dict[str, Any] = {
            "trial": trial.number,
            "environment": trial.environment,
            "state": trial.state,
            "completed": len(trial.completed),
            "planned": len(trial.sessions),
            "rank": ranked and ranked.rank,
        }
        for index, metric in enumerate(experiment.objective.metrics):
            for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high")):
                row[f"objective_{metric}{suffix}"] = ranked and ranked.estimates[index][key]
        row |= {
            key: value if is_number(value) else format_value(value) for key, value in experiment.point(trial).items()
        }
        for metric in MAIN_METRICS:
            values = np.sort(trial.values(metric))
            for name in ("mean", "iqm"):
                row[f"{metric}_{name}"] = float(STATISTICS[name](values)) if len(values) else None
        rows.append(row)
    return pd.DataFrame(rows).astype({"rank": "Int64"} if rows else {})
