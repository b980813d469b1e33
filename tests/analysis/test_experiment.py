"""Ranking, importance and the metrics of an Experiment."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lab.analysis.experiment import (
    Experiment,
    experiment_results,
    rank_rows,
    read_experiment,
    trials_table,
)
from lab.analysis.importance import distribution, ped_anova
from lab.analysis.objective import Objective
from lab.analysis.statistics import interval
from lab.analysis.trial import Trial
from lab.run.directory import SweepDir
from lab.run.files import write_json
from tests import synthetic
from tests.analysis.test_trial import session, trial
from tests.helpers import ROOT

RETURN = Objective(("return",), ("maximize",), "mean")
SOLVE = Objective(("frames_to_solve",), ("minimize",), "mean")
BOTH = Objective(("return", "frames_to_solve"), ("maximize", "minimize"), "mean")
STATES = {(1, 0): "failed", (2, 3): "pruned", (4, 1): "running", (5, 2): "pending"}


def experiment(*trials: Trial, objective: Objective = RETURN, sweep: dict[str, Any] | None = None) -> Experiment:
    return Experiment(SweepDir("."), sweep or {}, objective, [*trials])


def of_values(number: int, *values: float, metric: str = "return", **hyperparameters: object) -> Trial:
    sessions = [session(seed, **{metric: value}) for seed, value in enumerate(values)]
    return trial(*sessions, number=number, **hyperparameters)


def test_the_ranking_by_hand() -> None:
    made = experiment(of_values(0, 1, 3), of_values(1, 6, 8), of_values(2, 4, 4))
    assert [(each.rank, each.trial.number, each.values) for each in made.ranking] == [
        (1, 1, [7.0]), (2, 2, [4.0]), (3, 0, [2.0])
    ]  # fmt: skip
    assert made.best is made.ranking[0]
    low, high = interval(np.array([1.0, 3]), "mean")
    assert made.ranking[2].estimates == [{"value": 2.0, "low": low, "high": high}]
    assert made.ranking[0].improvement == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert made.ranking[2].improvement is None, "no Trial comes after the last"


def test_less_may_be_better() -> None:
    trials = [
        of_values(number, *values, metric="frames_to_solve") for number, values in enumerate([(9, 9), (1, 3), (2, 4)])
    ]
    made = experiment(*trials, objective=SOLVE)
    assert [each.trial.number for each in made.ranking] == [1, 2, 0]
    # Of the pairs (1, 2), (1, 4), (3, 2), (3, 4) three are lower on the left.
    assert made.ranking[0].improvement
    assert made.ranking[0].improvement["value"] == 0.75


def test_trials_are_ranked_within_their_environment() -> None:
    def of_env(number: int, env: str, lr: float, *values: float) -> Trial:
        sessions = [session(seed, spec={"env": {"id": env}}, **{"return": value}) for seed, value in enumerate(values)]
        return trial(*sessions, number=number, **{"env.id": env, "algo.lr": lr})

    trials = [of_env(n, "A", n, n + 100, n + 101) for n in range(9)] + [
        of_env(9, "B", 0, -3, -4),
        of_env(10, "B", 1, -1, -2),
    ]
    unread = trial(session(0, "pending"), number=11, **{"env.id": "B", "algo.lr": 2})
    made = experiment(*trials, unread)
    places = [(each.rank, each.trial.number) for each in made.ranking]
    assert places == [*((1 + n, 8 - n) for n in range(9)), (1, 10), (2, 9)]
    assert made.best is None
    assert [each.trial.number for each in made.front] == [8, 10]
    assert made.ranking[8].improvement is None, "the last of A is not compared with the first of B"
    assert made.ranking[9].improvement == {"value": 1.0, "low": 1.0, "high": 1.0}
    results = experiment_results(made)
    assert results["environments"] == ["A", "B"]
    assert results["importance"] == {"A": {"algo.lr": 1.0}, "B": {}}
    assert [entry["environment"] for entry in results["ranking"]] == ["A"] * 9 + ["B"] * 2
    assert trials_table(made)["environment"].tolist() == ["A"] * 9 + ["B"] * 2 + ["unknown"]
    assert "In B: 2 of 2 Trials ranked, over algo.lr; the best by mean return: -1.5" in made.describe()


def test_ties_share_a_rank_and_keep_the_order_of_numbers() -> None:
    made = experiment(of_values(0, 2, 2), of_values(1, 5, 5), of_values(2, 4, 6), of_values(3, 1, 1))
    assert [(each.rank, each.trial.number) for each in made.ranking] == [(1, 1), (1, 2), (3, 0), (4, 3)]


def test_a_trial_of_one_seed_has_no_interval() -> None:
    made = experiment(of_values(0, 2), of_values(1, 5))
    assert made.ranking[0].estimates == [{"value": 5.0, "low": None, "high": None}]
    assert made.ranking[0].improvement == {"value": 1.0, "low": None, "high": None}


@pytest.mark.parametrize("state", ["failed", "pruned", "running", "interrupted", "pending"])
def test_a_trial_with_a_session_that_did_not_complete_is_not_ranked(state: str) -> None:
    broken = trial(session(0, **{"return": 99.0}), session(1, state, **{"return": 99.0}), number=1)
    made = experiment(of_values(0, 1, 1), broken)
    assert [each.trial.number for each in made.ranking] == [0]
    ((unranked, reason),) = made.unranked
    assert unranked is broken
    assert reason.startswith("seed 1 ")
    assert experiment_results(made)["best"]["trial"] == 0


def test_several_objectives_are_ranked_by_fronts() -> None:
    def of_both(number: int, value: float, frames: float) -> Trial:
        return trial(session(0, **{"return": value, "frames_to_solve": frames}), number=number)

    # 0 and 2 are on the Pareto front, 1 and 4 are behind one of them, and 3 is behind 1.
    points = [(9, 900), (8, 950), (5, 100), (7, 990), (9, 901)]
    made = experiment(*(of_both(number, *point) for number, point in enumerate(points)), objective=BOTH)
    assert [(each.rank, each.trial.number) for each in made.ranking] == [(1, 0), (1, 2), (2, 4), (3, 1), (4, 3)]
    assert made.best is None
    results = experiment_results(made)
    assert results["pareto"] == [0, 2]
    assert results["best"] is None
    assert results["ranking"][1]["objective"]["frames_to_solve"]["value"] == 100.0
    assert all(each.improvement is None for each in made.ranking)


@given(arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 4).map(float)))
def test_a_front_is_what_nothing_left_dominates(values: np.ndarray) -> None:
    def dominated(row: np.ndarray, rows: np.ndarray) -> bool:
        return any((other >= row).all() and (other > row).any() for other in rows)

    ranks = rank_rows(values)
    for row, rank in zip(values, ranks, strict=True):
        assert not dominated(row, values[ranks >= rank])
        assert rank == 1 or dominated(row, values[ranks == rank - 1])


@given(arrays(float, st.tuples(st.integers(1, 12), st.just(1)), elements=st.integers(0, 4).map(float)))
def test_a_rank_is_one_more_than_how_many_are_better(values: np.ndarray) -> None:
    assert rank_rows(values).tolist() == [1 + sum(other > row for other in values[:, 0]) for row in values[:, 0]]


def test_hyperparameters_are_the_swept_ones_that_differ() -> None:
    made = experiment(
        of_values(0, 1, **{"algo": "a2c", "env": "cartpole", "net.hidden": [64]}),
        of_values(1, 1, **{"algo": "ppo", "env": "cartpole", "net.hidden": [64, 64]}),
    )
    assert made.hyperparameters == ["algo", "net.hidden"]
    assert made.point(made.trials[1]) == {"algo": "ppo", "net.hidden": [64, 64]}


def test_hyperparameters_come_from_the_specs_if_nothing_says_what_was_swept() -> None:
    def of_spec(number: int, lr: float) -> Trial:
        spec = {"algo": {"lr": lr, "gamma": 0.99, "betas": [0.9, lr]}}
        return trial(session(number, spec=spec, **{"return": lr}), number=number)

    made = experiment(of_spec(0, 0.1), of_spec(1, 0.2))
    assert made.hyperparameters == ["algo.lr", "algo.betas"]
    assert made.point(made.trials[0]) == {"algo.lr": 0.1, "algo.betas": [0.9, 0.1]}


def test_a_trial_without_a_spec_differs_in_nothing() -> None:
    made = experiment(trial(session(0, "failed"), number=0), trial(session(1, spec={"algo": {"lr": 0.5}}), number=1))
    assert made.hyperparameters == []


def test_a_directory_in_which_nothing_was_written_is_no_trial(tmp_path: Path) -> None:
    sweep = synthetic.experiment(tmp_path, trials=2, seeds=1, rows=4)
    sweep.trial(2).path.mkdir()
    assert [each.number for each in read_experiment(sweep).trials] == [0, 1]


def test_a_hyperparameter_that_a_trial_was_not_given_has_the_value_of_its_spec() -> None:
    one = of_values(0, 1, **{"algo.lr": 0.1})
    other = trial(session(0, spec={"algo": {"lr": 0.5}}, **{"return": 1.0}), number=1)
    assert experiment(one, other).point(other) == {"algo.lr": 0.5}


def test_importance_finds_what_matters(tmp_path: Path) -> None:
    made = read_experiment(synthetic.experiment(tmp_path, trials=40, seeds=1, rows=10))
    importance = made.importance
    assert sum(importance.values()) == pytest.approx(1)
    assert list(importance.values()) == sorted(importance.values(), reverse=True)
    assert set(importance) == {"algo.lr", "algo.gamma", "algo.advantage"}
    # The made-up level hangs on the learning rate and the discount, and hardly on how the advantage is computed.
    assert importance["algo.advantage"] < 0.1


def lines_of_trials(n: int, objective: Objective = RETURN, **metrics: float) -> Experiment:
    def of_number(number: int) -> Trial:
        made = {metric: metrics.get(metric, float(number)) for metric in objective.metrics}
        return trial(session(0, **made), number=number, **{"algo.lr": 0.1 * number, "algo.n_step": number % 2})

    return experiment(*map(of_number, range(n)), objective=objective)


def test_importance_needs_ranked_trials_that_differ() -> None:
    assert lines_of_trials(7).importance == {}, "too few"
    assert list(lines_of_trials(8).importance) == ["algo.lr", "algo.n_step"]
    assert lines_of_trials(20, **{"return": 1.0}).importance == {}, "equal values"
    assert experiment(*(of_values(number, number) for number in range(10))).importance == {}, "no hyperparameters"
    assert lines_of_trials(12, BOTH).importance == lines_of_trials(12).importance, "that of the first objective"
    made = lines_of_trials(8)
    made.trials[3].sessions[0].state = "failed"
    assert made.importance == {}, "too few ranked"


def test_importance_has_a_direction() -> None:
    # The low half of x has the high values, and only there does y matter.
    columns = {"x": [i / 20 for i in range(20)], "y": ["ab"[i % 2] for i in range(20)]}
    values = np.array([10.0 + 5 * (i % 2) if i < 10 else -i for i in range(20)])
    assert ped_anova(columns, values) != ped_anova(columns, -values)


def test_importance_copes_with_ties_at_the_top() -> None:
    # All but one Trial reach the ceiling, so that any threshold would take in all of the good ones.
    columns = {"x": [float(i) for i in range(10)], "y": ["a"] * 5 + ["b"] * 5}
    actual = ped_anova(columns, np.array([0.0] + [500.0] * 9))
    assert sum(actual.values()) == pytest.approx(1)
    assert actual["x"] > 0


def test_importance_copes_with_values_of_any_kind() -> None:
    columns: dict[str, list[Any]] = {
        "list": [[64], [64, 64]] * 10,
        "bool": [True, False, True, True] * 5,
        "missing": [None, 0.5] * 10,
        "int": [2**i for i in range(20)],
        "float": [10.0**-i for i in range(20)],
        "number": [1, 2.5] * 10,
    }
    assert set(ped_anova(columns, np.arange(20.0))) == set(columns)


def test_distributions_are_read_off_the_values() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert distribution([1e-4, 1e-2]) == FloatDistribution(1e-4, 1e-2, log=True)
    assert distribution([0.9, 0.99]) == FloatDistribution(0.9, 0.99)
    assert distribution([-1.0, 1000.0]) == FloatDistribution(-1.0, 1000.0)
    assert distribution([1, 2.5]) == FloatDistribution(1.0, 2.5)
    assert distribution([3, 5]) == IntDistribution(3, 5)
    assert distribution([1, 1024]) == IntDistribution(1, 1024, log=True)
    assert distribution([True, False]) == CategoricalDistribution(["false", "true"])
    assert distribution(["ppo", "a2c", "ppo"]) == CategoricalDistribution(["a2c", "ppo"])


def test_optuna_is_quiet_and_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.INFO)
    try:
        assert lines_of_trials(10).importance
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_results_by_hand(tmp_path: Path) -> None:
    sweep = synthetic.experiment(tmp_path, trials=6, seeds=4, rows=10, states=STATES)
    results = experiment_results(read_experiment(sweep))
    # One that says it is running, but whose process is gone, was interrupted.
    states = {"completed": 2, "failed": 1, "interrupted": 1, "pending": 1, "pruned": 1}
    assert results["trials"] == {"planned": 6, "started": 6, "ranked": 2, **states}
    assert results["sessions"]["planned"] == 24
    assert results["sessions"]["completed"] == 20
    assert results["best"] == results["ranking"][0]
    assert results["best"]["hyperparameters"].keys() == {"algo.lr", "algo.gamma", "algo.advantage"}
    assert [entry["rank"] for entry in results["ranking"]] == [1, 2]
    assert {entry["trial"] for entry in results["unranked"]} == {1, 2, 4, 5}
    assert [entry["trial"] for entry in results["not_completed"]] == [1, 2, 4, 5]
    assert results["not_completed"][0] == {
        "trial": 1, "seed": 0, "state": "failed", "error": "RuntimeError: the environment broke",
        "log": "trial-001/seed-0/session.log",
    }  # fmt: skip
    assert results["not_completed"][3]["log"] is None
    assert "pareto" not in results


def test_trials_that_are_planned_and_not_started_are_counted() -> None:
    made = experiment(of_values(0, 1, 1), sweep={"trials": 5, "seeds": [0, 1]})
    results = experiment_results(made)
    assert results["trials"] == {"planned": 5, "started": 1, "ranked": 1, "completed": 1}
    assert results["sessions"] == {"planned": 10, "completed": 2}


def test_an_experiment_of_which_nothing_is_there_yet_has_results(tmp_path: Path) -> None:
    write_json(SweepDir(tmp_path).sweep, {"objective": RETURN.to_dict(), "trials": 3, "seeds": [0]})
    made = read_experiment(SweepDir(tmp_path))
    results = experiment_results(made)
    assert results["best"] is None
    assert results["ranking"] == results["unranked"] == []
    assert results["sessions"] == {"planned": 3, "completed": 0}
    assert len(trials_table(made)) == 0


def test_an_experiment_of_which_every_session_failed_has_results(tmp_path: Path) -> None:
    states = {(t, s): "failed" for t in range(2) for s in range(2)}
    made = read_experiment(synthetic.experiment(tmp_path, trials=2, seeds=2, rows=4, states=states))
    results = experiment_results(made)
    assert results["best"] is None
    assert results["trials"]["ranked"] == 0
    assert [entry["reason"] for entry in results["unranked"]] == ["seeds 0 and 1 failed"] * 2
    assert trials_table(made)["rank"].isna().all()


def test_the_table_has_a_row_for_each_trial(tmp_path: Path) -> None:
    sweep = synthetic.experiment(tmp_path, trials=6, seeds=4, rows=10, states=STATES)
    made = read_experiment(sweep)
    table = trials_table(made)
    assert table["trial"].tolist() == list(range(6))
    assert table["completed"].tolist() == [4, 3, 3, 4, 3, 3]
    assert table["planned"].tolist() == [4] * 6
    best = table.set_index("trial").loc[made.ranking[0].trial.number]
    assert best["rank"] == 1
    ends = [best["objective_return"], best["objective_return_low"], best["objective_return_high"]]
    assert ends == list(made.ranking[0].estimates[0].values())
    assert table["algo.lr"].tolist() == [each.hyperparameters["algo.lr"] for each in made.trials]
    # Of a Trial that is not ranked the means stand beside how many Sessions they are of.
    assert table["return_mean"][1] == made.trials[1].values("return").mean()
    assert table["rank"][1] is not None
    text = table.to_csv(index=False).splitlines()
    assert text[0].startswith("trial,environment,state,completed,planned,rank,objective_return,objective_return_low")
    assert ",1," in text[1 + made.ranking[0].trial.number], "ranks are whole numbers"


def test_the_same_results_give_the_same_bytes_wherever_they_are(tmp_path: Path) -> None:
    actual = []
    for folder in (tmp_path / "here", tmp_path / "somewhere else"):
        sweep = synthetic.experiment(folder, trials=10, seeds=3, rows=10, states={(1, 0): "failed", (2, 2): "pruned"})
        made = read_experiment(sweep)
        write_json(sweep.results, experiment_results(made))
        actual.append((sweep.results.read_bytes(), trials_table(made).to_csv()))
    assert actual[0] == actual[1]
    assert str(tmp_path) not in actual[0][0].decode()
    assert json.loads(actual[0][0])["importance"]


def test_another_process_finds_the_same_importance(tmp_path: Path) -> None:
    synthetic.experiment(tmp_path, trials=12, seeds=1, rows=6)
    code = (
        "import sys; from lab.analysis.experiment import *;"
        "print(list(read_experiment(SweepDir(sys.argv[1])).importance.items()))"
    )
    actual = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        actual.add(subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=environment))
    assert len(actual) == 1
    assert b"algo.lr" in actual.pop()


@pytest.mark.slow
def test_a_thousand_sessions_are_read_and_ranked_in_seconds(tmp_path: Path) -> None:
    sweep = synthetic.experiment(tmp_path, trials=250, seeds=4)
    code = (
        "import resource, sys, time; start = time.perf_counter(); from lab.analysis.experiment import *;"
        "from lab.analysis.trial import trial_results; made = read_experiment(SweepDir(sys.argv[1]));"
        "[trial_results(trial) for trial in made.trials]; experiment_results(made); trials_table(made);"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.check_output([sys.executable, "-c", code, str(sweep.path)], cwd=ROOT, text=True)
    seconds, megabytes = map(float, done.split())
    print(f"{seconds:.1f} s, {megabytes:.0f} MB")
    assert seconds < 20
    assert megabytes < 500
