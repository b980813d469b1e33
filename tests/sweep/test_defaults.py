"""The defaults of a search are found in its space, or it is said what it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir

from lab.errors import LabError
from lab.run.directory import SweepDir
from lab.sweep.composer import Composer
from lab.sweep.defaults import find_defaults
from lab.sweep.overrides import parse
from lab.sweep.plan import SweepPlan
from lab.sweep_spec import SearchSpec
from tests.helpers import ALGORITHMS, CONF, serves
from tests.sweep.test_composer import make_composer


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(CONF)):
        yield make_composer()


def defaults(
    composer: Composer, *overrides: str, params: dict[str, str] | None = None, custom: str = ""
) -> dict[str, Any]:
    search = SearchSpec(params or {}, custom=custom or None)
    settings: Any = SimpleNamespace(search=search)
    objective: Any = None
    plan = SweepPlan(SweepDir("."), composer, settings, parse([*overrides], settings.search), objective, None, 1, False)
    return find_defaults(composer, plan)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_space_of_an_algorithm_holds_its_defaults(composer: Composer, algo: str) -> None:
    params = yaml.safe_load((CONF / "search" / f"{algo}.yaml").read_text())["params"]
    for env in (name for name in ("cartpole", "lunarlander", "pendulum") if serves(algo, name)):
        assert defaults(composer, f"algo={algo}", f"env={env}", params=params).keys() == params.keys()


def conditional(config: Any, trial: Any) -> None:
    """Suggest one hyperparameter, and more where it has its default."""
    if trial.suggest_categorical("algo.advantage", ["n_step", "gae"]) == "gae":
        trial.suggest_float("algo.gae_lambda", 0.5, 1.0)
        trial.suggest_categorical("net.hidden", ["[32]", "[64,64]"])
    else:
        trial.suggest_int("algo.n_step", 100, 200)


def test_the_defaults_are_found_in_a_space_of_any_kind(composer: Composer) -> None:
    space = ("env=cartpole", "~tuned", "algo=choice(a2c,ppo)", "net=choice(gru,mlp)", "env.num_envs=choice(1,4,8)",
             "algo.lr=tag(log,interval(1e-5,1e-1))", "net.activation=choice(relu,tanh)")  # fmt: skip
    assert defaults(composer, *space) == {
        "algo": "a2c", "net": "mlp", "net.activation": "relu", "algo.lr": 7e-4, "env.num_envs": "8"
    }  # fmt: skip
    custom = f"{__name__}.conditional"
    values = {"algo.gamma": 0.99, "algo.advantage": "gae", "algo.gae_lambda": 1.0, "net.hidden": "[64,64]"}
    assert defaults(composer, "env=cartpole", "~tuned", "algo.gamma=interval(0.9,1)", custom=custom) == values


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("algo.lr=interval(0.1,0.2)", "algo.lr=0.0003 is not in interval(0.1,0.2)."),
        ("algo.entropy_coef=tag(log,interval(1e-4,1))", "algo.entropy_coef=0.0 is not in tag(log,interval(1e-4,1))."),
        ("algo.target_kl=interval(0.1,0.2)", "algo.target_kl=null is not in interval(0.1,0.2)."),
        ("net=choice(gru,lstm)", "the default of net is not in choice(gru,lstm)."),
        ("+env.kwargs.g=interval(9,10)", "+env.kwargs.g has no default."),
        ("algo.gamma=choice(0.5,0.6)", "algo.gamma=0.99 is not in choice(0.5,0.6)."),
    ],
)
def test_it_is_said_which_default_a_space_lacks(composer: Composer, override: str, sentence: str) -> None:
    with pytest.raises(LabError, match=re.escape(sentence)):
        defaults(composer, "algo=ppo", "env=cartpole", "~tuned", override)
