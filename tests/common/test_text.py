"""Plain data: what only looks alike stays apart."""

from __future__ import annotations

from itertools import combinations

import pytest
import yaml
from omegaconf import OmegaConf

from lab.common.text import canonical, dump_yaml, flatten, format_seeds, format_value, plural

APART = [
    *(1, 1.0, True, "1", "1.0", "true", None, "null", "", 7, "007"),
    *([1], ["1"], {"a": 1}, {"a": True}, {1: 1}, {"1": 1}),
]


def test_values_that_look_alike_stay_apart() -> None:
    for one, other in combinations(APART, 2):
        assert canonical(one) != canonical(other), (one, other)
    assert canonical({"a": 1, "b": [2]}) == canonical({"b": [2], "a": 1})


@pytest.mark.parametrize("text", ["1e3", "1_000", ".5", "inf", "nan", "null", "true", "007", "x: y", "", "~", "é'\"\\"])
def test_a_text_comes_back_as_a_text_from_every_reader(text: str) -> None:
    written = dump_yaml({"a": text, "b": {"c": [text, 1e-5, None]}})
    assert yaml.safe_load(written) == {"a": text, "b": {"c": [text, 1e-5, None]}}
    assert OmegaConf.to_container(OmegaConf.create(written)) == yaml.safe_load(written)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("007", "'007'"),
        ("a", "a"),
        ("[1]", "'[1]'"),
        (["x, y", "z"], "['x, y',z]"),
        ({"a": [1, "1", None]}, "{a:[1,'1',null]}"),
        (True, "true"),
        (1e-5, "1e-05"),
    ],
)
def test_values_are_formatted_as_they_are_typed(value: object, text: str) -> None:
    assert format_value(value) == text


def test_the_leaves_of_a_spec() -> None:
    assert flatten({"a": 1, "b": {"c": [1], "d": {}}}) == {"a": 1, "b.c": [1], "b.d": {}}


@pytest.mark.parametrize(("count", "text"), [(0, "0 Trials"), (1, "1 Trial"), (2, "2 Trials"), (1200, "1,200 Trials")])
def test_a_noun_is_singular_after_one_alone(count: int, text: str) -> None:
    assert plural(count, "Trial") == text


@pytest.mark.parametrize(("seeds", "text"), [([3], "seed 3"), ([0, 1, 5], "seeds 0, 1 and 5")])
def test_seeds_are_listed_in_words(seeds: list[int], text: str) -> None:
    assert format_seeds(seeds) == text
