"""The study: numbers, points that do not depend on interruptions, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from lab.errors import LabError
from lab.sweep.study import Outcome, Study

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": CategoricalDistribution(["a", "b", "c"])}


def study(path: Path | None, pruner: optuna.pruners.BasePruner | None = None, **changes: object) -> Study:
    arguments: dict = {
        "directions": ["maximize"],
        "pruner": pruner or optuna.pruners.NopPruner(),
        "sampler": lambda number: optuna.samplers.RandomSampler(seed=100 + number),
        "space": SPACE,
        "path": path,
    }
    return Study(**{**arguments, **changes})


def trials_of(path: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="study", storage=f"sqlite:///{path}").trials


def opened(path: Path | None, begun: dict[int, Outcome] | None = None, **changes: object) -> Study:
    made = study(path, **changes)  # type: ignore[arg-type]
    made.open(begun or {})
    return made


def test_points_do_not_depend_on_interruptions(tmp_path: Path) -> None:
    whole = opened(tmp_path / "whole.db")
    expected = [whole.ask() for _ in range(5)]
    begun: dict[int, Outcome] = {}
    found = []
    for number in range(5):
        again = opened(tmp_path / "again.db", begun)
        found.append(again.ask())
        begun[number] = Outcome("completed", [float(number)])
    assert found == expected
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]


def test_a_point_that_was_asked_for_but_never_begun_is_asked_for_again(tmp_path: Path) -> None:
    first = opened(tmp_path / "study.db")
    points = [first.ask() for _ in range(3)]
    # The process was killed before it wrote the directory of the last one.
    again = opened(tmp_path / "study.db", {0: Outcome("completed", [1.0]), 1: Outcome("running")})
    assert again.ask() == points[2]


def test_figures_that_changed_are_told_afresh(tmp_path: Path) -> None:
    first = opened(tmp_path / "study.db")
    for value in (1.0, 2.0):
        number, _ = first.ask()
        first.tell(number, Outcome("completed", [value]))
    opened(tmp_path / "study.db", {0: Outcome("completed", [7.0]), 1: Outcome("failed")})
    trials = trials_of(tmp_path / "study.db")
    assert [trial.values for trial in trials] == [[7.0], None]
    assert trials[1].state == optuna.trial.TrialState.FAIL
    assert set(trials[0].params) == {"x", "y"}


def test_a_trial_begun_by_an_earlier_process_can_be_told(tmp_path: Path) -> None:
    opened(tmp_path / "study.db").ask()
    again = opened(tmp_path / "study.db", {0: Outcome("running")})
    assert again.report(0, 1, 0.5) is False
    again.tell(0, Outcome("completed", [3.0]))
    trial = trials_of(tmp_path / "study.db")[0]
    assert (trial.values, trial.intermediate_values) == ([3.0], {1: 0.5})


def test_nothing_that_failed_becomes_a_number(tmp_path: Path) -> None:
    made = opened(tmp_path / "study.db")
    for state in ("failed", "pruned", "completed"):
        number, _ = made.ask()
        made.tell(number, Outcome(state, [5.0] if state == "completed" else None))
    trials = trials_of(tmp_path / "study.db")
    assert [trial.state.name for trial in trials] == ["FAIL", "PRUNED", "COMPLETE"]
    assert [trial.values for trial in trials] == [None, None, [5.0]]


def test_the_pruner_compares_with_trials_of_an_earlier_process() -> None:
    begun = {number: Outcome("completed", [10.0], {1: 10.0, 2: 10.0}) for number in range(4)}
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0)
    made = opened(None, begun, pruner=pruner, space={})
    worse, better = made.ask()[0], made.ask()[0]
    assert made.report(worse, 1, 1.0)
    assert not made.report(better, 1, 20.0)


def test_a_conditional_space_suggests_more() -> None:
    def extend(trial: optuna.Trial) -> None:
        if trial.params["y"] == "a":
            trial.suggest_float("z", 5.0, 6.0)

    made = opened(None, extend=extend)
    points = [made.ask()[1] for _ in range(12)]
    assert {("z" in point) == (point["y"] == "a") for point in points} == {True}
    assert {point["y"] for point in points} == {"a", "b", "c"}


def test_a_pruner_of_a_grid_remembers_rungs_after_an_interruption() -> None:
    begun = {number: Outcome("completed", [10.0], dict.fromkeys(range(1, 10), 10.0)) for number in range(3)}
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    made = opened(None, begun, pruner=pruner, space={})
    number, _ = made.ask()
    assert number == 3
    assert made.report(number, 1, 1.0)


def test_a_trial_that_runs_again_comes_to_its_rungs_anew(tmp_path: Path) -> None:
    first = opened(tmp_path / "study.db", pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1))
    first.ask()
    first.report(0, 1, 5.0)
    again = opened(tmp_path / "study.db", {0: Outcome("running", None, {1: 5.0})})
    again.report(0, 1, 7.0)
    assert trials_of(tmp_path / "study.db")[0].intermediate_values == {1: 7.0}


@pytest.mark.parametrize("name", ["a b", "{x}", "what?", "50%20", "é=,[1]'"])
def test_a_study_may_lie_anywhere(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / name / "study.db"
    opened(path).ask()
    assert len(opened(path, {0: Outcome("running")}).ask()[1]) == 2
    assert {entry.name for entry in (tmp_path / name).iterdir()} == {"study.db"}


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no database")])
def test_a_study_that_is_lost_or_damaged_is_a_sentence(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "study.db"
    opened(path).ask()
    damage(path)
    with pytest.raises(LabError, match=r"study.db (holds 0 of the 1 Trials|cannot be read as an Optuna study)"):
        opened(path, {0: Outcome("running")})
