"""The figures of a Session, as DESIGN names them: how much better than random actions, how soon, how steadily."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.common.text import flatten
from lab.errors import LabError, warn_once
from lab.run.directory import RunDir
from lab.run.files import read_yaml
from lab.run.schemas import ENDED, SPEC

POLICY_LOSSES = ("policy_loss", "actor_loss")  # columns of metrics.csv, as algorithms name them
VALUE_LOSSES = ("value_loss", "critic_loss", "q_loss")
WINDOW = 100  # episodes in what is called the return
NO_SESSION = "{} is not the run directory of a Session: {} is missing."
NEEDED = ("name", "seed", "frames", "threads", "mode", "algo.name", "env.name", "env.id")  # keys that every spec has
COLUMNS = {
    "episodes": ("frame", "return", "length"),
    "metrics": ("frame", "optimizer_steps", "episodes", "return", "length", "eval_return"),
    "timing": ("frame", "seconds"),
}  # that every table of that name has


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


@dataclass
class Session:
    """What is known of a Session, finished or not.

    Attributes:
        directory: where it is.
        seed: its seed.
        state: one of lab.run.directory.STATES, or `pending` if it never began.
        frame: frames done.
        frames: frames asked for; 0 if it never began.
        error: why it failed (a traceback, or a sentence) or was pruned.
        tables: what it wrote; null if it never came to write.
        figures: what session.json holds; empty without tables.
    """

    directory: RunDir
    seed: int
    state: str
    frame: int
    frames: int
    error: str | None
    tables: Tables | None
    figures: dict[str, Any]

    def figure(self, name: str) -> float | None:
        """Return a figure as it counts over seeds; null if the Session has none, or one that is not finite."""
        value = self.figures.get(name)
        return float(value) if value is not None and np.isfinite(value) else None


def read_session(directory: RunDir, seed: int) -> Session:
    """Read a Session that may not have begun; one that completed, but whose files are damaged, counts as failed."""
    status = directory.find_status()
    if status is None:
        return Session(directory, seed, "pending", 0, 0, None, None, {})
    state, error, tables = status["state"], status["error"], None
    figures: dict[str, Any] = {}
    if state == "completed" or _has_tables(directory):
        try:
            tables = read_tables(directory, status)
            figures = session_results(tables)
        except LabError as problem:
            if state == "completed":
                warn_once(f"{problem} The Session of seed {seed} counts as failed.")
                state = "failed"
            reason = str(problem).replace(f"{directory.path}/", "")  # as figures are the same wherever they are made
            error = error or reason
    return Session(directory, seed, state, status["frame"], status["frames"], error, tables, figures)


def _has_tables(directory: RunDir) -> bool:
    files = (directory.episodes, directory.metrics)
    return all(file.exists() and file.stat().st_size for file in files)


def read_tables(directory: RunDir, status: dict[str, Any] | None = None) -> Tables:
    """Read the tables of a Session, finished or not.

    Args:
        directory: of the Session.
        status: what its status.json holds, if that is read already.

    Raises:
        LabError: the directory is not that of a Session, or a file is damaged: a table of a Session that ended is not
            the one that it wrote.
    """
    spec = read_spec(directory)
    status = status or directory.read_status()
    sizes = status.get("tables", {}) if status["state"] in ENDED else {}

    def rows(name: str) -> pd.DataFrame:
        return _read_rows(directory.tables[name], COLUMNS[name], sizes.get(name))

    try:
        episodes, metrics = rows("episodes"), rows("metrics")
    except FileNotFoundError as error:
        raise LabError(f"{error.filename} is missing.") from error
    try:
        timing = rows("timing")
    except (LabError, FileNotFoundError) as error:
        missing = f"{directory.timing} is missing." if isinstance(error, FileNotFoundError) else str(error)
        warn_once(f"{missing} How long the Session took is not known.")
        timing = pd.DataFrame({column: pd.Series(dtype=float) for column in COLUMNS["timing"]})
    return Tables(spec, episodes, metrics, timing, status["state"])


def _read_rows(path: Path, columns: Sequence[str], written: dict[str, int] | None) -> pd.DataFrame:
    """Read a table.

    Args:
        path: its file.
        columns: some that it has.
        written: size and CRC-32 that it had when its Session ended; null where that is not known.
    """
    content = path.read_bytes()
    if written and (len(content), zlib.crc32(content)) != (written["size"], written["crc32"]):
        raise LabError(f"{path} is damaged: its checksum does not fit.")
    # A Session that runs, or was killed, may have written half of a last row.
    try:
        rows = pd.read_csv(io.BytesIO(content[: content.rfind(b"\n") + 1]), low_memory=False)
    except ValueError as error:
        raise LabError(f"{path} is damaged: {error}.") from error
    for column in columns:
        if column not in rows:
            raise LabError(f"{path} is damaged: it has no column {column!r}.")
    for name in rows:
        if len(rows) and not pd.api.types.is_numeric_dtype(rows[name]):
            raise LabError(f"{path} is damaged: its column {str(name)!r} holds other things than numbers.")
    return rows


def read_spec(directory: RunDir) -> dict[str, Any]:
    """Read the spec of a Session as plain data.

    Raises:
        LabError: the directory is not that of a Session, or the spec cannot be read.
    """
    try:
        spec = read_yaml(directory.spec, SPEC)
        for key in NEEDED:
            flatten(spec)[key]
        spec["env"]["kwargs"], spec["env"]["reference"]["id"]
        return spec
    except FileNotFoundError as error:
        raise LabError(NO_SESSION.format(directory.path, error.filename)) from error


def session_results(tables: Tables) -> dict[str, Any]:
    """Return the deterministic figures of a Session; null where it is too short for one, or one has no meaning."""
    log = {key: tables.metrics[key].to_numpy(float) for key in ("frame", "optimizer_steps", "return", "eval_return")}
    means = tables.episodes["return"].rolling(WINDOW, min_periods=1).mean().to_numpy()
    full = means[WINDOW - 1 :]
    evaluations = log["eval_return"][~np.isnan(log["eval_return"])]
    results: dict[str, Any] = {
        "frames": _last(log["frame"], int),
        "optimizer_steps": _last(log["optimizer_steps"], int),
        "episodes": len(tables.episodes),
        "return": _last(means),
        "best": float(np.nanmax(full)) if not np.isnan(full).all() else _last(means),
        "eval_return": _last(evaluations),
        "eval_best": float(evaluations.max()) if len(evaluations) else None,
        "length": float(tables.episodes["length"].tail(WINDOW).mean()) if len(tables.episodes) else None,
    }
    random_return, solved = tables.reference["random_return"], tables.reference["solved"]
    names = ("strength", "max_strength", "final_strength", "sample_efficiency", "training_efficiency", "stability")
    figures: dict[str, float | None] = dict.fromkeys(names)
    begun = ~np.isnan(log["return"])
    if random_return is not None and begun.any():
        strengths = log["return"][begun] - random_return
        figures = {
            "strength": float(strengths.mean()),
            "max_strength": float(strengths.max()),
            "final_strength": float(strengths[-1]),
            "sample_efficiency": efficiency(strengths, log["frame"][begun]),
            "training_efficiency": efficiency(strengths, log["optimizer_steps"][begun]),
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
    if len(strengths) < 2 or total == 0 or not np.isfinite(strengths).all():
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


def _last(column: np.ndarray, kind: Any = float) -> Any:
    return kind(column[-1]) if len(column) else None
