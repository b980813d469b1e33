"""The picture of an Experiment: what is drawn of which Trials, and that odd cases are drawn too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.collections import LineCollection

from lab.analysis import plotting
from lab.analysis.experiment import MIN_TRIALS, read_experiment
from lab.analysis.plot_experiment import MAX_RANKED, experiment_figure, plot_experiment
from lab.analysis.plot_hyperparameters import HIGHLIGHTED
from lab.analysis.plotting import band
from lab.run.files import read_json, write_json
from tests import synthetic
from tests.analysis.pictures import ROWS, TOO_HIGH, is_png, lines_of, overwrite, sweep, titles
from tests.helpers import specs


def drawn_bands(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    actual = []

    def listen(ax: Any, frames: np.ndarray, values: np.ndarray, statistic: str = "mean", **line: Any) -> None:
        actual.append(values)
        band(ax, frames, values, statistic, **line)

    monkeypatch.setattr(plotting, "band", listen)
    return actual


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
