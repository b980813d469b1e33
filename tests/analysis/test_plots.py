"""The pictures of Sessions and Trials: what is in their curves, and that odd cases are drawn too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lab.analysis import plotting
from lab.analysis.experiment import read_experiment
from lab.analysis.panels import NOT_DRAWN, TITLES, _known_grid
from lab.analysis.plot_experiment import plot_experiment
from lab.analysis.plot_session import plot_session, session_figure
from lab.analysis.plot_trial import plot_trial, trial_figure
from lab.analysis.plotting import png
from lab.analysis.session import MAX_POINTS, Tables, read_tables
from lab.analysis.statistics import STATISTICS, interval
from lab.analysis.trial import read_trial
from lab.run.directory import SweepDir
from tests import synthetic
from tests.analysis.pictures import ROWS, TOO_HIGH, is_png, labels, lines_of, overwrite, panel, sweep, titles
from tests.helpers import ALGORITHMS, specs

LOGGED = {
    "a2c": ["Return", "Evaluation", "Episode length", "Policy loss", "Value loss", "Entropy", "Gradient norm"],
    "dqn": ["Return", "Evaluation", "Episode length", "Q loss", "Exploration rate", "Q-values", "Learning rate",
            "Gradient norm"],
    "sac": ["Return", "Evaluation", "Episode length", "Actor loss", "Critic loss", "Entropy", "Q-values",
            "Entropy coefficient", "Gradient norm"],
    "own": ["Return", "Evaluation", "Episode length", "Entropy", "My novelty"],
}  # fmt: skip


COLUMNS: dict[str, dict[str, Any]] = {
    "a2c": {},
    "dqn": {"q_loss": 1.0, "q_values": 2.0, "td_error": 1.0, "exploration_rate": [*np.linspace(1, 0, ROWS)],
            "grad_norm": 1.0, "learning_rate": [*np.linspace(1e-3, 0, ROWS)], "replay_frames": 9.0},
    "sac": {"entropy": 1.0, "ent_coef": [*np.linspace(1, 0, ROWS)], "actor_loss": 1.0, "critic_loss": 1.0,
            "q_values": 2.0, "td_error": 1.0, "actor_grad_norm": 1.0, "grad_norm": 1.0,
            "learning_rate": [*np.linspace(1e-3, 1e-3 + 1e-11, ROWS)]},  # constant but for the last digits of float32
    "own": {"entropy": 0.5, "my_novelty": 3.0, "empty_loss": np.nan},
}  # fmt: skip


@pytest.mark.parametrize("algorithm", LOGGED)
def test_panels_are_of_what_was_logged(tmp_path: Path, algorithm: str) -> None:
    trial = sweep(tmp_path, [{}]).trial(0)
    for seed in (0, 1) if COLUMNS[algorithm] else ():
        path = trial.session(seed).metrics
        common = pd.read_csv(path)[["frame", "optimizer_steps", "episodes", "return", "length", "eval_return"]]
        common.assign(**COLUMNS[algorithm]).to_csv(path, index=False)
    figure = session_figure(read_tables(trial.session(0)))
    assert [title.partition(",")[0].removesuffix(" return") for title in titles(figure)] == [
        *LOGGED[algorithm], "Frames per second",
    ]  # fmt: skip
    of_trial = [title.partition(",")[0].removesuffix(" return") for title in titles(trial_figure(read_trial(trial)))]
    assert of_trial == [*LOGGED[algorithm][:2], "Final return by seed", *LOGGED[algorithm][2:]]
    for ax in figure.axes:
        assert any(len(line.get_xdata()) for line in ax.lines), f"{ax.get_title()} is empty"
        assert ax.get_xlim() == pytest.approx((0, 1.02 * 200_000)), "all panels have the same frames"
        assert ax.get_legend() is None


def test_each_metric_of_an_algorithm_is_drawn_or_left_out_on_purpose() -> None:
    metrics = {name for algorithm in ALGORITHMS for name in specs(f"algo={algorithm}")[0].algo.METRICS}
    assert metrics <= TITLES.keys() | NOT_DRAWN


def test_a_run_of_100_frames_has_whole_frames_as_ticks(tmp_path: Path) -> None:
    tables = read_tables(sweep(tmp_path, [{}]).trial(0).session(0))
    for table in (tables.episodes, tables.metrics, tables.timing):
        table["frame"] = table["frame"] // 2_000
    figure = session_figure(tables)
    figure.canvas.draw()
    assert {label.get_text() for label in figure.axes[0].get_xticklabels()} >= {"0", "20", "100"}
    for row in (1, 2):  # the first of them logged nothing but a few frames
        metrics = tables.metrics.drop(columns=["return", "length"])[:row].assign(frame=range(1, row + 1))
        figure = session_figure(
            replace(tables, metrics=metrics, timing=tables.timing[:0], episodes=tables.episodes[:0])
        )
        figure.canvas.draw()
        assert "m" not in "".join(label.get_text() for label in figure.axes[0].get_xticklabels()), "milli-frames"


def test_a_session_that_logged_nothing_says_so(tmp_path: Path) -> None:
    tables = read_tables(sweep(tmp_path, [{}]).trial(0).session(0))
    nothing = replace(tables, episodes=tables.episodes[:0], metrics=tables.metrics[:0], timing=tables.timing[:0])
    figure = session_figure(nothing)
    assert not figure.axes
    assert "nothing has been logged yet" in [text.get_text() for text in figure.texts]
    no_episode = replace(tables, episodes=tables.episodes[:0], metrics=tables.metrics.drop(columns="return"))
    figure = session_figure(no_episode)
    assert "no episode has ended" in [text.get_text() for text in figure.texts]
    assert not any(title.startswith("Return") for title in titles(figure))


def test_a_distant_reference_does_not_squash_the_curve() -> None:
    frames, reference = np.arange(3.0), {"solved": 475.0, "random_return": 22.2}
    near, far = Figure().subplots(1, 2)
    near.plot(frames, [30.0, 200.0, 300.0])
    plotting.reference_lines(near, reference)
    assert [line.get_ydata()[0] for line in near.lines[1:]] == [475.0, 22.2]
    assert [text.get_text() for text in near.texts] == ["solved 475", "random actions 22.2"]
    far.plot(frames, [30.0, 60.0, 90.0])
    before = far.get_ylim()
    plotting.reference_lines(far, {**reference, "random_return": -1000.0})
    assert len(far.lines) == 1
    assert far.get_ylim() == before
    assert [text.get_text() for text in far.texts] == ["↑ solved 475", "↓ random actions -1000"]


def test_a_trial_has_one_band_and_its_legend_outside(tmp_path: Path) -> None:
    states = {(0, 1): "failed", (0, 3): "pruned"}
    directory = sweep(tmp_path, [{}], seeds=6, states=states).trial(0)
    for statistic, name in (("mean", "mean"), ("iqm", "IQM")):
        figure = trial_figure(read_trial(directory), statistic)
        assert labels(figure) == [f"{name} of 4 Sessions, 95 % interval", "each Session", "failed: seed 1",
                                  "pruned: seed 3"]  # fmt: skip
        returns = panel(figure, "Return")
        (band,) = returns.collections
        frames, values = read_trial(directory).curve("return")
        low, _ = interval(values, statistic)
        assert {*zip(frames.tolist(), low.tolist(), strict=True)} <= {
            *map(tuple, band.get_paths()[0].vertices.tolist())
        }
        assert len(returns.lines) == 8, "6 seeds, the statistic, and the line of random actions"
        (strong,) = lines_of(panel(figure, "Final return"))
        assert strong.get_xdata()[0] == STATISTICS[statistic](read_trial(directory).values("return"))
        assert not any(ax.get_legend() for ax in figure.axes)


def test_a_mean_is_over_completed_sessions_alone(tmp_path: Path) -> None:
    states = {(0, 1): "failed", (0, 3): "pruned"}
    directory = sweep(tmp_path, [{}], seeds=4, states=states).trial(0)
    for _, seed in states:
        for column in ("return", "eval_return", "policy_loss", "value_loss", "entropy"):
            overwrite(directory.session(seed), column, TOO_HIGH)
    trial = read_trial(directory)
    frames, values = trial.curve("return")
    whole = [pd.read_csv(directory.session(seed).metrics) for seed in (0, 2)]
    assert frames.tolist() == whole[0]["frame"].tolist()  # not cut to what the failed one did
    assert values.tolist() == [table["return"].tolist() for table in whole]
    drawn = [line for ax in trial_figure(trial).axes for line in lines_of(ax)]
    assert len(drawn) == 8, "a panel each, one of them with final returns"
    assert max(np.max(line.get_ydata()) for line in drawn) < TOO_HIGH


def test_a_mean_is_over_the_same_sessions_at_each_frame(tmp_path: Path) -> None:
    directory = sweep(tmp_path, [{}]).trial(0)
    overwrite(directory.session(0), "return", np.nan, [0, 1])
    metrics = overwrite(directory.session(1), "return", np.nan, [7])
    trial = read_trial(directory)
    frames, values = trial.curve("return")
    assert frames.tolist() == metrics["frame"].drop([0, 1, 7]).tolist()
    assert np.isfinite(values).all()
    assert [len(part) for part in trial.curve("no_such_column")] == [0, 2]


def test_a_long_curve_is_thinned_but_for_its_end() -> None:
    count = 3 * MAX_POINTS + 1
    metrics = pd.DataFrame({"frame": range(count), "return": np.arange(count) / 2})
    frames, values = Tables({}, pd.DataFrame(), metrics, pd.DataFrame(), "completed").curve("return")
    assert len(frames) <= MAX_POINTS
    assert frames[-1] == count - 1
    assert set(np.diff(frames)) == {4}
    assert (values == frames / 2).all()


TRIALS: dict[str, tuple[int, dict[int, str]]] = {
    "one seed": (1, {}),
    "four seeds": (4, {}),
    "one completed": (4, dict(enumerate(("failed", "pruned", "interrupted")))),
    "none completed": (3, {0: "failed", 1: "running", 2: "pending"}),
    "none started": (2, {0: "pending", 1: "pending"}),
    "many seeds": (24, {3: "failed", 4: "failed", 20: "pruned"}),
}


@pytest.mark.parametrize("case", TRIALS)
def test_trials_of_every_kind_are_drawn(tmp_path: Path, case: str) -> None:
    seeds, states = TRIALS[case]
    point = {"algo.optimizer.beta2": 0.999, "net.hidden": [64, 64], "env.kwargs.$name_{": "$x_{" * 99}
    directory = sweep(tmp_path, [point], seeds, {(0, seed): state for seed, state in states.items()})
    assert is_png(plot_trial(read_trial(directory.trial(0))))


def test_a_trial_with_columns_that_are_not_numbers_or_missing_is_drawn(tmp_path: Path) -> None:
    directory = sweep(tmp_path, [{}]).trial(0)
    for seed, column in enumerate(("return", "eval_return")):
        overwrite(directory.session(seed), column, np.nan)
    overwrite(directory.session(0), "value_loss", np.inf)
    overwrite(directory.session(0), "policy_loss", np.nan, slice(3, None))
    for seed in (0, 1):
        metrics = pd.read_csv(directory.session(seed).metrics)
        metrics.drop(columns="entropy").to_csv(directory.session(seed).metrics, index=False)
        episodes = pd.read_csv(directory.session(seed).episodes)
        episodes.iloc[:0].to_csv(directory.session(seed).episodes, index=False)
    assert is_png(plot_trial(read_trial(directory)))
    assert is_png(plot_experiment(read_experiment(SweepDir(tmp_path))))
    assert is_png(plot_session(read_tables(directory.session(0))))


def test_letters_that_a_font_lacks_and_dollars_are_drawn(tmp_path: Path) -> None:
    directory = sweep(tmp_path, [{"env.$x_{": "\u6e38\u620f $"}, {"env.$x_{": "\\frac$"}], states={(0, 0): "failed"})
    session = directory.trial(0).session(0)
    session.write_status("failed", 5, 10, "Traceback\nValueError: $\\alpha_{ \u5931\u8d25")
    assert is_png(plot_trial(read_trial(directory.trial(0))))
    assert is_png(plot_experiment(read_experiment(directory)))


def test_the_same_files_give_the_same_pictures(tmp_path: Path) -> None:
    states = {(2, 1): "failed", (4, 0): "pruned", (4, 1): "pruned"}
    directory = synthetic.experiment(tmp_path, 9, 2, states=states)
    with plt.rc_context({"lines.linewidth": 9, "axes.facecolor": "black"}):  # a user's own style changes nothing
        first = plot_experiment(read_experiment(directory)), plot_trial(read_trial(directory.trial(2)))
    assert (plot_experiment(read_experiment(directory)), plot_trial(read_trial(directory.trial(2)))) == first


def test_a_picture_of_a_session_does_not_depend_on_those_before(tmp_path: Path) -> None:
    trial = sweep(tmp_path, [{}]).trial(0)
    one, other = (read_tables(trial.session(seed)) for seed in (0, 1))
    rows = np.linspace(1, 1e6, len(other.metrics))
    other = replace(other, metrics=other.metrics.assign(**{"value_loss": rows, "return": 1e7 * rows}))
    fresh = []
    for tables in (one, other):
        _known_grid.cache_clear()
        fresh.append(plot_session(tables))
    assert [plot_session(tables) for tables in (one, other, other, one)] == [fresh[0], fresh[1], fresh[1], fresh[0]]


def test_a_picture_leaves_no_figure_and_no_style_behind(tmp_path: Path) -> None:
    before = dict(plt.rcParams)
    assert is_png(plot_trial(read_trial(sweep(tmp_path, [{}]).trial(0))))
    assert dict(plt.rcParams) == before
    assert is_png(png(Figure()))
