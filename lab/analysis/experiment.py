"""An Experiment as its files tell it: Trials over hyperparameters, ranked."""

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
from lab.analysis.statistics import STATISTICS, probability_of_improvement
from lab.analysis.trial import Trial, counts, not_completed, read_trial
from lab.common.text import canonical, format_value
from lab.errors import LabError, warn_once
from lab.run.directory import SweepDir

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NO_OBJECTIVE = Objective(("return",), ("maximize",), "mean")  # of a directory whose sweep.json is missing
MAIN = ("return", "best", "eval_return", "strength", "sample_efficiency", "stability", "frames_to_solve")  # in tables
FEWEST = 8  # ranked Trials below which no importance is told
TOP = 0.1  # share of Trials that count as good ones when importance is told
FEWEST_TOP = 5  # how many of them PED-ANOVA should have at least, by the advice of its authors
DECADES = 1.5  # that positive values span before they count as chosen on a log scale


@dataclass
class Ranked:
    """A Trial in the ranking.

    Attributes:
        rank: from 1; Trials with equal values share one. With several objectives, the number of its front: 1 is the
            Pareto front, 2 what would be it without the first, and so on.
        trial: the Trial.
        values: of each metric of the objective.
        lows: low end of each one's 95 % bootstrap interval over seeds; null for one seed.
        highs: its high end.
        improvement: probability that this Trial does better than the next in the ranking; null for the last one, and
            with several objectives.
    """

    rank: int
    trial: Trial
    values: list[float]
    lows: list[float | None]
    highs: list[float | None]
    improvement: dict[str, float | None] | None = None


@dataclass
class Experiment:
    """What is known of an Experiment, finished or not.

    Attributes:
        directory: where it is.
        sweep: what sweep.json holds.
        objective: what its Trials are ranked by.
        trials: by number.
    """

    directory: SweepDir
    sweep: dict[str, Any]
    objective: Objective
    trials: list[Trial]

    @cached_property
    def hyperparameters(self) -> list[str]:
        """Keys that differ between Trials: of those swept, or of the whole spec where nothing says what was swept."""
        swept = dict.fromkeys(key for trial in self.trials for key in trial.hyperparameters)
        keys = swept or dict.fromkeys(key for trial in self.trials for key in trial.spec)
        known = [trial for trial in self.trials if trial.hyperparameters or trial.spec]
        return [key for key in keys if len({canonical(trial.value(key)) for trial in known}) > 1]

    def point(self, trial: Trial) -> dict[str, Any]:
        """Return the hyperparameters of a Trial that differ between Trials, by key."""
        return {key: trial.value(key) for key in self.hyperparameters}

    @cached_property
    def ranking(self) -> list[Ranked]:
        """Trials whose Sessions all completed with the objective's figures, the best first."""
        left_out = {trial.number for trial, _ in self.unranked}
        trials = [trial for trial in self.trials if trial.number not in left_out]
        values = np.array([self.objective.values(trial) for trial in trials]).reshape(-1, len(self.objective.metrics))
        ranks = places(values * self.objective.signs)
        ranking = []
        for index in np.argsort(ranks, kind="stable"):
            lows, highs = zip(*self.objective.intervals(trials[index]), strict=True)
            ranking.append(Ranked(int(ranks[index]), trials[index], values[index].tolist(), list(lows), list(highs)))
        if len(self.objective.metrics) == 1:
            for better, worse in pairwise(ranking):
                better.improvement = self._improvement(better.trial, worse.trial)
        return ranking

    @cached_property
    def unranked(self) -> list[tuple[Trial, str]]:
        """The other Trials, each with the reason."""
        found = []
        for trial in self.trials:
            try:
                self.objective.values(trial)
            except LabError as reason:
                found.append((trial, str(reason)))
        return found

    @property
    def best(self) -> Ranked | None:
        """The first in the ranking; null if there is none, or not one alone because there are several objectives."""
        return self.ranking[0] if self.ranking and len(self.objective.metrics) == 1 else None

    @cached_property
    def importance(self) -> dict[str, float]:
        """Share of each hyperparameter in what tells good Trials from all, by PED-ANOVA; they sum to 1, largest first.

        Good ones are the best tenth by the first metric, or the best five of fewer than fifty, but at most half of all.
        Empty with fewer than eight ranked Trials, if they do not differ in any hyperparameter, or if none is better
        than another. Source: Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter
        Importance in Arbitrary Subspaces".
        """
        points = [self.point(ranked.trial) for ranked in self.ranking]
        columns = {key: [point[key] for point in points] for key in self.hyperparameters}
        varying = {key: column for key, column in columns.items() if len(set(map(canonical, column))) > 1}
        values = np.array([ranked.values[0] for ranked in self.ranking]) * self.objective.signs[0]
        if len(values) < FEWEST or not varying or values.min() == values.max():
            return {}
        return ped_anova(varying, values)

    def _improvement(self, better: Trial, worse: Trial) -> dict[str, float | None]:
        metric, sign = self.objective.metrics[0], self.objective.signs[0]
        return probability_of_improvement(sign * better.values(metric), sign * worse.values(metric))


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
    objective = Objective.from_dict(sweep["objective"]) if sweep else NO_OBJECTIVE
    # A directory in which nothing was written yet is not a Trial yet.
    begun = [trial for trial in directory.trials() if trial.point.exists() or trial.seeds()]
    return Experiment(directory, sweep, objective, [read_trial(trial) for trial in begun])


def places(values: np.ndarray) -> np.ndarray:
    """Return the rank [n] of each row of values [n, k], of which more is better.

    With k=1 equal values share a rank, and the one after them is as if they did not (1, 1, 3). With k>1 the rank is the
    front by non-domination: a row is dominated by one that is no worse in any column, and better in one.
    """
    no_worse = np.all(values[:, None] >= values[None], axis=-1)
    dominates = no_worse & ~no_worse.T
    if values.shape[1] == 1:
        return 1 + dominates.sum(axis=0)
    ranks, front = np.zeros(len(values), int), 0
    while not ranks.all():
        front += 1
        left = ranks == 0
        ranks[left & ~dominates[left].any(axis=0)] = front
    return ranks


def ped_anova(columns: dict[str, list[Any]], values: np.ndarray) -> dict[str, float]:
    """Return the share of each column in what tells high values from all, largest first.

    Args:
        columns: of hyperparameters, [n] each, of which no one is constant.
        values: more is better; not all equal [n].
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions = {key: distribution(column) for key, column in columns.items()}
    categorical = optuna.distributions.CategoricalDistribution
    cells = {
        key: [format_value(value) for value in column] if isinstance(distributions[key], categorical) else column
        for key, column in columns.items()
    }
    good = min(max(int(np.ceil(TOP * len(values))), FEWEST_TOP), len(values) // 2)
    # The threshold takes ties in, and may not take in the worst: then all Trials would be good ones.
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
            found = get_param_importances(study, evaluator=evaluator, params=list(columns))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def distribution(column: Sequence[Any]) -> BaseDistribution:
    """Return a distribution that a column of hyperparameters may have come from: its range, or its different values.

    Positive numbers that span more than 1.5 decades count as chosen on a log scale.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not all(map(_is_number, column)):
        return CategoricalDistribution(sorted(set(map(format_value, column))))
    low, high = min(column), max(column)
    log = low > 0 and high / low > 10**DECADES
    whole = all(isinstance(value, int) for value in column)
    return IntDistribution(low, high, log=log) if whole else FloatDistribution(low, high, log=log)


def experiment_results(experiment: Experiment) -> dict[str, Any]:
    """Return what experiment.json holds.

    It is deterministic: no time, host or absolute path is in it.
    """
    trials, sweep = experiment.trials, experiment.sweep
    planned = max(sweep.get("trials") or 0, len(trials))
    sessions = [session for trial in trials for session in trial.sessions]
    not_begun = (planned - len(trials)) * len(sweep.get("seeds") or ())
    ranking = [_entry(experiment, ranked) for ranked in experiment.ranking]
    several = len(experiment.objective.metrics) > 1
    return {
        "objective": experiment.objective.to_dict(),
        "trials": {
            "planned": planned,
            "begun": sum(any(session.state != "pending" for session in trial.sessions) for trial in trials),
            "ranked": len(ranking),
            **counts(trial.state for trial in trials),
        },
        "sessions": {"planned": len(sessions) + not_begun, **counts(session.state for session in sessions)},
        "best": ranking[0] if experiment.best else None,
        "ranking": ranking,
        **({"pareto": [ranked.trial.number for ranked in experiment.ranking if ranked.rank == 1]} if several else {}),
        "importance": experiment.importance,
        "unranked": [
            {"trial": trial.number, "state": trial.state, "reason": reason, "hyperparameters": experiment.point(trial)}
            for trial, reason in experiment.unranked
        ],
        "not_completed": [
            {"trial": trial.number, **_seen_from_above(trial, not_completed(trial, session))}
            for trial in trials
            for session in trial.sessions
            if session.state != "completed"
        ],
    }


def trials_table(experiment: Experiment) -> pd.DataFrame:
    """Return what trials.csv holds: a row for each Trial by number, with what it is, its rank and its main figures.

    Columns: trial, state, completed and planned (Sessions), rank, `objective_<metric>` with `_low` and `_high`, the
    hyperparameters that differ, as they are typed on the command line, and `<figure>_mean` and `<figure>_iqm` over the
    Sessions that completed.
    """
    ranked = {entry.trial.number: entry for entry in experiment.ranking}
    rows = [_row(experiment, trial, ranked.get(trial.number)) for trial in experiment.trials]
    return pd.DataFrame(rows).astype({"rank": "Int64"} if rows else {})


def _entry(experiment: Experiment, ranked: Ranked) -> dict[str, Any]:
    return {
        "rank": ranked.rank,
        "trial": ranked.trial.number,
        "seeds": len(ranked.trial.sessions),
        "hyperparameters": experiment.point(ranked.trial),
        "objective": {
            metric: {"value": value, "low": low, "high": high}
            for metric, value, low, high in zip(
                experiment.objective.metrics, ranked.values, ranked.lows, ranked.highs, strict=True
            )
        },
        "improvement": ranked.improvement,
    }


def _seen_from_above(trial: Trial, session: dict[str, Any]) -> dict[str, Any]:
    log = session["log"] and f"{trial.directory.path.name}/{session['log']}"
    return {**session, "log": log}


def _row(experiment: Experiment, trial: Trial, ranked: Ranked | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial": trial.number,
        "state": trial.state,
        "completed": len(trial.completed),
        "planned": len(trial.sessions),
        "rank": ranked and ranked.rank,
    }
    for index, metric in enumerate(experiment.objective.metrics):
        row[f"objective_{metric}"] = ranked and ranked.values[index]
        row[f"objective_{metric}_low"] = ranked and ranked.lows[index]
        row[f"objective_{metric}_high"] = ranked and ranked.highs[index]
    point = experiment.point(trial)
    row |= {key: value if _is_number(value) else format_value(value) for key, value in point.items()}
    for figure in MAIN:
        values = np.sort(trial.values(figure))
        for name in ("mean", "iqm"):
            row[f"{figure}_{name}"] = float(STATISTICS[name](values)) if len(values) else None
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
