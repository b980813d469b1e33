"""Settings of hyperparameters over several environments, ranked by scores that are normalized in each.

Returns of different environments have no common scale, so no ranking is made of them. A score is 0 for random actions
and 1 for the return that counts as solved; where these are not known, 0 and 1 are the worst and the best Session of the
environment that are compared. Aggregates follow Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
Statistical Precipice": the interquartile mean over environments and seeds, with stratified bootstrap intervals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.experiment import Experiment
from lab.analysis.experiment import trials_table as experiment_table
from lab.analysis.statistics import (
    MIN_SEEDS,
    Estimate,
    aggregate_across,
    improvement_across,
    performance_profile,
)
from lab.analysis.text import format_hyperparameter, short_names
from lab.analysis.trial import Trial
from lab.common.text import canonical, format_chance, format_estimate, format_number, plural
from lab.run.schemas import LESS_IS_BETTER

RETURNS = ("return", "best", "eval_return", "eval_best")  # metrics that reference returns normalize
# Keys that choose an environment, and are no hyperparameters.
CHOOSES_ENVIRONMENT = re.compile(r"env(\.(id|name|backend|max_episode_steps|reference|kwargs)(\..*)?)?")
MAX_ENVIRONMENTS = 6  # that have a column of their own
THRESHOLDS = 101  # scores at which a performance profile is drawn


@dataclass(frozen=True)
class Normalization:
    """How a metric becomes a score in one environment: `low` becomes 0 and `high` 1."""

    how: str  # reference or min-max
    low: float
    high: float

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return the scores of values; all are 0.5 if the best is no better than the worst."""
        span = self.high - self.low
        return (np.asarray(values, float) - self.low) / span if span else np.full(len(values), 0.5)


@dataclass
class Setting:
    """One set of hyperparameters, and its Trial in each environment."""

    hyperparameters: dict[str, Any]
    trials: dict[str, Trial]  # by environment
    name: str = ""
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # of the Sessions, by environment
    reason: str = ""  # why it is not ranked; empty if it is

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """The scores in each environment [n]."""
        return list(self.scores.values())

    @cached_property
    def estimate(self) -> Estimate:
        """Interquartile mean of the scores over environments and seeds, with its interval."""
        return aggregate_across(self.samples)


@dataclass
class Across:
    """Settings over the same environments.

    Attributes:
        metric: what is normalized.
        normalizations: by environment.
        ranking: settings with a score in every environment, the best first.
        unranked: the others.
    """

    metric: str
    normalizations: dict[str, Normalization]
    ranking: list[Setting]
    unranked: list[Setting]

    def improvement(self, one: Setting, other: Setting) -> Estimate:
        """Return the probability that a seed of one setting scores higher in an environment than one of another."""
        return improvement_across(one.samples, other.samples)

    def profile(self, setting: Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return thresholds [T], the fraction of scores above each, and the ends of its interval (NaN for one seed)."""
        scores = np.concatenate([score for each in self.ranking for score in each.samples])
        thresholds = np.linspace(min(0.0, scores.min()), max(1.0, scores.max()), THRESHOLDS)
        return thresholds, *performance_profile(setting.samples, thresholds)

    @cached_property
    def columns(self) -> list[str]:
        """The heads of `rows`."""
        environments = list(self.normalizations) if len(self.normalizations) <= MAX_ENVIRONMENTS else []
        return ["setting", "rank", "IQM of scores", *environments]

    @cached_property
    def rows(self) -> list[list[str]]:
        """For each setting its rank, the interquartile mean of its scores, and its mean score in each environment."""
        rows = []
        for rank, setting in enumerate(self.ranking, 1):
            means = [format_number(float(scores.mean())) for scores in setting.samples]
            few = means if len(means) <= MAX_ENVIRONMENTS else []
            rows.append([setting.name, str(rank), format_estimate(setting.estimate), *few])
        return rows

    def describe(self) -> list[str]:
        """Return sentences on what may be concluded, how scores were made, and what is not ranked."""
        lines = []
        for better, worse in list(pairwise(self.ranking))[:1]:
            chance = self.improvement(better, worse)
            few = min(len(scores) for each in (better, worse) for scores in each.samples) < MIN_SEEDS
            shown = not few and (chance["low"] or 0.0) > 0.5
            doubt = f"it takes {MIN_SEEDS} seeds each" if few else "the interval contains 0.5"
            lines.append(
                f"Probability that a seed of {better.name} scores higher than one of {worse.name}, over environments:"
                f" {format_chance(chance)}{'' if shown else f' ({doubt}: not shown to be better)'}."
            )
        goal = "the lower the better" if self.metric in LESS_IS_BETTER else "the higher the better"
        for how, text in (
            ("reference", "0 is the return of random actions and 1 the one that counts as solved"),
            ("min-max", f"0 is the worst Session and 1 the best ({goal}), as no reference is known"),
        ):
            names = [
                f"{name} ({format_number(each.low, self.metric)} and {format_number(each.high, self.metric)})"
                for name, each in self.normalizations.items()
                if each.how == how
            ]
            if names:
                lines.append(f"Score of the {self.metric}: {text}: {', '.join(names)}.")
        return [*lines, *(f"Not ranked: {setting.name}: {setting.reason}." for setting in self.unranked)]

    def to_dict(self) -> dict[str, Any]:
        """Return what experiment.json holds of it."""
        following = {id(one): self.improvement(one, other) for one, other in pairwise(self.ranking)}
        return {
            "metric": self.metric,
            "statistic": "iqm",
            "normalization": {
                name: {"how": each.how, "low": each.low, "high": each.high}
                for name, each in self.normalizations.items()
            },
            "ranking": [
                {
                    "rank": rank,
                    "setting": setting.hyperparameters,
                    "score": setting.estimate,
                    "improvement": following.get(id(setting)),
                    "environments": {
                        name: {"trial": setting.trials[name].number, "score": aggregate_across([scores], "mean")}
                        for name, scores in setting.scores.items()
                    },
                }
                for rank, setting in enumerate(self.ranking, 1)
            ],
            "unranked": [{"setting": each.hyperparameters, "reason": each.reason} for each in self.unranked],
            "columns": self.columns,
            "rows": self.rows,
            "conclusions": self.describe(),
        }


def rank_settings(experiment: Experiment) -> Across | None:
    """Rank the settings of an Experiment over its environments; None with one environment, or several objectives."""
    environments = list(experiment.by_environment)
    if len(environments) < 2 or len(experiment.objective.metrics) > 1:
        return None
    keys = [key for key in experiment.hyperparameters if not CHOOSES_ENVIRONMENT.fullmatch(key)]
    settings: dict[str, Setting] = {}
    for trial in (trial for trial in experiment.trials if trial.spec):
        point = {key: trial.value(key) for key in keys}
        settings.setdefault(canonical(point), Setting(point, {})).trials[trial.environment] = trial
    names = short_names(keys)
    for setting in settings.values():
        texts = (f"{names[key]}={format_hyperparameter(value)}" for key, value in setting.hyperparameters.items())
        setting.name = " ".join(texts) or "all"
    reasons = {id(trial): reason for trial, reason in experiment.unranked}
    for setting in settings.values():
        missing = [name for name in environments if name not in setting.trials]
        broken = [f"{name}: {reasons[id(one)]}" for name, one in setting.trials.items() if id(one) in reasons]
        setting.reason = "; ".join([*broken, *(f"{name}: no Trial" for name in missing)])
    return make_across(
        list(settings.values()), environments, experiment.objective.metrics[0], experiment.objective.signs[0]
    )


def trials_table(experiment: Experiment, across: Across | None) -> pd.DataFrame:
    """Return the content of trials.csv, with the rank and the mean score of the setting over several environments."""
    table = experiment_table(experiment)
    if across is None:
        return table
    places = {
        trial.number: (rank, setting.estimate["value"], float(setting.scores[name].mean()))
        for rank, setting in enumerate(across.ranking, 1)
        for name, trial in setting.trials.items()
    }
    for index, column in enumerate(("setting_rank", "setting_score", "score")):
        table.insert(6 + index, column, [places.get(number, (None,) * 3)[index] for number in table["trial"]])
    return table.astype({"setting_rank": "Int64"})


def make_across(settings: Sequence[Setting], environments: Sequence[str], metric: str, sign: int) -> Across:
    """Normalize a metric in each environment, and rank the settings that have it in all.

    Args:
        settings: some settings; those with a reason are not ranked.
        environments: what each has a Trial in, if it is ranked.
        metric: of session.json.
        sign: 1 if more is better, -1 if less is.
    """
    ranked = [setting for setting in settings if not setting.reason]
    normalizations = {
        name: _normalize([setting.trials[name] for setting in ranked], metric, sign) for name in environments if ranked
    }
    for setting in ranked:
        setting.scores = {
            name: normalization.scores(setting.trials[name].values(metric))
            for name, normalization in normalizations.items()
        }
    ranked.sort(key=lambda setting: -(setting.estimate["value"] or 0.0))
    return Across(metric, normalizations, ranked, [setting for setting in settings if setting.reason])


def _normalize(trials: Sequence[Trial], metric: str, sign: int) -> Normalization:
    references = [trial.reference for trial in trials]
    low, high = (references[0].get(key) for key in ("random_return", "solved"))
    agree = all(reference == references[0] for reference in references)
    if metric in RETURNS and sign > 0 and agree and low is not None and high is not None and high > low:
        return Normalization("reference", float(low), float(high))
    values = np.concatenate([trial.values(metric) for trial in trials])
    worst, best = (float(values.min()), float(values.max()))[::sign]
    return Normalization("min-max", worst, best)


def describe_score(across: Across) -> str:
    """Return what the scores are over: `IQM over 3 environments and 4 seeds`."""
    seeds = {len(scores) for setting in across.ranking for scores in setting.samples}
    count = plural(max(seeds), "seed") if len(seeds) == 1 else f"{min(seeds)} to {plural(max(seeds), 'seed')}"
    return f"IQM of normalized {across.metric} over {plural(len(across.normalizations), 'environment')} and {count}"
