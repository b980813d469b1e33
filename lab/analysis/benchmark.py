"""Results that a peer publishes, read from a CSV such as benchmark/slm_lab.csv."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lab.errors import LabError

COLUMNS = ("algo", "env", "frames", "return")


@dataclass(frozen=True)
class Peer:
    """A result that a peer publishes: the mean return of an algorithm on an environment after some frames."""

    frames: int
    value: float


Peers = dict[tuple[str, str], Peer]  # by environment and algorithm


@dataclass(frozen=True)
class Benchmark:
    """Results that a peer publishes, in the order of the file; `source` says what they are and where they come from."""

    name: str
    source: str
    peers: Peers


def read_benchmark(path: Path) -> Benchmark:
    """Read a peer's results from a CSV; its first comment names the peer and, after a colon, the source.

    Raises:
        LabError: the file cannot be read, lacks a column, has a result twice or one that is not a number.
    """
    needed = f"{', '.join(COLUMNS[:-1])} and {COLUMNS[-1]}"
    try:
        text = path.read_text(encoding="utf-8")
        rows = pd.read_csv(io.StringIO(text), comment="#", dtype=str).fillna("").rename(columns=str.strip)
    except FileNotFoundError as error:
        raise LabError(f"against={path} does not exist: it must be a CSV with the columns {needed}.") from error
    except pd.errors.EmptyDataError:
        rows = pd.DataFrame()
    except (OSError, ValueError) as error:
        raise LabError(f"against={path} cannot be read: {error}.") from error
    for column in COLUMNS:
        if column not in rows:
            raise LabError(f"{path} has no column {column!r}: its columns must be {needed}.")
        rows[column] = rows[column].str.strip()
    frames, values = (pd.to_numeric(rows[column], errors="coerce").to_numpy(float) for column in COLUMNS[2:])
    peers: Peers = {}
    for index, (algo, env) in enumerate(zip(rows["algo"], rows["env"], strict=True)):
        for column, valid, allowed in (
            ("frames", frames[index] >= 1 and frames[index].is_integer(), "a positive whole number"),
            ("return", np.isfinite(values[index]), "a number"),
        ):
            if not valid:
                text = f"{column}={rows[column][index]} is not allowed: {column} must be {allowed}"
                raise LabError(f"{path}, {algo} on {env}: {text}.")
        if (env, algo) in peers:
            raise LabError(f"{path} has two results of {algo} on {env}.")
        peers[env, algo] = Peer(int(frames[index]), float(values[index]))
    comment = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("#")), path.stem)
    name, _, source = comment.partition(": ")
    return Benchmark(name, source, peers)
