"""The Optuna study of a sweep: its points do not depend on interruptions, and it gets outcomes as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler

from lab.errors import LabError
from lab.sweep.study import Outcome, Study

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": CategoricalDistribution(["a", "b", "c"])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def opened(path: Path | None, outcomes: dict[int, Outcome] | None = None, **changes: object) -> Study:
    arguments: dict = {"directions": ["maximize"], "pruner": NopPruner(), "space": SPACE, "path": path}
    study = Study(sampler=lambda number: RandomSampler(seed=100 + number), **{**arguments, **changes})
    study.open(outcomes or {})
    return study


def trials_of(path: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{path}").trials


def test_points_do_not_depend_on_interruptions(tmp_path: Path, path: Path) -> None:
    whole = opened(tmp_path / "whole.db")
    expected = [whole.ask() for _ in range(5)]
    outcomes: dict[int, Outcome] = {}
    points = []
    for number in range(5):
        points.append(opened(path, outcomes).ask())
        outcomes[number] = Outcome("completed", [float(number)])
    assert points == expected
    assert [number for number, _ in points] == [0, 1, 2, 3, 4]


def test_a_point_that_was_asked_for_but_never_started_is_asked_for_again(path: Path) -> None:
    first = opened(path)
    points = [first.ask() for _ in range(3)]
    # The process was killed before it wrote the directory of the last one.
    again = opened(path, {0: Outcome("completed", [1.0]), 1: Outcome("running")})
    assert again.ask() == points[2]


def test_the_defaults_are_the_first_point_and_are_asked_for_once(path: Path) -> None:
    values = {"x": 0.25, "y": "b"}
    random = [opened(None).ask(), opened(None, {0: Outcome("running")}).ask()][1]
    first = opened(path, defaults=values)
    assert first.ask() == (0, values)
    assert opened(path, defaults=values).ask() == (0, values), "it was never started"
    again = opened(path, {0: Outcome("completed", [1.0])}, defaults=values)
    assert again.ask() == random, "other points are those that there would be without them"
    assert len(trials_of(path)) == 2


def test_a_study_has_the_name_of_the_run_and_its_trials_describe_themselves(path: Path) -> None:
    first = opened(path, name="a2c_cartpole")
    first.describe(first.ask()[0], {"directory": "trial-000", "state": "running"})
    outcome = Outcome("completed", [1.0], attributes={"state": "completed"})
    first.tell(0, outcome)
    first.tell(0, outcome)  # as after the disk was full
    assert trials_of(path)[0].user_attrs == {"directory": "trial-000", "state": "completed"}
    opened(path, {0: Outcome("failed", attributes={"state": "failed"})}, name="renamed")
    assert optuna.get_all_study_names(f"sqlite:///{path}") == ["renamed"]
    assert trials_of(path)[0].user_attrs == {"directory": "trial-000", "state": "failed"}


def test_metrics_that_changed_are_told_again(path: Path) -> None:
    first = opened(path)
    for value in (1.0, 2.0):
        number, _ = first.ask()
        first.tell(number, Outcome("completed", [value]))
    opened(path, {0: Outcome("completed", [7.0]), 1: Outcome("failed")})
    trials = trials_of(path)
    assert [trial.values for trial in trials] == [[7.0], None]
    assert trials[1].state == optuna.trial.TrialState.FAIL
    assert set(trials[0].params) == {"x", "y"}


def test_a_trial_started_by_an_earlier_process_can_be_told(path: Path) -> None:
    opened(path).ask()
    again = opened(path, {0: Outcome("running")})
    assert again.report(0, 1, 0.5) is False
    again.tell(0, Outcome("completed", [3.0]))
    assert (trials_of(path)[0].values, trials_of(path)[0].intermediate_values) == ([3.0], {1: 0.5})


def test_a_trial_that_failed_has_no_value(path: Path) -> None:
    study = opened(path)
    for state in ("failed", "pruned", "completed"):
        number, _ = study.ask()
        study.tell(number, Outcome(state, [5.0] if state == "completed" else None))
    assert [(t.state.name, t.values) for t in trials_of(path)] == [
        ("FAIL", None),
        ("PRUNED", None),
        ("COMPLETE", [5.0]),
    ]


def test_the_pruner_compares_with_trials_of_an_earlier_process() -> None:
    outcomes = {number: Outcome("completed", [10.0], {1: 10.0, 2: 10.0}) for number in range(4)}
    study = opened(None, outcomes, pruner=MedianPruner(n_startup_trials=4, n_warmup_steps=0), space={})
    worse, better = study.ask()[0], study.ask()[0]
    assert study.report(worse, 1, 1.0)
    assert not study.report(better, 1, 20.0)


def test_a_pruner_of_a_grid_remembers_rungs_after_an_interruption() -> None:
    outcomes = {number: Outcome("completed", [10.0], dict.fromkeys(range(1, 10), 10.0)) for number in range(3)}
    study = opened(None, outcomes, pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3), space={})
    assert study.ask()[0] == 3
    assert study.report(3, 1, 1.0)


def test_a_trial_that_runs_again_reports_its_rungs_again(path: Path) -> None:
    first = opened(path, pruner=SuccessiveHalvingPruner(min_resource=1))
    first.ask()
    first.report(0, 1, 5.0)
    opened(path, {0: Outcome("running", None, {1: 5.0})}).report(0, 1, 7.0)
    assert trials_of(path)[0].intermediate_values == {1: 7.0}


def test_a_conditional_space_suggests_more() -> None:
    def extend(trial: optuna.Trial) -> None:
        if trial.params["y"] == "a":
            trial.suggest_float("z", 5.0, 6.0)

    study = opened(None, extend=extend)
    points = [study.ask()[1] for _ in range(12)]
    assert {("z" in point) == (point["y"] == "a") for point in points} == {True}
    assert {point["y"] for point in points} == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["a b", "{x}", "what?", "50%20", "é=,[1]'"])
def test_a_study_may_have_any_path(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / name / "study.db"
    opened(path).ask()
    assert len(opened(path, {0: Outcome("running")}).ask()[1]) == 2
    assert {entry.name for entry in (tmp_path / name).iterdir()} == {"study.db"}


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no database")])
def test_a_study_that_is_lost_or_damaged_is_a_sentence(path: Path, damage: Callable[[Path], object]) -> None:
    opened(path).ask()
    damage(path)
    with pytest.raises(LabError, match=r"study.db (holds 0 of 1 Trial started|cannot be read as an Optuna study)"):
        opened(path, {0: Outcome("running")})
