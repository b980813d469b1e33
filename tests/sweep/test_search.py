"""Samplers and pruners of a search, as their configs describe them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from optuna.distributions import FloatDistribution
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler

from lab.sweep.search import instantiate_optuna, make_sampler
from lab.sweep.study import Study
from lab.trial import Outcome
from tests.helpers import CONF


def hydra_of(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        return compose("config", [*overrides], return_hydra_config=True).hydra


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "nsgaii", "nsgaiii", "gp", "qmc"])
def test_every_sampler_continues_after_an_interruption(tmp_path: Path, name: str) -> None:
    config = hydra_of(f"hydra/sweeper/sampler={name}").sweeper.sampler
    space = {"x": FloatDistribution(1e-4, 1e-1, log=True), "y": FloatDistribution(0.0, 1.0)}
    outcomes: dict[int, Outcome] = {}
    points = []
    for number in range(14):
        if number % 5 == 0:  # as after an interruption
            path = tmp_path / "study"
            study = Study(["maximize"], NopPruner(), lambda number: make_sampler(config, number), space, None, path,
                          "name", {"x": 0.01, "y": 0.5})  # fmt: skip
            study.open(outcomes)
        points.append(study.ask())
        outcomes[number] = Outcome("completed", [float(number % 5)])
        study.tell(number, outcomes[number])
    assert [number for number, _ in points] == list(range(14))
    assert points[0][1] == {"x": 0.01, "y": 0.5}, "the defaults come first"
    assert len({json.dumps(values) for _, values in points}) == 14, "no point is tried twice"
    assert all(1e-4 <= values["x"] <= 1e-1 for _, values in points)


@pytest.mark.parametrize("name", ["median", "percentile", "asha", "hyperband", "wilcoxon"])
def test_every_pruner_stops_bad_trials_and_spares_the_best(name: str) -> None:
    config = hydra_of(f"hydra/sweeper/pruner={name}").sweeper.pruner
    study = Study(["maximize"], instantiate_optuna(config), lambda _: RandomSampler(0), {}, None)
    study.open({})
    pruned = {}
    for level in (100.0, 90.0, 95.0, 80.0, 5.0, 4.0, 3.0, 2.0, 110.0):
        number, _ = study.ask()
        pruned[level] = any(study.report(number, rung, level + rung) for rung in range(1, 10))
        study.tell(number, Outcome("pruned" if pruned[level] else "completed", [level]))
    assert not pruned[110.0]
    assert not pruned[100.0]
    assert any(pruned[level] for level in (5.0, 4.0, 3.0, 2.0))
