"""How much of an Experiment's figure was luck, and what its best Trial gains over the defaults: by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab.analysis.card import write_card
from lab.analysis.experiment import Experiment
from lab.analysis.objective import Objective
from lab.analysis.report import write_report
from lab.analysis.statistics import difference
from lab.analysis.trial import Trial
from lab.analysis.validation import Validation
from tests.analysis.test_experiment import SOLVE, experiment, of_values
from tests.analysis.test_trial import session, trial

DEFAULTS: dict[str, Any] = {"algo.lr": 1.0}


def fresh(number: int, lr: float, *values: float, metric: str = "return") -> Trial:
    return trial(
        *(session(100 + i, **{metric: value}) for i, value in enumerate(values)), number=number, **{"algo.lr": lr}
    )


def validated(*trials: Trial, of: Experiment | None = None) -> Validation:
    searched = of or experiment(
        of_values(0, 10, 10, **DEFAULTS), of_values(1, 30, 34, **{"algo.lr": 2.0}),
        of_values(2, 20, 22, **{"algo.lr": 3.0}), sweep={"defaults": DEFAULTS},
    )  # fmt: skip
    return Validation(searched, experiment(*trials, objective=searched.objective, sweep={"defaults": DEFAULTS}))


def test_luck_and_gain_by_hand() -> None:
    made = validated(fresh(0, 1.0, 9, 11, 10, 10), fresh(1, 2.0, 20, 22, 24, 26), fresh(2, 3.0, 21, 23, 25, 31))
    assert [(each.ranked.trial.number, each.fresh.number) for each in made.trials] == [(1, 1), (2, 2)]
    first, second = made.trials
    assert first.luck and first.estimate and second.luck
    assert first.estimate["value"] == 23, "the mean of fresh seeds"
    assert first.luck["value"] == 32 - 23
    assert first.luck == difference([30, 34], [20, 22, 24, 26], "mean")  # type: ignore[arg-type]
    assert second.luck["value"] == 21 - 25
    assert made.winner is second, "the best on fresh seeds, and not in the Experiment"
    assert made.improvement == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert made.gain and made.gain["value"] == 25 - 10
    assert made.seeds == [100, 101, 102, 103]
    luck, gain = made.describe()
    assert luck.startswith("trial-001, the best in the Experiment: 32.0 [30.0, 34.0] there (2 seeds), 23.0 [21.")
    assert "on 4 fresh seeds, luck: 9 [" in luck
    assert "(may be chance: it takes 4 seeds each" in luck
    assert gain.startswith("trial-002, the best of them on fresh seeds, is better than the default settings: P(")
    assert [row[0] for row in made.rows()] == ["trial-001", "trial-002", "default settings"]
    assert made.rows()[-1][1:3] == ["3", "10.0 [10.0, 10.0]"]
    assert made.columns()[3] == "on fresh seeds 100 to 103"


def test_what_did_worse_is_said_without_a_minus() -> None:
    made = validated(fresh(0, 1.0, 39, 41, 40, 40), fresh(1, 2.0, 34, 36, 35, 39))
    luck, gain = made.describe()
    assert "luck: -4 [" in luck and "(it did better on fresh seeds; may be chance: " in luck
    assert "mean return worse by 4 [" in gain and "-" not in gain.partition("worse by")[2]
    assert made.gain and made.gain["value"] == -4


def test_of_a_metric_of_which_less_is_better_luck_is_what_it_was_lower_by() -> None:
    searched = experiment(
        *(
            of_values(n, *values, metric="frames_to_solve", **{"algo.lr": n})
            for n, values in enumerate([(10, 10), (50, 60)])
        ),
        objective=SOLVE,
    )
    made = validated(fresh(0, 0, 30, 40, metric="frames_to_solve"), of=searched)
    assert made.trials[0].luck and made.trials[0].luck["value"] == 35 - 10


def test_the_defaults_may_be_best() -> None:
    made = validated(fresh(0, 1.0, 50, 50, 50, 50), fresh(1, 2.0, 20, 22, 24, 26))
    assert made.winner_is_default
    assert made.gain and made.gain["value"] == 23 - 50
    assert "trial-001, the best of them on fresh seeds, is worse than the default settings" in made.describe()[1]


def test_what_is_not_done_has_no_figure() -> None:
    half = trial(session(100, **{"return": 9.0}), session(101, "failed"), number=1, **{"algo.lr": 2.0})
    made = validated(half)
    assert made.trials[0].estimate is None and made.winner is None and not made.winner_is_default
    assert made.describe() == ["Not done on fresh seeds: trial-001: seed 101 failed."]
    assert made.rows() == [["trial-001", "1", "32.0 [30.0, 34.0]", "-", "-"]]
    assert made.to_dict()["winner"] is None


def test_the_report_and_the_card_show_both_figures() -> None:
    made = validated(fresh(0, 1.0, 9, 11, 10, 10), fresh(1, 2.0, 20, 22, 24, 26))
    assert "Validation on fresh seeds" not in write_report(made.experiment)
    page = write_report(made.experiment, made)
    assert '<section id="validation">' in page
    assert "23.0 [21.0, 25.0]" in page and "32.0 [30.0, 34.0]" in page
    card = write_card(replace(fresh(1, 2.0, 20, 22, 24, 26)), made)
    assert "## Validation" in card and "| trial-001 | 1 | 32.0 [30.0, 34.0] | 23.0 [21.0, 25.0] |" in card


def test_the_objective_says_what_is_compared() -> None:
    objective = Objective(("return",), ("maximize",), "iqm")
    searched = replace(experiment(of_values(0, 1, 2, 3, 40, **{"algo.lr": 2.0})), objective=objective)
    made = validated(fresh(0, 2.0, 1, 2, 3, 4), of=searched)
    assert made.trials[0].luck and made.trials[0].luck["value"] == 0, "the means of the middle halves are equal"
