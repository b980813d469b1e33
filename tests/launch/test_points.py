"""Points: what the words of a sweep say."""

from __future__ import annotations

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lab.errors import LabError
from lab.launch.points import choices, corners, parse, plain, searched
from lab.spec import SearchSpec
from tests.helpers import ALGORITHMS, CONF, serves, specs

SEARCH = SearchSpec(
    n_trials=5, params={"algo.lr": "tag(log, interval(1e-4, 1e-1))", "algo.n": "choice(1, 2)"}, custom=None
)


@pytest.mark.parametrize(
    ("word", "seeds"),
    [
        ("seed=3", [3]),
        ("seed=0,1,2", [0, 1, 2]),
        ("seed=range(2,6,2)", [2, 4]),
        ("seed=[4,5]", [4, 5]),
        ("seed=[0,1],[2]", [0, 1, 2]),
        ("frames=100", [7]),
    ],
)
def test_seeds_are_the_axis_of_a_trial(word: str, seeds: list[int]) -> None:
    sweep = parse(["algo=a2c", word], None, 7)
    assert sweep.seeds == seeds
    assert not sweep.axes
    assert "seed" not in "".join(sweep.fixed)
    assert [point.words for point in sweep.grid()] == [[]], "no other key is swept, so there is one point"


def test_every_other_swept_key_spans_trials_and_the_last_changes_fastest() -> None:
    sweep = parse(["algo.lr=0.1,0.2", "env=cartpole", "algo=a2c,ppo", "seed=0,1", "~tuned"], None)
    assert sweep.fixed == ["env=cartpole", "~tuned"]
    assert [point.words for point in sweep.grid()] == [
        ["algo.lr=0.1", "algo=a2c"],
        ["algo.lr=0.1", "algo=ppo"],
        ["algo.lr=0.2", "algo=a2c"],
        ["algo.lr=0.2", "algo=ppo"],
    ]
    assert sweep.grid()[3].hyperparameters == {"algo.lr": 0.2, "algo": "ppo"}


def test_values_keep_their_types() -> None:
    sweep = parse(["a=true,false", "b=[64,64],[32]", "c='x, y',z", "d=null,1e-3", "+e=1,2"], None)
    values = [point.hyperparameters for point in sweep.grid()]
    assert values[0] == {"a": True, "b": [64, 64], "c": "x, y", "d": None, "e": 1}
    assert values[-1] == {"a": False, "b": [32], "c": "z", "d": 0.001, "e": 2}
    assert sweep.grid()[0].words[2] == "c='x, y'", "a word is written so that Hydra reads the same value again"


def test_the_command_line_counts_before_the_search_space() -> None:
    sweep = parse(["algo.n=3", "algo.gamma=interval(0.9,1)", "seed=0,1"], SEARCH)
    assert set(sweep.space) == {"algo.lr", "algo.gamma"}
    assert sweep.fixed == ["algo.n=3"]
    assert sweep.texts == {"algo.lr": "tag(log, interval(1e-4, 1e-1))", "algo.gamma": "interval(0.9,1)"}


def test_distributions_are_those_of_the_grammar() -> None:
    sweep = parse(["a=range(0,2)", "b=1,5", "c=interval(1,9)", "d=tag(log,int(interval(1,64)))"], SEARCH)
    assert sweep.space["algo.lr"] == FloatDistribution(1e-4, 1e-1, log=True)
    assert sweep.space["algo.n"] == CategoricalDistribution(["1", "2"]), "choices are kept as they are written"
    assert sweep.space["a"] == IntDistribution(0, 1), "as everywhere in Hydra, the stop of a range is not in it"
    assert sweep.space["b"] == CategoricalDistribution(["1", "5"])
    assert sweep.space["c"] == FloatDistribution(1, 9)
    assert sweep.space["d"] == IntDistribution(1, 64, log=True)
    assert choices(sweep.space["a"], "a") == [0, 1]


def test_corners_hold_every_end_and_every_choice() -> None:
    points = corners({"x": FloatDistribution(0.5, 1.5), "y": CategoricalDistribution(["p", "q", "r"])})
    assert [point.hyperparameters for point in points] == [
        {"x": 0.5, "y": "p"},
        {"x": 1.5, "y": "q"},
        {"x": 1.5, "y": "r"},
    ]
    assert [point.words for point in corners({})] == [[]]


def test_a_searched_value_is_written_as_hydra_reads_it() -> None:
    assert searched({"a": None, "b": True, "c": 1e-05, "d": 0.1 + 0.2}).words == [
        "a=null", "b=true", "c=1e-05", "d=0.30000000000000004",
    ]  # fmt: skip
    assert plain("1e-05") == 1e-05


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=1,1"], "each once"),
        (["seed=a"], "seed=a is not allowed"),
        (["seed=-1"], "0 or a positive whole number"),
        (["seed=true,false"], "seed=true is not allowed"),
        (["algo.lr=interval(0,1)"], "algo.lr=interval.* needs values, as in algo.lr=1,2,3"),
        (["objective.metric=a,b"], "objective.metric cannot be swept"),
        (["stack=1,2"], "stack cannot be swept"),
        (["++stack=1,2"], "stack cannot be swept"),
        (["++seed=1,1"], "each once"),
        (["algo.horizon=range(5,5)"], "gives algo.horizon no value to sweep"),
    ],
)
def test_mistakes_are_sentences(words: list[str], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        parse(words, None)


def test_a_grid_of_a_range_without_steps_is_refused() -> None:
    with pytest.raises(LabError, match=r"sampler=grid cannot search algo\.lr"):
        choices(FloatDistribution(0, 1), "algo.lr")


def test_choices_of_a_search_come_back_as_they_were_written() -> None:
    sweep = parse(["a='x, y',null,true,0.5,[8,8]"], SEARCH)
    found = [searched({"a": text}) for text in choices(sweep.space["a"], "a")]
    assert [point.hyperparameters["a"] for point in found] == ["x, y", None, True, 0.5, [8, 8]]
    assert found[0].words == ["a='x, y'"]


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(LabError, match="has the tag 'lgo', which means nothing here"):
        parse(["algo.gamma=tag(lgo,interval(0.5,0.9))"], SEARCH)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_point_of_an_algorithms_search_space_can_be_trained(algo: str) -> None:
    search = yaml.safe_load((CONF / "search" / f"{algo}.yaml").read_text())
    space = parse([], SearchSpec(**search)).space
    assert space
    for env in ("cartpole", "pendulum"):
        for point in corners(space) if serves(algo, env) else ():
            assert specs(f"algo={algo}", f"env={env}", *point.words)
