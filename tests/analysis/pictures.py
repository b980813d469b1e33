"""Made-up Experiments, and what is drawn in their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.analysis import plotting
from lab.run.directory import RunDir, SweepDir
from lab.run.files import write_json
from tests import synthetic
from tests.helpers import specs

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
