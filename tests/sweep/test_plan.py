"""The plan of a sweep: recorded values are those of the spec, points with equal specs are one, and stacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hypothesis import HealthCheck, given, settings

from lab.common.text import canonical, dump_yaml
from lab.run.directory import SweepDir
from lab.sweep.composer import Composer
from lab.sweep.overrides import make_point, parse, quote_exactly
from lab.sweep.plan import number_points, pack, resolve_point, select
from lab.trial import Point, Trial
from tests.helpers import CONF
from tests.sweep.test_composer import make_composer
from tests.sweep.test_overrides import VALUES

FIXED = ["algo=ppo", "env=pendulum", "~tuned"]


@pytest.fixture(scope="module")
def composer() -> Any:
    with initialize_config_dir(str(CONF)):
        yield make_composer()


def grid(composer: Composer, *overrides: str) -> tuple[list[Point], str]:
    sweep = parse([*FIXED, *overrides], None)
    return number_points(composer, sweep.fixed, sweep.grid(), [], [0])


def values(composer: Composer, *overrides: str) -> list[Any]:
    return [next(iter(point.hyperparameters.values())) for point in grid(composer, *overrides)[0]]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, VALUES)
def test_recorded_values_are_those_of_the_spec(composer: Composer, one: Any, other: Any) -> None:
    points, note = grid(composer, f"+env.kwargs.a={quote_exactly(one)},{quote_exactly(other)}")
    assert len(points) == (1 if canonical(one) == canonical(other) else 2) == 2 - bool(note)
    for point, value in zip(points, (one, other), strict=False):
        spec = composer.specs([*FIXED, *point.overrides], [0])[0]
        held = yaml.safe_load(dump_yaml(spec.to_dict()))["env"]["kwargs"]
        assert canonical(json.loads(json.dumps(point.hyperparameters))["env.kwargs.a"]) == canonical(held["a"])
        assert canonical(held) == canonical({"a": value})


def test_values_are_converted_and_interpolated(composer: Composer) -> None:
    assert values(composer, "frames=1e5,2e5") == [100_000, 200_000]
    assert values(composer, "algo.lr=1,2") == [1.0, 2.0]
    assert isinstance(values(composer, "algo.lr=1,2")[0], float)
    assert values(composer, "algo.lr=${algo.gamma},0.5") == [0.99, 0.5]
    assert values(composer, "algo.sil={gradient_steps:0},{gradient_steps:2}") == [
        {"gradient_steps": 0},
        {"gradient_steps": 2},
    ]
    assert values(composer, "+env.kwargs.table={a:1},{a:2}") == [{"a": 1}, {"a": 2}]
    assert values(composer, "name='007',7") == ["007", "7"]


def test_a_choice_of_a_group_and_a_value_of_the_seed_stay_as_written(composer: Composer) -> None:
    point = resolve_point(composer, ["env=pendulum"], make_point(["algo=a2c", "algo.lr=${seed}"]), [1, 2])
    assert point.hyperparameters == {"algo": "a2c", "algo.lr": "${seed}"}
    assert resolve_point(composer, FIXED, make_point(["algo.lr=${seed}"]), [2]).hyperparameters == {"algo.lr": 2.0}
    impossible = make_point(["algo.lr=fast"])
    assert resolve_point(composer, FIXED, impossible, [0]) == impossible


def test_points_are_the_same_if_their_specs_are(composer: Composer) -> None:
    points, note = grid(composer, "algo.lr=1e-3,0.001", "algo.sil.gradient_steps=1,1.0,2")
    assert [point.hyperparameters["algo.sil.gradient_steps"] for point in points] == [1, 2]
    assert note == (
        "Of the 6 points, 2 are different: algo.lr=0.001 algo.sil.gradient_steps=1 = algo.lr=0.001"
        " algo.sil.gradient_steps=1.0, algo.lr=0.001 algo.sil.gradient_steps=2 are trained once."
    )
    assert len(values(composer, "+env.kwargs.a='007',7,7.0,'7',true,1,'true',null,'null',[1],[true]")) == 11


def test_started_trials_keep_their_numbers(composer: Composer, tmp_path: Path) -> None:
    started = [
        Trial(SweepDir(tmp_path).trial(number), FIXED, make_point([override]), [0])
        for number, override in enumerate(["algo.lr=0.1", "algo.lr=1e-3"])
    ]
    sweep = parse([*FIXED, "algo.lr=0.5,0.001,.1"], None)
    points, note = number_points(composer, sweep.fixed, sweep.grid(), started, [0])
    assert [point.hyperparameters["algo.lr"] for point in points] == [0.1, 0.001, 0.5]
    assert not note


def test_a_key_of_a_spec_is_selected() -> None:
    assert select({"a": {"b": [1]}}, "a.b") == [1]
    assert select({"a": 1}, "a.b") is select({}, "a")
    assert select({"algo": {"optimizer": {"lr": 0.1}}}, "algo.lr") == 0.1


@pytest.mark.parametrize(
    ("remaining", "seeds", "slots", "pruning", "stack"),
    [(4, 4, 2, False, 2), (4, 4, 8, False, 1), (24, 4, 2, False, 4), (5, 4, 2, False, 3), (0, 4, 2, False, 1),
     (2, 2, 2, True, 2)],
)  # fmt: skip
def test_sessions_are_stacked_such_that_no_slot_is_idle(
    remaining: int, seeds: int, slots: int, pruning: bool, stack: int
) -> None:
    assert pack(remaining, seeds, slots, pruning) == stack
