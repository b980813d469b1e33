"""A Session read from its files, and its metrics: how good, how early and how steady its returns were."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.common.text import flatten
from lab.errors import LabError, warn_once
from lab.run.directory import RunDir
from lab.run.files import read_yaml
from lab.run.schemas import ENDED, SPEC

WINDOW = 100  # episodes over which returns are averaged
MAX_POINTS = 500  # of a curve
REQUIRED = ("name", "seed", "frames", "threads", "mode", "algo.name", "env.name", "env.id")  # keys of every spec
COLUMNS = {
    "episodes": ("frame", "return", "length"),
    "metrics": ("frame", "optimizer_steps", "episodes", "return", "length", "eval_return"),
    "timing": ("frame", "seconds"),
}  # required in each table


@dataclass
class Tables:
    """The spec and tables of a Session; `metrics` and `timing` have a row for each log interval."""

    spec: dict[str, Any]
    episodes: pd.DataFrame
    metrics: pd.DataFrame
    timing: pd.DataFrame
    state: str

    @property
    def reference(self) -> dict[str, Any]:
        """Reference returns of the environment: random_return and solved, None if unknown for this environment."""
        env = self.spec["env"]
        changed = env["kwargs"] or env.get("max_episode_steps") is not None
        known = env["reference"]["id"] == env["id"] and not changed
        return env["reference"] if known else {"random_return": None, "solved": None}

    @property
    def env_metrics(self) -> list[str]:
        """Names of env.metrics that episodes.csv has."""
        return [name for name in self.spec["env"].get("metrics", []) if name in self.episodes]

    def until(self, frame: float) -> Tables:
        """Return the tables with episodes and metrics as they were after a frame."""
        episodes, metrics = (rows[rows["frame"] <= frame] for rows in (self.episodes, self.metrics))
        return replace(self, episodes=episodes, metrics=metrics)

    def curve(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return frames [T] and values [T] of a column of metrics.csv where it is finite, at most MAX_POINTS."""
        if column not in self.metrics:
            return np.empty(0), np.empty(0)
        return thin(self.metrics["frame"].to_numpy(float), self.metrics[column].to_numpy(float))


def thin(frames: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames [T] at which all values [..., T] are finite, and these values; evenly thinned to MAX_POINTS."""
    places = np.flatnonzero(np.isfinite(np.atleast_2d(values)).all(axis=0))
    places = places[::-1][:: -(-max(len(places), 1) // MAX_POINTS)][::-1]  # from the end, to keep the last value
    return frames[places], values[..., places]


@dataclass
class Session:
    """A Session, finished or not."""

    directory: RunDir
    seed: int
    state: str  # one of lab.run.schemas.STATES, or `pending` if it has not started
    frame: int  # frames done
    frames: int  # frames planned; 0 if it has not started
    error: str | None  # why it failed (a traceback or a sentence) or was pruned
    tables: Tables | None  # None if it has not written any
    metrics: dict[str, Any]  # content of session.json; empty without tables
    stopped: str | None = None  # why it completed before all frames were done: its return had reached `stop_at`

    def metric(self, name: str) -> float | None:
        """Return a metric; None if the Session has none, or one that is not finite."""
        value = self.metrics.get(name)
        return float(value) if value is not None and np.isfinite(value) else None


def read_session(directory: RunDir, seed: int) -> Session:
    """Read a Session that may not have started; a completed one whose files are damaged counts as failed."""
    status = directory.find_status()
    if status is None:
        return Session(directory, seed, "pending", 0, 0, None, None, {})
    state, error, tables = status["state"], status["error"], None
    metrics: dict[str, Any] = {}
    has_tables = all(file.exists() and file.stat().st_size for file in (directory.episodes, directory.metrics))
    if state == "completed" or has_tables:
        try:
            tables = read_tables(directory, status)
            metrics = session_results(tables)
        except LabError as problem:
            if state == "completed":
                warn_once(f"{problem} The Session of seed {seed} counts as failed.")
                state = "failed"
            error = error or str(problem).replace(f"{directory.path}/", "")  # the same wherever the directory is
    stopped = status.get("stopped")
    return Session(directory, seed, state, status["frame"], status["frames"], error, tables, metrics, stopped)


def before_extension(session: Session) -> Session:
    """Return a Session as it was before `resume DIR frames=...` extended it; the same if it was not extended."""
    tables = session.tables
    plans = tables.spec.get("extended_from") if tables else None
    if tables is None or not plans:
        return session
    ends = tables.metrics["frame"][tables.metrics["frame"] >= plans[0]]
    if not len(ends):  # it has not come so far
        return session
    spec = {**tables.spec, "frames": plans[0]}
    tables = replace(tables.until(ends.iloc[0]), spec=spec, state="completed")
    results, frame = session_results(tables), int(ends.iloc[0])
    return replace(session, state="completed", frame=frame, frames=plans[0], tables=tables, metrics=results)


def read_tables(directory: RunDir, status: dict[str, Any] | None = None) -> Tables:
    """Read the spec and tables of a Session, finished or not; `status` is the content of status.json if known.

    Raises:
        LabError: the directory holds no Session, or a file is damaged: its table does not match its checksum.
    """
    spec = read_spec(directory)
    status = status or directory.read_status()
    checksums = status.get("tables", {}) if status["state"] in ENDED else {}
    tables: dict[str, pd.DataFrame] = {}
    for name, path in directory.tables.items():
        try:
            tables[name] = _read_table(path, COLUMNS[name], checksums.get(name))
        except (LabError, FileNotFoundError) as error:
            missing = LabError(f"{path} is missing.") if isinstance(error, FileNotFoundError) else error
            if name != "timing":
                raise missing from error
            warn_once(f"{missing} How long the Session took is not known.")
            tables[name] = pd.DataFrame({column: pd.Series(dtype=float) for column in COLUMNS[name]})
    return Tables(spec, **tables, state=status["state"])


def _read_table(path: Path, columns: Sequence[str], checksum: dict[str, int] | None) -> pd.DataFrame:
    content = path.read_bytes()
    if checksum and (len(content), zlib.crc32(content)) != (checksum["size"], checksum["crc32"]):
        raise LabError(f"{path} is damaged: its checksum does not fit.")
    # A running or killed Session may have written half of the last row.
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
        LabError: the directory holds no Session, or the spec cannot be read.
    """
    try:
        spec = read_yaml(directory.spec, SPEC)
        for key in REQUIRED:
            flatten(spec)[key]
        spec["env"]["kwargs"], spec["env"]["reference"]["id"]
        return spec
    except FileNotFoundError as error:
        message = f"{directory.path} is not the run directory of a Session: {error.filename} is missing."
        raise LabError(message) from error


def session_results(tables: Tables) -> dict[str, Any]:
    """Return the content of session.json: deterministic metrics, None where one is undefined."""
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
    for name in tables.env_metrics:
        results[name] = float(tables.episodes[name].tail(WINDOW).mean()) if len(tables.episodes) else None
        results[f"eval_{name}"] = _last(tables.curve(f"eval_{name}")[1])
    random_return, solved = tables.reference["random_return"], tables.reference["solved"]
    names = ("strength", "max_strength", "final_strength", "sample_efficiency", "training_efficiency", "stability")
    results |= dict.fromkeys(names)
    logged = ~np.isnan(log["return"])
    if random_return is not None and logged.any():
        strengths = log["return"][logged] - random_return
        results |= {
            "strength": float(strengths.mean()),
            "max_strength": float(strengths.max()),
            "final_strength": float(strengths[-1]),
            "sample_efficiency": efficiency(strengths, log["frame"][logged]),
            "training_efficiency": efficiency(strengths, log["optimizer_steps"][logged]),
            "stability": stability(strengths),
        }
    return results | {"frames_to_solve": frames_to_solve(tables.episodes, solved)}


def efficiency(strengths: np.ndarray, times: np.ndarray) -> float | None:
    """Return the mean of strengths weighted by 1 / time; None if all times are 0."""
    positive = times > 0
    return float(np.average(strengths[positive], weights=1 / times[positive])) if positive.any() else None


def stability(strengths: np.ndarray) -> float | None:
    """Return 1 minus the fraction of strength lost from one log point to the next; 1 means no loss."""
    total = strengths[:-1].sum()
    if len(strengths) < 2 or total == 0 or not np.isfinite(strengths).all():
        return None
    return float(1 - abs(np.minimum(np.diff(strengths), 0).sum() / total))


def frames_to_solve(episodes: pd.DataFrame, solved: float | None) -> int | None:
    """Return the first frame at which the mean return of WINDOW episodes reaches `solved`, if it does."""
    if solved is None:
        return None
    reached = episodes["frame"][episodes["return"].rolling(WINDOW).mean() >= solved]
    return int(reached.iloc[0]) if len(reached) else None


def _last(column: np.ndarray, kind: Any = float) -> Any:
    return kind(column[-1]) if len(column) else None
