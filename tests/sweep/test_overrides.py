"""Overrides of a sweep's command line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lab.common.text import canonical
from lab.errors import LabError
from lab.sweep.overrides import SweepOverrides, choices, parse, parse_value, quote_exactly, searched_point
from lab.sweep_spec import SearchSpec
from tests.helpers import ALGORITHMS, CONF, serves, specs

SEARCH = SearchSpec(
    n_trials=5, params={"algo.lr": "tag(log, interval(1e-4, 1e-1))", "algo.n_step": "choice(1, 2)"}, custom=None
)


def hyperparameters(*overrides: str) -> list[dict[str, Any]]:
    return [point.hyperparameters for point in parse([*overrides], None).grid()]


@pytest.mark.parametrize(
    ("override", "seeds"),
    [
        ("seed=3", [3]),
        ("seed=0,1,2", [0, 1, 2]),
        ("seed=range(2,6,2)", [2, 4]),
        ("seed=[4,5]", [4, 5]),
        ("seed=[0,1],[2]", [0, 1, 2]),
        ("frames=100", [7]),
        ("seed=${env.num_envs}", [7]),
    ],
)
def test_seeds_span_a_trial(override: str, seeds: list[int]) -> None:
    sweep = parse(["algo=a2c", override], None, 7)
    assert sweep.seeds == seeds
    assert not sweep.axes
    assert "seed" not in "".join(sweep.fixed)
    assert [point.overrides for point in sweep.grid()] == [[]], "no other key is swept, so there is one point"


def test_every_other_swept_key_spans_trials_and_the_last_changes_fastest() -> None:
    sweep = parse(["algo.lr=0.1,0.2", "env=cartpole", "algo=a2c,ppo", "seed=0,1", "~tuned"], None)
    assert sweep.fixed == ["env=cartpole", "~tuned"]
    expected = [[f"algo.lr={lr}", f"algo={algo}"] for lr in (0.1, 0.2) for algo in ("a2c", "ppo")]
    assert [point.overrides for point in sweep.grid()] == expected
    assert sweep.grid()[3].hyperparameters == {"algo.lr": 0.2, "algo": "ppo"}


def test_values_keep_their_types() -> None:
    overrides = ["a=true,false", "b=[64,64],[32]", "c='x, y',z", "d=null,1e-3", "+e=1,2"]
    values = hyperparameters(*overrides)
    assert values[0] == {"a": True, "b": [64, 64], "c": "x, y", "d": None, "e": 1}
    assert values[-1] == {"a": False, "b": [32], "c": "z", "d": 0.001, "e": 2}
    assert parse(overrides, None).grid()[0].overrides[2] == "c='x, y'", "written so that Hydra reads the same value"


def test_the_command_line_takes_precedence_over_the_search_space() -> None:
    sweep = parse(["algo.n_step=3", "algo.gamma=interval(0.9,1)", "seed=0,1"], SEARCH)
    assert set(sweep.space) == {"algo.lr", "algo.gamma"}
    assert sweep.fixed == ["algo.n_step=3"]
    assert sweep.texts == {"algo.lr": "tag(log, interval(1e-4, 1e-1))", "algo.gamma": "interval(0.9,1)"}
    assert set(parse(["++algo.lr=0.1"], SEARCH).space) == {"algo.n_step"}


def test_distributions_are_those_of_the_grammar() -> None:
    sweep = parse(["a=range(0,2)", "b=1e-3,0.001,'x',x,1,true", "c=interval(1,9)", "d=tag(log,int(interval(1,64)))"],
                  SEARCH)  # fmt: skip
    assert sweep.space == {
        "algo.lr": FloatDistribution(1e-4, 1e-1, log=True),
        "algo.n_step": CategoricalDistribution(["1", "2"]),  # choices are kept as they are written
        "a": IntDistribution(0, 1),  # as everywhere in Hydra, the stop of a range is not in it
        "b": CategoricalDistribution(["0.001", "'x'", "1", "True"]),  # equal ones once
        "c": FloatDistribution(1, 9),
        "d": IntDistribution(1, 64, log=True),
    }
    assert choices(sweep.space["a"], "a") == [0, 1]
    with pytest.raises(LabError, match=r"sampler=grid cannot search algo\.lr"):
        choices(sweep.space["algo.lr"], "algo.lr")


def test_corners_hold_both_ends_of_every_range_and_every_choice() -> None:
    space = {"x": FloatDistribution(0.5, 1.5), "y": CategoricalDistribution(["p", "q", "r"])}
    points = SweepOverrides([0], space=space).corners()
    expected = [{"x": 0.5, "y": "p"}, {"x": 1.5, "y": "q"}, {"x": 1.5, "y": "r"}]
    assert [point.hyperparameters for point in points] == expected
    assert [point.overrides for point in SweepOverrides([0]).corners()] == [[]]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("seed=1,1", "each once"),
        ("seed=a", "seed=a is not allowed"),
        ("seed=-1", "0 or a positive whole number"),
        ("seed=true,false", "seed=true is not allowed"),
        ("algo.lr=interval(0,1)", "algo.lr=interval.* needs values, as in algo.lr=1,2,3"),
        ("objective.metric=a,b", "objective.metric cannot be swept"),
        ("stack=1,2", "stack cannot be swept"),
        ("++stack=1,2", "stack cannot be swept"),
        ("++seed=1,1", "each once"),
        ("algo.horizon=range(5,5)", "gives algo.horizon no value to sweep"),
        ("algo.lr=1,2 algo.lr=3,4", "algo.lr=1,2 and algo.lr=3,4 both set algo.lr: leave one of them out"),
        ("algo.lr=1,2 ++algo.lr=3", r"algo.lr=1,2 and \+\+algo.lr=3 both set algo.lr"),
        ("algo.lr=3 algo.lr=1,2", "algo.lr=3 and algo.lr=1,2 both set algo.lr"),
        ("algo=a2c,ppo algo=ppo", "algo=a2c,ppo and algo=ppo both set algo"),
        ("a.b={c:1},{c:2} a.b.c=3", "both set a.b.c"),
        ("seed=0,1 seed=2", "seed=0,1 and seed=2 both set seed"),
        ("seed=${env.num_envs} algo.lr=1,2", "is not allowed in a sweep of other keys"),
    ],
)
def test_mistakes_are_sentences(overrides: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        parse(overrides.split(), None)


@pytest.mark.parametrize(
    ("overrides", "params", "sentence"),
    [
        (["algo.gamma=tag(lgo,interval(0.5,0.9))"], {}, "has the tag 'lgo', which means nothing here"),
        ([], {"algo.lr": "choice(1,2)", "+algo.lr": "choice(3,4)"}, r"both set algo\.lr"),
    ],
)
def test_mistakes_in_a_search_are_sentences(overrides: list[str], params: dict[str, str], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        parse(overrides, SearchSpec(params=params))


def test_hydra_decides_on_what_is_set_twice_and_not_swept() -> None:
    assert parse(["algo.lr=1", "algo.lr=2", "seed=0", "seed=4"], None).fixed == ["algo.lr=1", "algo.lr=2"]
    assert parse(["seed=0", "seed=4"], None).seeds == [4]
    assert list(parse(["a.b={c:1},{}", "a.b.d=1,2"], None).axes) == ["a.b", "a.b.d"]


def test_choices_of_a_search_come_back_as_they_were_written() -> None:
    sweep = parse(["a='x, y',null,true,0.5,[8,8]"], SEARCH)
    points = [searched_point({"a": text}, sweep.space) for text in choices(sweep.space["a"], "a")]
    assert [point.hyperparameters["a"] for point in points] == ["x, y", None, True, 0.5, [8, 8]]
    assert points[0].overrides == ["a='x, y'"]


def test_a_searched_value_is_written_as_hydra_reads_it() -> None:
    written = searched_point({"a": None, "b": True, "c": 1e-05, "d": 0.1 + 0.2}).overrides
    assert written == ["a=null", "b=true", "c=1e-05", "d=0.30000000000000004"]
    assert parse_value("1e-05") == 1e-05
    values = {"a": "x,y", "b": "[64,64]", "c": "a b", "d": "it's", "e": "", "f": [1, "1", {"k": None}]}
    assert searched_point(values).hyperparameters == {**values, "b": [64, 64]}, "a text may be any text"


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8).filter(
    lambda text: "${" not in text and text != "???"  # an interpolation, and what Hydra takes for missing
)
SPECIAL = ["007", "7", "true", "null", "1e-3", ".5", "1_000", "inf", "a,b", "{a: b}", "[", "k=v", "x: y", "#"]
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.sampled_from(SPECIAL),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner),
    max_leaves=5,
)


@given(st.lists(VALUES, min_size=2, max_size=4))
def test_any_value_is_written_so_that_hydra_reads_it_again(values: list[Any]) -> None:
    sweep = parse([f"a={','.join(map(quote_exactly, values))}"], None)
    assert [canonical(point.hyperparameters["a"]) for point in sweep.grid()] == [*map(canonical, values)]
    assert [canonical(parse_value(axis.partition("=")[2])) for axis in sweep.axes["a"]] == [*map(canonical, values)]


@pytest.mark.parametrize(
    "written", ["1e-3", ".5", "1_000", "007", "'007'", "True", "null", "'null'", "a b", r"a\,b", "{a: 1}", "[1,'x, y']",
                "str(1)", "int(3.5)", "'é'", '"q"', "''", r"'a\\'", "{x y:1}", "x:y", "-.5", "+1", "1."],
)  # fmt: skip
def test_a_written_value_keeps_its_value_in_a_sweep(written: str) -> None:
    (fixed,) = parse([f"a={written}"], None).fixed
    swept = hyperparameters(f"{fixed},other")[0]["a"]
    assert canonical(swept) == canonical(parse_value(fixed.partition("=")[2]))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_point_of_an_algorithms_search_space_can_be_trained(algo: str) -> None:
    search = yaml.safe_load((CONF / "search" / f"{algo}.yaml").read_text())
    sweep = parse([], SearchSpec(search["params"]))
    assert sweep.space
    for env in ("cartpole", "pendulum"):
        for point in sweep.corners() if serves(algo, env) else ():
            assert specs(f"algo={algo}", f"env={env}", *point.overrides)
