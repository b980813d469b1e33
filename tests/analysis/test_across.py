"""Settings over several environments: normalized scores, aggregates and rankings by hand, and against rliable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lab.analysis import compare_across
from lab.analysis.across import Normalization, rank_settings, trials_table
from lab.analysis.compare import Entry
from lab.analysis.experiment import Experiment
from lab.analysis.plot_experiment import plot_experiment
from lab.analysis.report import write_report
from lab.analysis.statistics import (
    RESAMPLES,
    aggregate_across,
    improvement_across,
    iqm,
    performance_profile,
)
from lab.analysis.trial import Trial
from lab.errors import LabError
from tests.analysis.test_compare import entry, environment
from tests.analysis.test_experiment import SOLVE, experiment
from tests.analysis.test_statistics import near_the_tails, rliable  # noqa: F401 - a fixture
from tests.analysis.test_trial import session, trial


def in_env(
    number: int, env: str, lr: float, *values: float, reference: tuple[float, float] | None = None,
    metric: str = "return", **more: object,
) -> Trial:  # fmt: skip
    random_return, solved = reference or (None, None)
    known = {"id": env, "random_return": random_return, "solved": solved}
    spec = {"env": {"id": env, "kwargs": {}, "reference": known}, "algo": {"name": "x"}}
    sessions = [session(seed, spec=spec, **{metric: value}) for seed, value in enumerate(values)]
    return trial(*sessions, number=number, **{"env": env, "algo.lr": lr, **more})


def two_by_two() -> Experiment:
    return experiment(
        in_env(0, "A", 1, 10, 20, reference=(0, 100)), in_env(1, "A", 2, 30, 50, reference=(0, 100)),
        in_env(2, "B", 1, -100, -100), in_env(3, "B", 2, -80, -60),
    )  # fmt: skip


def test_scores_and_the_ranking_by_hand() -> None:
    across = rank_settings(two_by_two())
    assert across is not None
    assert across.normalizations == {
        "A": Normalization("reference", 0, 100), "B": Normalization("min-max", -100, -60)
    }  # fmt: skip
    first, second = across.ranking
    assert first.hyperparameters == {"algo.lr": 2} and first.name == "lr=2"
    assert [scores.tolist() for scores in first.samples] == [[0.3, 0.5], [0.5, 1.0]]
    assert [scores.tolist() for scores in second.samples] == [[0.1, 0.2], [0.0, 0.0]]
    assert first.estimate["value"] == pytest.approx(0.5), "the mean of 0.5 and 0.5, the middle half of four"
    assert second.estimate["value"] == pytest.approx(0.05), "of 0 and 0.1"
    assert across.improvement(first, second) == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert across.rows[0][:2] == ["lr=2", "1"] and across.rows[0][3:] == ["0.4", "0.75"]
    lines = across.describe()
    assert "not shown to be better" in lines[0] and "it takes 4 seeds each" in lines[0]
    assert "0 is the return of random actions and 1 the one that counts as solved: A (0 and 100.0)" in lines[1]
    assert (
        "0 is the worst Session and 1 the best (the higher the better), as no reference is known: B (-100" in lines[2]
    )


def test_returns_of_different_environments_are_never_ranked_together() -> None:
    made = two_by_two()
    assert made.best is None
    assert [(each.rank, each.trial.environment) for each in made.ranking] == [(1, "A"), (2, "A"), (1, "B"), (2, "B")]
    table = trials_table(made, rank_settings(made))
    assert table["setting_rank"].tolist() == [2, 1, 2, 1]
    assert table["score"].tolist() == pytest.approx([0.15, 0.4, 0.0, 0.75])
    assert table["setting_score"].tolist() == pytest.approx([0.05, 0.5, 0.05, 0.5])


def test_less_may_be_better_and_a_setting_needs_every_environment() -> None:
    slow = [in_env(n, env, lr, *values, metric="frames_to_solve") for n, (env, lr, values) in enumerate(
        [("A", 1, (10, 20)), ("A", 2, (30, 40)), ("B", 1, (5, 6)), ("B", 2, (5, 7)), ("A", 3, (1, 1))]
    )]  # fmt: skip
    across = rank_settings(experiment(*slow, objective=SOLVE))
    assert across is not None
    assert across.normalizations["A"] == Normalization("min-max", 40, 10), "of what is ranked in every environment"
    assert [setting.name for setting in across.ranking] == ["lr=1", "lr=2"]
    assert [(setting.name, setting.reason) for setting in across.unranked] == [("lr=3", "B: no Trial")]
    assert across.describe()[-1] == "Not ranked: lr=3: B: no Trial."
    assert across.to_dict()["ranking"][0]["environments"]["B"]["trial"] == 2


def test_one_environment_or_a_single_setting() -> None:
    assert rank_settings(experiment(in_env(0, "A", 1, 1, 2), in_env(1, "A", 2, 3, 4))) is None
    across = rank_settings(experiment(in_env(0, "A", 1, 1, 2), in_env(1, "B", 1, 3, 3)))
    assert across is not None
    (setting,) = across.ranking
    assert setting.name == "all" and setting.hyperparameters == {}
    assert setting.scores["B"].tolist() == [0.5, 0.5], "all are equal: neither the best nor the worst"


def test_the_picture_and_the_page_show_settings_over_environments() -> None:
    made = two_by_two()
    across = rank_settings(made)
    assert len(plot_experiment(made, across)) > len(plot_experiment(made))
    page = write_report(made, across=across)
    assert '<section id="across">' in page and "Performance profile" in page
    assert "lr=2" in page and '<section id="across">' not in write_report(made)


def samples(*, seeds: int, environments: int, shift: float = 0.0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seeds + environments)
    return [rng.normal(0.5 + 0.1 * index + shift, 0.3, seeds) for index in range(environments)]


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")
def test_aggregates_over_environments_are_those_of_rliable(rliable: ModuleType) -> None:  # noqa: F811
    x, y = samples(seeds=6, environments=3), samples(seeds=5, environments=3, shift=0.2)
    ours, scores = aggregate_across(x), np.stack(x, axis=1)
    theirs = rliable.metrics.aggregate_iqm
    assert ours["value"] == pytest.approx(theirs(scores)) == pytest.approx(iqm(np.concatenate(x)))
    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator, whatever it is given
    drawn = rliable.library.StratifiedBootstrap(scores).apply(lambda each: np.array([theirs(each)]), 5_000)[:, 0]
    assert ours["low"] is not None and ours["high"] is not None
    assert near_the_tails((ours["low"], ours["high"]), drawn)
    other = np.stack(y, axis=1)
    improvement = improvement_across(x, y)
    assert improvement["value"] == pytest.approx(rliable.metrics.probability_of_improvement(scores, other))
    thresholds = np.linspace(-0.5, 1.5, 21)
    value, low, high = performance_profile(x, thresholds)
    theirs = [rliable.library.run_score_deviation(scores, threshold) for threshold in thresholds]
    assert value == pytest.approx(theirs)
    assert np.all(low <= value) and np.all(value <= high) and RESAMPLES >= 2000


def test_environments_count_the_same_whatever_their_seeds() -> None:
    easy, hard = np.full(4, 1.0), np.zeros(4)
    one, other = (aggregate_across(each)["value"] for each in ([easy, hard[:2]], [easy[:2], hard]))
    assert one == other == pytest.approx(0.5)
    uneven, thresholds = [np.array([0.0, 4.0]), np.array([1.0, 2.0, 3.0])], np.array([0.5, 2.5])
    # Of weights of a half and a third each, the middle half is all of 1, 2 and 3.
    assert aggregate_across(uneven)["value"] == pytest.approx(2.0)
    assert aggregate_across(uneven, "mean")["value"] == pytest.approx(2.0)
    assert aggregate_across([np.array([4.0, 4.0]), uneven[1]])["value"] == pytest.approx(2 / 6 + 3 / 3 + 4 / 2)
    value, low, high = performance_profile(uneven, thresholds)
    assert (
        value == pytest.approx([(1 / 2 + 1) / 2, (1 / 2 + 1 / 3) / 2])
        and np.all(low <= value)
        and np.all(value <= high)
    )
    even = samples(seeds=8, environments=3)
    again = aggregate_across([np.repeat(even[0], 2), *even[1:]])
    assert again["value"] == pytest.approx(aggregate_across(even)["value"])
    assert again["low"] is not None and again["high"] is not None and again["low"] < again["value"] < again["high"]


def test_a_metric_that_some_sessions_lack_flatters_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = "frames_to_solve"
    values = {"a/A": (1, 1, 1, 1), "a/B": (1, None, 1, 1), "b/A": (2, 3, 4, 5), "b/B": (2, 3, 4, 5)}
    sides = {Path(name): entry(name, each, metric, environment(name[-1])) for name, each in values.items()}
    for number, side in enumerate(sides.values()):  # on success, at different frames
        stopped = [replace(one, frames=90, frame=10 * number + 9, stopped="yes") for one in side.trial.sessions]
        side.trial = replace(side.trial, sessions=stopped)
    monkeypatch.setattr(compare_across, "_read_side", lambda path: [sides[path]])
    across, notes = compare_across.read_across([*sides], metric, ["a", "a", "b", "b"]) or (None, None)
    assert across and [setting.name for setting in across.ranking] == ["b"] and notes == []
    assert "Not ranked: a: B: seed 1 has no frames_to_solve." in across.describe()
    assert across.ranking[0].trials["A"].values(metric).tolist() == [2, 3, 4, 5], "and not as of an earlier frame"


def test_one_seed_has_no_interval() -> None:
    one = [np.array([0.2]), np.array([0.4])]
    assert aggregate_across(one) == {"value": pytest.approx(0.3), "low": None, "high": None}
    value, low, high = performance_profile(one, np.array([0.3]))
    assert value.tolist() == [0.5] and np.isnan([low[0], high[0]]).all()


def test_settings_are_grouped_by_the_names_of_their_specs_or_it_is_said_what_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sides: dict[Path, Entry] = {}
    monkeypatch.setattr(compare_across, "_read_side", lambda path: [sides[path]])
    for setting, env, gamma in (("old", "A", 0.9), ("old", "B", 0.8), ("new", "A", 0.7), ("new", "B", 0.6)):
        spec = {
            "name": f"{setting}_{env}",
            "algo": {"name": "a2c", "gamma": gamma},
            "tuning": {"source": f"search in {env}", "seeds": [1]},
            "env": {**environment(env)["env"], "name": env},
        }
        sides[Path(f"{setting}/{env}")] = entry(setting, (1.0, 2.0, 3.0, 4.0), "frames_to_solve", spec)
    across, _ = compare_across.read_across([*sides], "frames_to_solve") or (None, None)
    assert across and {setting.name for setting in across.ranking} == {"name=old", "name=new"}
    for path, side in sides.items():  # the same name: only a key tells settings apart
        side.trial.spec.update({"name": "a2c", "algo.gamma": {"old": 0.9, "new": 0.8}[path.parts[0]]})
    across, _ = compare_across.read_across([*sides], "frames_to_solve") or (None, None)
    assert across and {setting.name for setting in across.ranking} == {"gamma=0.9", "gamma=0.8"}
    sides[Path("new/B")].trial.spec["algo.name"] = "ppo"
    with pytest.raises(LabError, match=r"No two of these are in the same environment \(old: A, new: B\)"):
        compare_across.read_across([Path("old/A"), Path("new/B")], "frames_to_solve")
