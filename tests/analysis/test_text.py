"""How values and names are written, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from lab.analysis.text import format_hyperparameter, short_names, shorten


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"), (0.00123456, "0.00123"), (0.0, "0"), (-12.345, "-12.3"), (200_000.0, "2e5"), (2048, "2048"),
        (123_456, "123456"), (0.99, "0.99"), (0.999, "0.999"), (0.999512, "0.99951"), (54_321.0, "54321"),
        (True, "true"), (None, "null"), ([64, 64], "[64,64]"), ("gae", "gae"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_values_are_written_briefly(value: Any, text: str) -> None:
    assert format_hyperparameter(value) == text


def test_names_and_texts_are_short() -> None:
    assert short_names(["algo.lr", "algo.optimizer.beta2", "net.lr", "algo"]) == {
        "algo.lr": "algo.lr", "algo.optimizer.beta2": "beta2", "net.lr": "net.lr", "algo": "algo",
    }  # fmt: skip
    assert shorten("a  b\nc", 9) == "a b c"
    assert shorten("abcdefghij", 7) == "abc…hij"
