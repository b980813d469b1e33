"""The figures of a Session, as DESIGN names them: how much better than random actions, how soon, how steadily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lab.errors import LabError
from lab.run_dir import RunDir

WINDOW = 100  # episodes in what is called the return


@dataclass
class Tables:
    """What a Session wrote.

    Attributes:
        spec: its spec, as plain data.
        episodes: a row for each finished episode: frame, return, length.
        metrics: a row for each log interval.
        timing: a row for each log interval: seconds in all and by phase.
        state: how it stands.
    """

    spec: dict[str, Any]
    episodes: pd.DataFrame
    metrics: pd.DataFrame
    timing: pd.DataFrame
    state: str

    @property
    def reference(self) -> dict[str, Any]:
        """What is known of the environment: random_return and solved, null where unknown or of another one."""
        env = self.spec["env"]
        known = env["reference"]["id"] == env["id"] and not env["kwargs"]
        return env["reference"] if known else {"random_return": None, "solved": None}


def read_tables(directory: RunDir) -> Tables:
    """Read the tables of a Session, finished or not.

    Raises:
        LabError: the directory is not that of a Session, or a table cannot be read.
    """
    try:
        spec = yaml.safe_load(directory.spec.read_text(encoding="utf-8"))
        episodes, metrics, timing = map(pd.read_csv, (directory.episodes, directory.metrics, directory.timing))
    except FileNotFoundError as error:
        raise LabError(
            f"{directory.path} is not the run directory of a Session: {error.filename} is missing."
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise LabError(f"A table in {directory.path} cannot be read: {error}.") from error
    return Tables(spec, episodes, metrics, timing, directory.read_status()["state"])


def session_results(tables: Tables) -> dict[str, Any]:
    """Return the deterministic figures of a Session; null where it is too short for one, or one has no meaning."""
    metrics = tables.metrics
    returns = metrics.dropna(subset="return")
    means = tables.episodes["return"].rolling(WINDOW, min_periods=1).mean()
    full = means.iloc[WINDOW - 1 :]
    evaluations = metrics["eval_return"].dropna()
    results: dict[str, Any] = {
        "frames": _last(metrics["frame"], int),
        "optimiser_steps": _last(metrics["optimiser_steps"], int),
        "episodes": len(tables.episodes),
        "return": _last(means),
        "best": float(full.max()) if len(full) else _last(means),
        "eval_return": _last(evaluations),
        "eval_best": float(evaluations.max()) if len(evaluations) else None,
        "length": _last(tables.episodes["length"].rolling(WINDOW, min_periods=1).mean()),
    }
    random_return, solved = tables.reference["random_return"], tables.reference["solved"]
    names = ("strength", "max_strength", "final_strength", "sample_efficiency", "training_efficiency", "stability")
    figures: dict[str, float | None] = dict.fromkeys(names)
    if random_return is not None and len(returns):
        strengths = returns["return"].to_numpy() - random_return
        figures = {
            "strength": float(strengths.mean()),
            "max_strength": float(strengths.max()),
            "final_strength": float(strengths[-1]),
            "sample_efficiency": efficiency(strengths, returns["frame"].to_numpy()),
            "training_efficiency": efficiency(strengths, returns["optimiser_steps"].to_numpy()),
            "stability": stability(strengths),
        }
    return results | figures | {"frames_to_solve": frames_to_solve(tables.episodes, solved)}


def efficiency(strengths: np.ndarray, times: np.ndarray) -> float | None:
    """Return the mean of strengths weighted by 1 / time: high if they came early. Null if nothing took any time."""
    counted = times > 0
    if not counted.any():
        return None
    weights = 1 / times[counted]
    return float((strengths[counted] * weights).sum() / weights.sum())


def stability(strengths: np.ndarray) -> float | None:
    """Return 1 less the share of strength that was lost again from one log point to the next; 1 is no loss at all."""
    total = strengths[:-1].sum()
    if len(strengths) < 2 or total == 0:
        return None
    losses = np.minimum(np.diff(strengths), 0).sum()
    return float(1 - abs(losses / total))


def frames_to_solve(episodes: pd.DataFrame, solved: float | None) -> int | None:
    """Return the first frame at which the mean return of 100 episodes reached what counts as solved, if it did."""
    if solved is None:
        return None
    means = episodes["return"].rolling(WINDOW).mean()
    reached = episodes["frame"][means >= solved]
    return int(reached.iloc[0]) if len(reached) else None


def _last(column: pd.Series, kind: Any = float) -> Any:
    return kind(column.iloc[-1]) if len(column) else None
