"""The validation of an Experiment: its best Trials trained again on fresh seeds, in a directory of its own.

The best of many Trials is the luckiest of them too. On seeds that chose nothing it has no luck, so the difference of
the two figures is how much of the first was luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lab.analysis.experiment import Experiment, Ranked, read_experiment
from lab.analysis.session import Session
from lab.analysis.statistics import MIN_SEEDS, Estimate, difference, probability_of_improvement, subtract_from
from lab.analysis.trial import Trial, describe_unfinished
from lab.common.text import canonical, format_chance, format_estimate, format_seeds, plural
from lab.errors import LabError
from lab.run.code.packages import different
from lab.run.files import read_json
from lab.run.schemas import PROVENANCE


@dataclass
class Validated:
    """A Trial of the Experiment, and the same settings on fresh seeds.

    Attributes:
        ranked: the Trial in the ranking of the Experiment.
        fresh: the Trial on fresh seeds.
        estimate: its objective on these; None if some of its Sessions have not completed.
        luck: by how much the Experiment's figure is better than that on fresh seeds; None without one.
    """

    ranked: Ranked
    fresh: Trial
    estimate: Estimate | None = None
    luck: Estimate | None = None


@dataclass
class Validation:
    """An Experiment with one objective, and its best Trials on fresh seeds."""

    experiment: Experiment
    fresh: Experiment

    @cached_property
    def trials(self) -> list[Validated]:
        """The validated Trials but for the defaults, in the order of the Experiment's ranking."""
        metric, sign = self.experiment.objective.metrics[0], self.experiment.objective.signs[0]
        again = {canonical(trial.hyperparameters): trial for trial in self.fresh.trials}
        estimates = {ranked.trial.number: ranked.estimates[0] for ranked in self.fresh.ranking}
        validated = []
        for ranked in self.experiment.ranking:
            fresh = again.get(canonical(ranked.trial.hyperparameters))
            if fresh is None or ranked.trial is self.experiment.defaults:
                continue
            each = Validated(ranked, fresh, estimates.get(fresh.number or 0))
            if each.estimate is not None:
                found, now = (sign * trial.values(metric) for trial in (ranked.trial, fresh))
                each.luck = difference(found, now, self.experiment.objective.statistic)
            validated.append(each)
        return validated

    @cached_property
    def winner(self) -> Validated | None:
        """The validated Trial that is best on fresh seeds; None if none has a figure yet."""
        order = [ranked.trial.number for ranked in self.fresh.ranking]
        known = [each for each in self.trials if each.estimate is not None]
        return min(known, key=lambda each: order.index(each.fresh.number), default=None)

    @cached_property
    def defaults(self) -> Ranked | None:
        """The default settings on the same fresh seeds; None if they were not trained, or have no figure."""
        return next((ranked for ranked in self.fresh.ranking if ranked.trial is self.fresh.defaults), None)

    @property
    def winner_is_default(self) -> bool:
        """Whether no Trial has a better figure on fresh seeds than the default settings."""
        order = [ranked.trial for ranked in self.fresh.ranking]
        if self.winner is None or self.defaults is None:
            return False
        return order.index(self.defaults.trial) <= order.index(self.winner.fresh)

    @cached_property
    def improvement(self) -> Estimate | None:
        """Probability that a fresh seed of the winner does better than one of the defaults; None without a pair."""
        return self._compare(probability_of_improvement)

    @cached_property
    def gain(self) -> Estimate | None:
        """By how much the winner is better than the defaults on fresh seeds; None without a pair."""
        return self._compare(lambda x, y: difference(x, y, self.experiment.objective.statistic))

    @property
    def verdict(self) -> str | None:
        """`better` or `worse` than the default settings, or `not shown to be better`; None without a pair."""
        winner, improvement, gain = self.winner, self.improvement, self.gain
        if winner is None or improvement is None or gain is None:
            return None
        if len(winner.fresh.sessions) >= MIN_SEEDS:
            for verdict, end, sign in (("better", "low", 1), ("worse", "high", -1)):
                distances = [(improvement[end], 0.5), (gain[end], 0)]
                if all(value is not None and sign * value > sign * chance for value, chance in distances):
                    return verdict
        return "not shown to be better"

    def _compare(self, how: Any) -> Estimate | None:
        if self.winner is None or self.defaults is None or self.winner.fresh is self.defaults.trial:
            return None
        metric, sign = self.experiment.objective.metrics[0], self.experiment.objective.signs[0]
        pair = (sign * trial.values(metric) for trial in (self.winner.fresh, self.defaults.trial))
        estimate: Estimate = how(*pair)
        return estimate

    @cached_property
    def seeds(self) -> list[int]:
        """The fresh seeds."""
        return sorted({session.seed for trial in self.fresh.trials for session in trial.sessions})

    @cached_property
    def other_code(self) -> list[str]:
        """Packages whose code differs between the Experiment's Sessions and those on fresh seeds."""
        found, now = (
            [_code(session) for each in self.trials for session in trial(each).sessions]
            for trial in (lambda each: each.ranked.trial, lambda each: each.fresh)
        )
        return list(dict.fromkeys(name for one in found for other in now for name in different(one, other)))

    def describe(self) -> list[str]:
        """Return sentences on what may be concluded, and what may not."""
        lines = [*self._describe_luck(), *self._describe_improvement()]
        for trial in self.fresh.trials:
            if phrases := describe_unfinished(trial.sessions):
                lines.append(f"Not done on fresh seeds: {self.name_of(trial)}: {'; '.join(phrases)}.")
        if self.other_code:
            lines.append(
                f"The fresh seeds were trained with other code of {', '.join(self.other_code)} than the Experiment, so"
                " the two figures differ by that as well."
            )
        return lines

    def _describe_luck(self) -> list[str]:
        best = self.trials[0] if self.trials else None
        if best is None or best.estimate is None or best.luck is None:
            return []
        n, m, metric = len(best.ranked.trial.sessions), len(best.fresh.sessions), self.experiment.objective.metrics[0]
        low, high = best.luck["low"], best.luck["high"]
        doubts = [f"it takes {MIN_SEEDS} seeds each"] if min(n, m) < MIN_SEEDS else []
        doubts += ["the interval contains 0"] if low is not None and high is not None and low <= 0 <= high else []
        remarks = ["it did better on fresh seeds"] if (best.luck["value"] or 0) < 0 else []
        remarks += [f"may be chance: {', and '.join(doubts)}"] if doubts else []
        remark = "; ".join(remarks)
        found, now = (format_estimate(each, metric) for each in (best.ranked.estimates[0], best.estimate))
        place = "the best" if best.ranked.rank == 1 else "the best but for the default settings"
        return [
            f"{best.ranked.trial.name}, {place} in the Experiment: {found} there ({plural(n, 'seed')}), {now} on"
            f" {plural(m, 'fresh seed')}, luck: {format_estimate(best.luck, metric)}"
            f"{f' ({remark})' if remark else ''}."
        ]

    def _describe_improvement(self) -> list[str]:
        winner, improvement, gain = self.winner, self.improvement, self.gain
        if winner is not None and self.defaults is not None and winner.fresh is self.defaults.trial:
            return ["The best on fresh seeds has the default settings."]
        if winner is None or improvement is None or gain is None:
            return []
        few = len(winner.fresh.sessions) < MIN_SEEDS
        statistic, metric = self.experiment.objective.statistic, self.experiment.objective.metrics[0]
        worse = (gain["value"] or 0) < 0
        by = format_estimate(subtract_from(0, gain) if worse else gain, metric)
        return [
            f"{winner.ranked.trial.name}, the best of them on fresh seeds, is {self.verdict} than the default settings:"
            f" P(a seed of it does better) = {format_chance(improvement)}, {statistic} {metric}"
            f" {'worse' if worse else 'better'} by {by}{f'; it takes {MIN_SEEDS} seeds each' if few else ''}."
        ]

    def name_of(self, fresh: Trial) -> str:
        """Return the name in the Experiment of a Trial on fresh seeds."""
        names = [each.ranked.trial.name for each in self.trials if each.fresh is fresh]
        return names[0] if names else "the default settings" if fresh is self.fresh.defaults else fresh.name

    def rows(self) -> list[list[str]]:
        """Return a row for each Trial that was validated, and the defaults: name and figures as text."""
        metric = self.experiment.objective.metrics[0]
        rows = []
        for each in self.trials:
            figures = (each.ranked.estimates[0], each.estimate, each.luck)
            cells = ["-" if figure is None else format_estimate(figure, metric) for figure in figures]
            name = f"{each.ranked.trial.name}{' (defaults)' if each.fresh is self.fresh.defaults else ''}"
            rows.append([name, str(each.ranked.rank), *cells])
        fresh = self.fresh.defaults
        if fresh is not None and not any(each.fresh is fresh for each in self.trials):
            found = next((one for one in self.experiment.ranking if one.trial is self.experiment.defaults), None)
            cells = [format_estimate(one.estimates[0], metric) if one else "-" for one in (found, self.defaults)]
            rows.append(["default settings", str(found.rank) if found else "-", *cells, "-"])
        return rows

    def columns(self) -> list[str]:
        """Return the heads of `rows`."""
        objective = self.experiment.objective
        name = f"{objective.aggregate} {objective.metrics[0]}"
        return ["Trial", "rank", f"{name}, in the Experiment", f"on {name_seeds(self.seeds)}", "luck"]

    def to_dict(self) -> dict[str, Any]:
        """Return what experiment.json holds of it."""
        return {
            "seeds": self.seeds,
            "trials": [
                {
                    "trial": each.ranked.trial.number,
                    "fresh_trial": each.fresh.number,
                    "rank": each.ranked.rank,
                    "experiment": each.ranked.estimates[0],
                    "fresh": each.estimate,
                    "luck": each.luck,
                }
                for each in self.trials
            ],
            "winner": self.winner and self.winner.ranked.trial.number,
            "defaults": self.defaults
            and {"fresh": self.defaults.estimates[0], "improvement": self.improvement, "gain": self.gain},
            "other_code": self.other_code,
            "columns": self.columns(),
            "rows": self.rows(),
            "conclusions": self.describe(),
        }


def name_seeds(seeds: list[int]) -> str:
    """Return `fresh seeds 100 to 109`, or each of them where they do not follow each other."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"fresh seeds {seeds[0]} to {seeds[-1]}"
    return f"fresh {format_seeds(seeds)}" if seeds else "fresh seeds"


def read_validation(experiment: Experiment) -> Validation | None:
    """Read the validation of an Experiment; None if there is none, or with several objectives or environments.

    Raises:
        LabError: a file in it cannot be read.
    """
    directory = experiment.directory.validation
    single = len(experiment.objective.metrics) == len(experiment.by_environment) == 1
    if not single or not directory.trials():
        return None
    return Validation(experiment, read_experiment(directory))


def _code(session: Session) -> dict[str, Any]:
    try:
        return dict(read_json(session.directory.provenance, PROVENANCE).get("code") or {})
    except (LabError, OSError):
        return {}
