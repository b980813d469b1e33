"""Curves, intervals, reference lines and colors."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from lab.analysis import plotting
from lab.analysis.plotting import band
from lab.analysis.statistics import interval


def test_a_band_is_the_interval_and_one_seed_has_none() -> None:
    frames, values = np.arange(3.0), np.array([[0.0, 2.0, 5.0], [2.0, 2.0, 9.0], [4.0, 2.0, 1.0]])
    ax = Figure().subplots()
    band(ax, frames, values, "mean", color="k")
    assert ax.lines[0].get_ydata().tolist() == [2.0, 2.0, 5.0]
    edge = ax.collections[0].get_paths()[0].vertices
    for low_or_high in interval(values, "mean"):
        assert {*zip(frames.tolist(), low_or_high.tolist(), strict=True)} <= {*map(tuple, edge.tolist())}
    alone = Figure().subplots()
    band(alone, frames, values[:1], "mean", color="k")
    assert alone.lines[0].get_ydata().tolist() == [0.0, 2.0, 5.0]
    assert not alone.collections


def test_a_curve_of_one_point_is_marked() -> None:
    ax = Figure().subplots()
    band(ax, np.array([10.0]), np.array([[1.0], [3.0]]), color="k")
    assert ax.lines[0].get_marker() == "o"
    assert len(ax.collections) == 1, "its interval is drawn"
    band(ax, np.array([10.0, 20.0]), np.array([[1.0, 2.0]]))
    assert ax.lines[1].get_marker() == "None"
    plotting.curve(ax, np.array([10.0, 10.0]), np.array([1.0, 1.0]))
    assert ax.lines[2].get_marker() == "o", "two episodes that ended at one frame"


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ([500] * 5, (0.01, "top")),
        ([20, 20, 20, 470, 470], (0.01, "bottom")),
        ([440, 520, 440, 100, 100], (0.99, "bottom")),
    ],
)
def test_the_name_of_a_reference_line_is_where_no_curve_is(values: list[float], place: tuple[float, str]) -> None:
    ax = Figure().subplots()
    ax.plot(np.arange(5), values)
    ax.set_ylim(0, 550)
    plotting.reference_lines(ax, {"solved": 475})
    (name,) = ax.texts
    assert (name.xy[0], name.get_va()) == place
    assert name.get_zorder() > max(line.get_zorder() for line in ax.lines)
    assert name.get_bbox_patch() is not None


def test_24_trials_on_one_axes_have_24_colors() -> None:
    assert len({plotting.rank_color(place) for place in range(24)}) == 24
    assert plotting.rank_color(0) == plotting.PALETTE[0]
