"""The pictures of Trials and Experiments: what is in their curves, and that the odd cases are drawn too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lab.analysis import plotting
from lab.analysis.experiment import MIN_TRIALS, read_experiment
from lab.analysis.panels import NOT_DRAWN, TITLES
from lab.analysis.plot_experiment import MAX_RANKED, experiment_figure, plot_experiment
from lab.analysis.plot_hyperparameters import HIGHLIGHTED
from lab.analysis.plot_session import plot_session, session_figure
from lab.analysis.plot_trial import plot_trial, trial_figure
from lab.analysis.plotting import band, png
from lab.analysis.scale import Scale
from lab.analysis.session import MAX_POINTS, Tables, read_tables
from lab.analysis.statistics import STATISTICS, interval
from lab.analysis.text import format_hyperparameter, short_names, shorten
from lab.analysis.trial import read_trial
from lab.run.directory import RunDir, SweepDir
from lab.run.files import read_json, write_json
from tests import synthetic
from tests.helpers import ALGORITHMS, specs

TOO_HIGH = 1e6  # a return that only Sessions that did not complete have
ROWS = 20


def sweep(
    folder: Path,
    points: Sequence[dict[str, Any]],
    seeds: int = 2,
    states: dict[tuple[int, int], str] | None = None,
    objective: dict[str, str] | None = None,
) -> SweepDir:
    """Make up an Experiment of these points, of which the last is the best."""
    directory, base = SweepDir(folder), specs("algo=a2c", "env=cartpole")[0].to_dict()
    objective = objective or {"return": "maximize"}
    goal = {"metrics": list(objective), "directions": list(objective.values()), "aggregate": "mean"}
    write_json(directory.sweep, {"kind": "experiment", "name": "made up", "objective": goal})
    rng = np.random.default_rng(0)
    for number, point in enumerate(points):
        trial = directory.trial(number)
        write_json(trial.point, {"number": number, "hyperparameters": point, "seeds": list(range(seeds))})
        for seed in range(seeds):
            state = (states or {}).get((number, seed), "completed")
            if state != "pending":
                synthetic.session(trial.session(seed), {**base, "seed": seed}, state, 50 + 30 * number, ROWS, rng)
    return directory


def overwrite(directory: RunDir, column: str, value: float, rows: slice | list[int] = slice(None)) -> pd.DataFrame:
    metrics = pd.read_csv(directory.metrics).astype({column: float})
    metrics.loc[rows, column] = value
    metrics.to_csv(directory.metrics, index=False)
    return metrics


def drawn_bands(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    actual = []

    def listen(ax: Any, frames: np.ndarray, values: np.ndarray, statistic: str = "mean", **line: Any) -> None:
        actual.append(values)
        band(ax, frames, values, statistic, **line)

    monkeypatch.setattr(plotting, "band", listen)
    return actual


def is_png(picture: bytes) -> bool:
    return picture.startswith(b"\x89PNG") and not plt.get_fignums()


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes]


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def panel(figure: Figure, title: str) -> Axes:
    return next(ax for ax in figure.axes if ax.get_title().startswith(title))


def lines_of(ax: Axes, color: str = plotting.STRONG) -> list[Any]:
    return [line for line in ax.lines if line.get_color() == color]


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
            "q_values": 2.0, "td_error": 1.0, "actor_grad_norm": 1.0, "grad_norm": 1.0, "learning_rate": 1e-3},
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


def test_an_experiment_has_means_of_ranked_trials_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {(1, 1): "pruned", (3, 0): "failed"}
    directory = sweep(tmp_path, [{"algo.lr": 10.0**-i} for i in range(4)], states=states)
    for number, _ in states:
        for seed in (0, 1):
            overwrite(directory.trial(number).session(seed), "return", TOO_HIGH)
    actual = drawn_bands(monkeypatch)
    assert is_png(plot_experiment(read_experiment(directory)))
    assert [values.shape for values in actual] == [(2, ROWS), (2, ROWS)]
    assert max(values.max() for values in actual) < TOO_HIGH


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


def test_a_curve_of_one_point_is_marked() -> None:
    ax = Figure().subplots()
    band(ax, np.array([10.0]), np.array([[1.0], [3.0]]), color="k")
    assert ax.lines[0].get_marker() == "o"
    assert len(ax.collections) == 1, "its interval is drawn"
    band(ax, np.array([10.0, 20.0]), np.array([[1.0, 2.0]]))
    assert ax.lines[1].get_marker() == "None"


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


def test_trials_of_a_category_lie_side_by_side_the_best_at_its_tick() -> None:
    positions = Scale(np.array([0.0, 1, 0, 0]), ["a", "b"]).spread(np.array([3.0, 0.0, 1.0, 2.0]))
    assert positions.tolist() == pytest.approx([0, 1, 0.7 / 8, -0.7 / 8])
    assert np.ptp(Scale(np.zeros(100), ["a"]).spread(np.arange(100))) == pytest.approx(0.7 * 0.99)
    assert Scale(np.array([3.0, 1.0])).spread(np.zeros(2)).tolist() == [3.0, 1.0], "numbers stay in place"


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


LONG = [
    {
        "algo.lr": 10.0 ** (-1 - i / 4), "algo.gamma": 1 - 10.0 ** (-1 - i / 4), "net.hidden": [2**i, 64][: 1 + i % 2],
        "algo.optimizer.beta2": 0.9 + i / 200, "algo.normalize_advantage": i % 3 == 0, "env.num_envs": 2**i,
        "algo.a_very_long_name_of_a_critics_coefficient.lr": i, "net.activation": "a_very_long_name" * (1 + i % 2),
        "env.kwargs.map": None if i % 4 else 3, "name": f"trial {i}",
    }
    for i in range(14)
]  # fmt: skip
TWO = [{key: point[key] for key in ("algo.lr", "net.hidden")} for point in LONG]
ALL = [(trial, seed) for trial in range(3) for seed in range(2)]
MAXIMIZE = {"return": "maximize", "best": "maximize"}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "one trial": {"points": TWO[:1]},
    "no hyperparameter, one seed": {"points": [{}, {}], "seeds": 1},
    "one hyperparameter": {"points": [{"algo.lr": 10.0**-i} for i in range(9)], "seeds": 1},
    "long names": {
        "points": LONG, "states": {(2, 1): "failed", (5, 0): "pruned", (6, 0): "running", (7, 0): "pending"},
    },
    "a group": {"points": [{"algo": "a2c"}, *({"algo": "ppo", "algo.clip_range": clip / 10} for clip in range(8))]},
    "none ranked": {"points": TWO[:3], "states": dict.fromkeys(ALL, "failed")},
    "one ranked": {"points": TWO[:3], "states": {(0, 0): "failed", (1, 0): "pruned"}},
    "none started": {"points": TWO[:3], "states": dict.fromkeys(ALL, "pending")},
    "without a value": {"points": TWO[:3], "objective": {"frames_to_solve": "minimize"}},
    "two objectives": {"points": TWO[:9], "objective": {"return": "maximize", "length": "minimize"}},
    "two objectives, none ranked": {"points": TWO[:3], "states": dict.fromkeys(ALL, "pruned"), "objective": MAXIMIZE},
    "three objectives": {"points": TWO[:9], "seeds": 1, "objective": {**MAXIMIZE, "stability": "minimize"}},
}  # fmt: skip


@pytest.mark.parametrize("case", EXPERIMENTS)
def test_experiments_of_every_kind_are_drawn(tmp_path: Path, case: str) -> None:
    assert is_png(plot_experiment(read_experiment(sweep(tmp_path, **EXPERIMENTS[case]))))


def test_two_trials_show_all_that_can_be_shown(tmp_path: Path) -> None:
    experiment = read_experiment(sweep(tmp_path, [{"algo": "a2c"}, {"algo": "ppo"}]))
    figure = experiment_figure(experiment)
    assert titles(figure)[0] == "Return: mean over seeds, 95 % interval\ncolors as in the ranking"
    assert "Parallel coordinates of the ranked Trials" in titles(figure)
    ranking = figure.axes[1]
    assert [label.get_text() for label in ranking.get_yticklabels()] == [
        "1. algo=ppo (trial-001)",
        "2. algo=a2c (trial-000)",
    ]
    texts = [text.get_text().replace("\n", " ") for ax in figure.axes for text in ax.texts]
    assert f"Importance needs {MIN_TRIALS} ranked Trials; 2 are ranked." in texts
    first, second = plotting.rank_color(0), plotting.rank_color(1)
    assert len(lines_of(figure.axes[0], first)) == len(lines_of(figure.axes[0], second)) == 1
    assert [line.get_color() for line in ranking.lines] == [first, second]


def test_importance_says_that_it_is_rough_below_20_trials(tmp_path: Path) -> None:
    for trials, rough in ((12, True), (20, False)):
        experiment = read_experiment(synthetic.experiment(tmp_path / str(trials), trials, 1, 5))
        (title,) = [title for title in titles(experiment_figure(experiment)) if title.startswith("Importance")]
        assert title == ("Importance\nrough: 12 Trials, fewer than 20" if rough else "Importance")


def test_axes_are_logarithmic_where_the_search_space_says_so(tmp_path: Path) -> None:
    points = [{"algo.lr": 0.01 + i / 1_000, "algo.gamma": 1 - 10.0 ** (-1 - i / 2)} for i in range(9)]
    directory = sweep(tmp_path, points, seeds=1)
    space = {"algo.lr": "tag(log, interval(1e-3, 1e-1))", "+algo.gamma": "interval(0.9, 1)"}
    write_json(directory.sweep, {**read_json(directory.sweep), "space": space})
    scales = {ax.get_xlabel(): ax.get_xscale() for ax in experiment_figure(read_experiment(directory)).axes}
    assert scales["algo.lr"] == "log"
    assert scales["algo.gamma"] == "linear"


def test_a_ranking_says_how_many_trials_it_leaves_out(tmp_path: Path) -> None:
    directory = sweep(tmp_path, [{"algo.lr": 1 / (i + 1)} for i in range(MAX_RANKED + 2)], seeds=1)
    figure = experiment_figure(read_experiment(directory))
    ranking = figure.axes[1]
    assert ranking.get_title().startswith(f"Ranking: best {MAX_RANKED} of {MAX_RANKED + 2} Trials")
    assert len(ranking.get_yticklabels()) == MAX_RANKED
    (others,) = [each for each in figure.axes[0].collections if isinstance(each, LineCollection)]
    assert len(others.get_segments()) + HIGHLIGHTED == MAX_RANKED + 2, "every Trial has a curve"


def test_each_environment_has_a_part_of_its_own(tmp_path: Path) -> None:
    points = [{"env": name, "algo.lr": lr} for name in ("cartpole", "acrobot") for lr in (0.1, 0.01)]
    directory = sweep(tmp_path, points)
    for number in (2, 3):
        for seed in (0, 1):
            session = directory.trial(number).session(seed)
            spec = {**specs("algo=a2c", "env=acrobot")[0].to_dict(), "seed": seed}
            session.spec.write_text(yaml.safe_dump(spec))
            overwrite(session, "return", -100.0 + number)
    figure = experiment_figure(read_experiment(directory))
    assert [part.get_suptitle() for part in figure.subfigs] == ["CartPole-v1", "Acrobot-v1"]
    for part, (low, high) in zip(figure.subfigs, ((0, 500), (-550, -80)), strict=True):
        assert low < part.axes[0].get_ylim()[0] < part.axes[0].get_ylim()[1] < high
        labels = [label.get_text() for label in part.axes[1].get_yticklabels()]
        assert [label[:5] for label in labels] == ["1. lr", "2. lr"], "each ranking begins with 1; env is in the title"
        assert [line.get_color() for line in part.axes[1].lines] == [plotting.rank_color(0), plotting.rank_color(1)]
    assert "Trials are ranked within each environment" in figure.texts[-1].get_text()


def test_no_panel_is_empty_where_no_trial_is_ranked(tmp_path: Path) -> None:
    experiment = read_experiment(sweep(tmp_path, **EXPERIMENTS["none ranked"]))
    assert len(experiment_figure(experiment).axes) == 2


def test_equal_objectives_are_drawn(tmp_path: Path) -> None:
    directory = sweep(tmp_path, TWO[:9])
    for trial in directory.trials():
        for seed in (0, 1):
            path = trial.session(seed).episodes
            pd.read_csv(path).assign(**{"return": 7.0}).to_csv(path, index=False)
    experiment = read_experiment(directory)
    assert {ranked.values[0] for ranked in experiment.ranking} == {7.0}
    assert is_png(plot_experiment(experiment))


def test_the_same_files_give_the_same_pictures(tmp_path: Path) -> None:
    states = {(2, 1): "failed", (4, 0): "pruned", (4, 1): "pruned"}
    directory = synthetic.experiment(tmp_path, 9, 2, states=states)
    with plt.rc_context({"lines.linewidth": 9, "axes.facecolor": "black"}):  # a user's own style changes nothing
        first = plot_experiment(read_experiment(directory)), plot_trial(read_trial(directory.trial(2)))
    assert (plot_experiment(read_experiment(directory)), plot_trial(read_trial(directory.trial(2)))) == first


def test_a_picture_leaves_no_figure_and_no_style_behind(tmp_path: Path) -> None:
    before = dict(plt.rcParams)
    assert is_png(plot_trial(read_trial(sweep(tmp_path, [{}]).trial(0))))
    assert dict(plt.rcParams) == before
    assert is_png(png(Figure()))


def test_24_trials_on_one_axes_have_24_colors() -> None:
    assert len({plotting.rank_color(place) for place in range(24)}) == 24
    assert plotting.rank_color(0) == plotting.PALETTE[0]
