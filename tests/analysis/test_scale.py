"""Where hyperparameters stand on an axis, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lab.analysis.scale import Scale


def test_scales_by_hand() -> None:
    wide = Scale.of([1e-4, 1e-2, 1e-3], "tag(log, interval(1e-5, 1))")
    assert wide.log
    assert wide.to_unit(wide.positions).tolist() == pytest.approx([0, 1, 0.5])
    assert {round(at, 9): label for at, label in wide.ticks().items()} == {0: "1e-4", 0.5: "0.001", 1: "0.01"}
    assert not Scale.of([1e-4, 1e-2, 1e-3], "interval(1e-5, 1)").log
    assert Scale.of([1.0, 2.0, 4.0], "tag(log, int(interval(1, 8)))").log
    assert not Scale.of([0.0, 2.0, 4.0], "tag(log, interval(0, 8))").log, "0 has no logarithm"
    assert Scale.of([1e-4, 1e-3], "choice(1e-4, 1e-3)").labels == ["1e-4", "0.001"]
    narrow = Scale.of([1.0, 2.0, 4.0], "interval(1, 5)")
    assert not narrow.log
    assert narrow.to_unit(narrow.positions).tolist() == pytest.approx([0, 1 / 3, 1])
    grid = Scale.of([0.99, 0.9, 0.99, 0.9])
    assert (grid.labels, grid.positions.tolist()) == (["0.9", "0.99"], [1, 0, 1, 0])
    categories = Scale.of(["ppo", None, "a2c", [64, 64], True, 0.5])
    assert categories.labels == ["0.5", "[64,64]", "a2c", "null", "ppo", "true"]
    one = Scale(np.array([3.0]))
    assert one.to_unit(one.positions).tolist() == [0.5]
    assert one.ticks() == {0.5: "3"}


def test_trials_of_a_category_lie_side_by_side_the_best_at_its_tick() -> None:
    positions = Scale(np.array([0.0, 1, 0, 0]), ["a", "b"]).spread(np.array([3.0, 0.0, 1.0, 2.0]))
    assert positions.tolist() == pytest.approx([0, 1, 0.7 / 8, -0.7 / 8])
    assert np.ptp(Scale(np.zeros(100), ["a"]).spread(np.arange(100))) == pytest.approx(0.7 * 0.99)
    assert Scale(np.array([3.0, 1.0])).spread(np.zeros(2)).tolist() == [3.0, 1.0], "numbers stay in place"
