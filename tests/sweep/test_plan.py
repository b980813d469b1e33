"""The plan of a sweep: recorded values are those of the spec, points with equal specs are one, and stacks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from hydra import initialize_config_dir
from hypothesis import HealthCheck, given, settings

from lab.common.text import canonical, dump_yaml
from lab.run.directory import SweepDir
from lab.sweep.composer import Composer
from lab.sweep.overrides import make_point, parse, quote_exactly
from lab.sweep.plan import SweepPlan, limit_stack, make_plan, number_points, pack, resolve_point, select
from lab.sweep.preview import describe_jobs
from lab.sweep_spec import ObjectiveSpec, SearchSpec
from lab.trial import Point, Trial, pack_jobs
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
    ("remaining", "slots", "stack"),
    [(64, 2, 32), (4, 2, 2), (4, 8, 1), (5, 2, 3), (0, 2, 1), (100, 2, 25), (1000, 2, 32), (24, 256, 1)],
)
def test_sessions_are_stacked_such_that_no_slot_is_idle(remaining: int, slots: int, stack: int) -> None:
    assert pack(remaining, slots, 32) == stack


def plan_of(composer: Composer, folder: Path, *overrides: str, slots: int = 2, **settings: Any) -> SweepPlan:
    """Plan a sweep of two seeds; overrides are those of its command line."""
    search = SearchSpec({}, n_trials=20) if settings.pop("search", False) else None
    defaults = {"objective": ObjectiveSpec(["return"], ["maximize"], "mean"), "rungs": 10, "stack": "auto",
                "parallel": None, "only_trial": None, "detach": False, "retry": False, "search": search}  # fmt: skip
    composer.directory, composer.launcher = (
        SweepDir(folder),
        cast("Any", SimpleNamespace(slots=slots, free_memory=lambda: 10e9)),
    )
    swept = parse([*FIXED, *overrides, "seed=0,1"], search)
    for part, default in (("sampler", "GridSampler"), ("pruner", "NopPruner")):
        if getattr(composer, part) is None:
            setattr(composer, part, cast("Any", {"_target_": default}))
    return make_plan(composer, cast("Any", SimpleNamespace(**{**defaults, **settings})), swept)


@pytest.mark.parametrize(
    ("sampler", "pruner", "settings", "stack", "parallel"),
    [
        ("GridSampler", "NopPruner", {}, 10, 10),  # a grid: 20 Sessions in two slots
        ("GridSampler", "NopPruner", {"stack": "4"}, 4, 10),
        ("GridSampler", "NopPruner", {"parallel": 4}, 4, 4),
        ("GridSampler", "MedianPruner", {}, 2, 2),  # a pruner judges a Trial by its own Sessions
        ("RandomSampler", "NopPruner", {"search": True}, 20, 20),
        ("RandomSampler", "NopPruner", {"search": True, "slots": 1}, 20, 10),
        ("TPESampler", "NopPruner", {"search": True}, 2, 2),  # learns from one Trial to the next
        ("TPESampler", "NopPruner", {"search": True, "stack": "8"}, 2, 2),
    ],
)
def test_trials_share_stacks_unless_one_waits_for_another(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    sampler: str, pruner: str, settings: dict[str, Any], stack: int, parallel: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(composer, "sampler", {"_target_": f"optuna.samplers.{sampler}"})
    monkeypatch.setattr(composer, "pruner", {"_target_": f"optuna.pruners.{pruner}"})
    rates = ",".join(f"{number}e-4" for number in range(1, 11))
    space = "algo.lr=interval(0.1,0.2)" if "search" in settings else f"algo.lr={rates}"
    plan = plan_of(composer, tmp_path, space, **settings)
    assert (plan.stack, plan.parallel) == (stack, parallel)


def test_stacks_fill_a_gpu_and_replay_memories_fit(
    composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = f"algo.lr={','.join(f'{number}e-4' for number in range(1, 101))}"
    plan = plan_of(composer, tmp_path, rates)
    assert plan.stack == 25, "200 Sessions in two slots: four rounds of stacks of at most 32"
    limit_stack(plan, 0)
    assert plan.stack == 25
    limit_stack(plan, int(1e9))
    assert plan.stack == 8
    limit_stack(plan, int(1e12))
    assert plan.stack == 1
    monkeypatch.setitem(composer.config, "device", "cuda")
    plan = plan_of(composer, tmp_path, rates)
    limit_stack(plan, int(1e12))
    assert plan.stack == 100, "the job measures how many of them fit"


def test_jobs_hold_trials_that_differ_in_numbers_alone(composer: Composer, tmp_path: Path) -> None:
    swept = ("algo.lr=1e-3,2e-3", "algo.batch_size=64,128", "algo.sil.value_coef=0.1,0.2")
    plan = plan_of(composer, tmp_path, *swept, stack="8")
    assert plan.points
    trials = [plan.trial(number, point) for number, point in enumerate(plan.points)]
    jobs = pack_jobs(trials, plan.stack, plan.group)
    assert [job.trials for job in jobs] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert "algo.batch_size=128" in jobs[1].overrides
    assert describe_jobs(plan) == (
        "Up to 8 Sessions of Trials that differ in numbers alone in a job; up to 2 jobs at the same time."
    )


def test_values_that_hydra_merges_and_choices_are_not_set_by_a_job(composer: Composer) -> None:
    lines = ["algo=ppo", "algo.lr=0.1", "+env.kwargs.a=1", "algo.sil={gradient_steps:2}", "~tuned"]
    assert composer.outline(lines) == ("algo=ppo", "algo.lr", "env.kwargs.a", "algo.sil={gradient_steps:2}", "~tuned")
