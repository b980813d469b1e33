"""An Experiment read from its files: Trials over hyperparameters, ranked by an objective."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.analysis.objective import Objective
from lab.analysis.scale import is_number, needs_log_scale
from lab.analysis.statistics import STATISTICS, Estimate, probability_of_improvement
from lab.analysis.text import format_hyperparameter
from lab.analysis.trial import Trial, count_states, read_trial, unfinished_session
from lab.common.text import canonical, format_estimate, format_value, plural
from lab.errors import LabError, warn_once
from lab.run.directory import SweepDir

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DEFAULT_OBJECTIVE = Objective(("return",), ("maximize",), "mean")  # if sweep.json is missing
MAIN_METRICS = ("return", "best", "eval_return", "strength", "sample_efficiency", "stability", "frames_to_solve")
MIN_TRIALS = 8  # ranked, for importance
TOP_FRACTION = 0.1  # of Trials that count as good ones for importance
MIN_TOP = 5  # good Trials, as the authors of PED-ANOVA advise


@dataclass
class Ranked:
    """A Trial in the ranking.

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

    @cached_property
    def hyperparameters(self) -> list[str]:
        """Keys that differ between Trials: of those swept, or of the whole spec if sweep and points are missing."""
        swept = dict.fromkeys(key for trial in self.trials for key in trial.hyperparameters)
        keys = swept or dict.fromkeys(key for trial in self.trials for key in trial.spec)
        known = [trial for trial in self.trials if trial.hyperparameters or trial.spec]
        return [key for key in keys if len({canonical(trial.value(key)) for trial in known}) > 1]

    def point(self, trial: Trial) -> dict[str, Any]:
        """Return the hyperparameters of a Trial that differ between Trials, by key."""
        return {key: trial.value(key) for key in self.hyperparameters}

    @cached_property
    def ranking(self) -> list[Ranked]:
        """Trials whose Sessions all completed with the objective's metrics, the best first."""
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
            metric, sign = self.objective.metrics[0], self.objective.signs[0]
            for better, worse in pairwise(ranking):
                samples = (sign * ranked.trial.values(metric) for ranked in (better, worse))
                better.improvement = probability_of_improvement(*samples)
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
        """The first in the ranking; None if no Trial is ranked, or with several objectives."""
        return self.ranking[0] if self.ranking and len(self.objective.metrics) == 1 else None

    @property
    def front(self) -> list[Ranked]:
        """The best Trial and all that tie with it, or the Pareto front."""
        return [ranked for ranked in self.ranking if ranked.rank == 1]

    @cached_property
    def importance(self) -> dict[str, float]:
        """Importance of each hyperparameter by PED-ANOVA; sums to 1, largest first.

        It tells how much a hyperparameter separates the best tenth of the Trials by the first metric (at least five,
        at most half) from all. Empty with fewer than MIN_TRIALS ranked Trials, if they do not differ in any
        hyperparameter, or if none is better than another. Source: Watanabe, Bansal and Hutter 2023, "PED-ANOVA:
        Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces".
        """
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
        ranked = f"{len(self.ranking)} of {trials} ranked, over {keys}"
        if self.best is None:
            return f"{ranked}; there is no single best Trial."
        metric = f"{self.objective.aggregate} {self.objective.metrics[0]}"
        point = ", ".join(f"{key}={format_hyperparameter(value)}" for key, value in self.point(self.best.trial).items())
        return f"{ranked}; the best by {metric}: {format_estimate(self.best.estimates[0])} with {point}."


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
    return Experiment(directory, sweep, objective, [read_trial(trial) for trial in started])


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


def ped_anova(columns: dict[str, list[Any]], values: np.ndarray) -> dict[str, float]:
    """Return the importance of each column in separating high values from all, largest first.

    Args:
        columns: of hyperparameters, [n] each, none constant.
        values: more is better; not all equal [n].
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions = {key: distribution(column) for key, column in columns.items()}
    categorical = optuna.distributions.CategoricalDistribution
    cells = {
        key: list(map(format_value, column)) if isinstance(distributions[key], categorical) else column
        for key, column in columns.items()
    }
    good = min(max(int(np.ceil(TOP_FRACTION * len(values))), MIN_TOP), len(values) // 2)
    # The threshold includes ties and must exclude the worst Trials.
    good = min(good, int((values > values.min()).sum()))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction="maximize")
            for index, value in enumerate(values.tolist()):
                point = {key: column[index] for key, column in cells.items()}
                study.add_trial(optuna.create_trial(params=point, distributions=distributions, value=value))
            evaluator = PedAnovaImportanceEvaluator(target_quantile=(good - 0.5) / len(values))
            importance = get_param_importances(study, evaluator=evaluator, params=list(columns))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return dict(sorted(importance.items(), key=lambda item: -item[1]))


def distribution(column: Sequence[Any]) -> BaseDistribution:
    """Return an Optuna distribution over the range or the distinct values of a column of hyperparameters."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not all(map(is_number, column)):
        return CategoricalDistribution(sorted(set(map(format_value, column))))
    low, high = min(column), max(column)
    integers = all(isinstance(value, int) for value in column)
    log = needs_log_scale(low, high)
    return IntDistribution(low, high, log=log) if integers else FloatDistribution(low, high, log=log)


def experiment_results(experiment: Experiment) -> dict[str, Any]:
    """Return the content of experiment.json; deterministic, without times, hosts or absolute paths."""
    trials, sweep, metrics = experiment.trials, experiment.sweep, experiment.objective.metrics
    sessions = [session for trial in trials for session in trial.sessions]
    not_started = (experiment.planned - len(trials)) * len(sweep.get("seeds") or ())
    ranking = [
        {
            "rank": ranked.rank,
            "trial": ranked.trial.number,
            "seeds": len(ranked.trial.sessions),
            "hyperparameters": experiment.point(ranked.trial),
            "objective": dict(zip(metrics, ranked.estimates, strict=True)),
            "improvement": ranked.improvement,
        }
        for ranked in experiment.ranking
    ]
    return {
        "objective": experiment.objective.to_dict(),
        "trials": {
            "planned": experiment.planned,
            "started": sum(any(session.state != "pending" for session in trial.sessions) for trial in trials),
            "ranked": len(ranking),
            **count_states(trial.state for trial in trials),
        },
        "sessions": {"planned": len(sessions) + not_started, **count_states(session.state for session in sessions)},
        "best": ranking[0] if experiment.best else None,
        "ranking": ranking,
        **({"pareto": [ranked.trial.number for ranked in experiment.front]} if len(metrics) > 1 else {}),
        "importance": experiment.importance,
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

    Columns: trial, state, completed and planned (Sessions), rank, `objective_<metric>` with `_low` and `_high`, the
    hyperparameters that differ, as typed on the command line, and `<metric>_mean` and `<metric>_iqm` over the completed
    Sessions.
    """
    ranking = {ranked.trial.number: ranked for ranked in experiment.ranking}
    rows = []
    for trial in experiment.trials:
        ranked = ranking.get(trial.number)
        row: dict[str, Any] = {
            "trial": trial.number,
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
