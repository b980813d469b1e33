from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Lt

from lab.common.validation import Count, Fraction, Natural, NonNegative, Positive, validate
from lab.errors import LabError

Mode = Literal["sync", "async"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Count, 1e6, 1_000_000),
        (Fraction, 1, 1.0),
        (Positive | None, None, None),
        (list[Count], [64, 64], [64, 64]),
        (str, 2024, "2024"),
        (Mode, "sync", "sync"),
        (dict[str, Any], {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_value_becomes_what_its_field_is_annotated_with(kind: Any, value: Any, expected: Any) -> None:
    result = validate(kind, value, "key")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (Count, 0, "key=0 is not allowed: key must be a whole number, 1 or more."),
        (Count, True, "key=true is not allowed: key must be a whole number, 1 or more."),
        (Natural, 1.5, "key=1.5 is not allowed: key must be a whole number, 0 or more."),
        (Positive, 0, "key=0 is not allowed: key must be a number above 0."),
        (NonNegative | None, "x", "key=x is not allowed: key must be a number, 0 or more or null."),
        (Fraction, 2, "key=2 is not allowed: key must be a number from 0 to 1."),
        (Annotated[float, Ge(0), Lt(1)], 1.0, "key=1.0 is not allowed: key must be a number, at least 0 and below 1."),
        (float, float("nan"), "key=nan is not allowed: key must be a finite number."),
        (
            list[Count],
            [1, 0],
            "key=[1,0] is not allowed: key must be a list, in which each is a whole number, 1 or more.",
        ),
        (Mode, "asink", "key=asink is not allowed: key must be one of async, sync. Did you mean 'async'?"),
        (bool, "yes", "key=yes is not allowed: key must be true or false."),
        (dict[str, Any], None, "key=null is not allowed: key must be a group of keys and values, as {key: value}."),
    ],
)
def test_a_mistake_says_the_key_the_value_and_what_is_allowed(kind: Any, value: Any, sentence: str) -> None:
    with pytest.raises(LabError) as error:
        validate(kind, value, "key")
    assert str(error.value) == sentence
