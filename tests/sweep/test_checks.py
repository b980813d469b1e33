"""Objectives that Sessions of a spec can and cannot have."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lab.analysis.objective import Objective
from lab.analysis.session import read_session
from lab.errors import LabError
from lab.run.directory import SweepDir
from lab.run.schemas import METRICS
from lab.sweep.checks import first_rows, last_frame, refuse_other_search, require_possible
from tests.helpers import CONF, specs, train

A2C = ("algo=a2c", "env=cartpole", "~tuned", "algo.horizon=16", "frames=2000", "log.every=500", "eval.every=500")
REFERENCE = "needs the mean return of random actions"


def objective(*metrics: str) -> Objective:
    return Objective(metrics, ("maximize",) * len(metrics), "mean")


@pytest.mark.parametrize(
    ("metric", "overrides", "sentence"),
    [
        ("eval_return", "eval.every=0", r"metric=eval_return is not possible with eval\.every=0, .* Set eval"),
        ("eval_best", "eval.every=0", "eval.every=0"),
        ("strength", "env.id=CartPole-v0", f"env.id=CartPole-v0, as it {REFERENCE}, and only that of CartPole-v1 is"),
        ("max_strength", "+env.kwargs.sutton_barto_reward=true", r"env.kwargs=\{sutton_barto_reward:true\}.* Leave"),
        ("max_strength", "env.max_episode_steps=100", r"env.max_episode_steps=100.* Leave env.max_episode_steps out"),
        ("final_strength", "env.reference.random_return=null", "return=null, .* set env.reference.random_return"),
        ("sample_efficiency", "env.reference.id=null", "and that is not known"),
        ("training_efficiency", "env.reference.random_return=null", REFERENCE),
        ("stability", "env.reference.random_return=null", REFERENCE),
        ("stability", "log.every=2000 eval.every=0", "needs two log intervals. Lower log.every"),
        ("frames_to_solve", "env.reference.solved=null", "the return that counts as solved"),
    ],
)
def test_an_impossible_objective_is_refused(metric: str, overrides: str, sentence: str) -> None:
    spec = specs(*A2C, *overrides.split())[0]
    for metrics in ((metric,), ("return", metric)):
        with pytest.raises(LabError, match=sentence):
            require_possible(objective(*metrics), spec)
    require_possible(objective("return", "best", "length", "episodes"), spec)


@pytest.mark.parametrize(
    ("metric", "overrides", "sentence"),
    [
        ("eval_return", "eval.every=2000", "no evaluation before the last rung, at frame 1,800"),
        ("eval_return", "eval.every=1850", "no evaluation before the last rung"),
        ("return", "log.every=2000 eval.every=0", "too little is logged before the last rung"),
        ("stability", "log.every=1900 eval.every=0", "too little is logged before the last rung"),
        ("frames_to_solve", "", "no Session has it before it has solved its environment"),
    ],
)
def test_an_objective_that_a_pruner_cannot_judge_is_refused(metric: str, overrides: str, sentence: str) -> None:
    spec = specs(*A2C, *overrides.split())[0]
    with pytest.raises(LabError, match=f"A pruner cannot judge objective.metric={metric}: .*{sentence}"):
        require_possible(objective(metric), spec, 10)
    require_possible(objective(metric), spec)


def test_every_objective_is_possible_in_a_known_environment() -> None:
    spec = specs(*A2C)[0]
    require_possible(objective(*METRICS), spec)
    for metric in METRICS:
        if metric != "frames_to_solve":
            require_possible(objective(metric), spec, 10)


def test_an_evaluation_at_the_end_is_enough_without_a_pruner(tmp_path: Path) -> None:
    overrides = (*A2C, "frames=300", "log.every=100", "eval.every=100000", "eval.episodes=1")
    spec = specs(*overrides)[0]
    require_possible(objective("eval_return", "stability"), spec)
    results = read_session(train(tmp_path, *overrides)[0], 0)
    assert results.metric("eval_return") is not None
    assert results.tables is not None
    assert results.tables.metrics["frame"].tolist()[:2] == first_rows(spec)
    assert results.frame == last_frame(spec)


def config_of(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        lines = [f"hydra/sweeper/{one}" if one.startswith(("sampler=", "pruner=")) else one for one in overrides]
        return compose("config", lines, return_hydra_config=True)


SEARCH, CUSTOM = "search=command_line", "search.custom=mine.suggest"


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        (
            f"{SEARCH} sampler=random",
            SEARCH,
            "holds a search with sampler=random, and sampler=tpe was asked for. Choose",
        ),
        (SEARCH, f"{SEARCH} hydra.sweeper.sampler.seed=3", "sampler.seed=null, and hydra.sweeper.sampler.seed=3 was"),
        ("", "pruner=median", "holds a sweep with pruner=none, and pruner=median was asked for"),
        ("pruner=median", "pruner=median rungs=5", "with rungs=10, and rungs=5 was"),
        (f"{SEARCH} {CUSTOM}", SEARCH, f"with {CUSTOM}, and search.custom=null was"),
        (f"{SEARCH} search.n_trials=4", f"{SEARCH} search.n_trials=9 rungs=5", ""),
        ("sampler=random", "", ""),  # a grid has no sampler
        ("", f"{SEARCH} sampler=random", ""),  # its space is another one, which is refused elsewhere
    ],
)
def test_what_decides_points_and_pruning_stays(tmp_path: Path, before: str, now: str, sentence: str) -> None:
    directory, config = SweepDir(tmp_path), config_of(*now.split())
    directory.multirun.write_text(OmegaConf.to_yaml(config_of(*before.split())))
    composer: Any = SimpleNamespace(config=config, directory=directory)
    plan: Any = SimpleNamespace(settings=SimpleNamespace(search=config.get("search"), only_trial=None))
    try:
        refuse_other_search(composer, plan)
    except LabError as error:
        assert sentence and sentence in str(error)
    else:
        assert not sentence
