"""Results that peers publish, read from CSVs such as benchmark/slm_lab.csv."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lab.errors import LabError

COLUMNS = ("algo", "env", "frames", "return")
METRICS = ("return", "eval_return")  # that a peer's result may be


@dataclass(frozen=True)
class Peer:
    """A result that a peer publishes: the mean return of an algorithm on an environment after some frames.

    Attributes:
        metric: what it is: `return` in training, or `eval_return` of the deterministic policy after it.
        name: of the peer.
    """

    frames: int
    value: float
    metric: str = "return"
    name: str = "the peer"


Peers = dict[tuple[str, str], Peer]  # by environment and algorithm


@dataclass(frozen=True)
class Benchmark:
    """Results that peers publish, in the order of the files.

    Attributes:
        name: of the peer; `peer` for several.
        sources: by peer, what its results are and where they come from.
    """

    name: str
    sources: dict[str, str]
    peers: Peers


def read_benchmarks(paths: Sequence[Path]) -> Benchmark | None:
    """Read the results of several peers; of an algorithm on an environment that two have, the first counts.

    Raises:
        LabError: a file cannot be used.
    """
    each = [read_benchmark(path) for path in paths]
    if len(each) < 2:
        return each[0] if each else None
    sources: dict[str, str] = {}
    peers: Peers = {}
    for benchmark in reversed(each):
        sources, peers = {**benchmark.sources, **sources}, {**peers, **benchmark.peers}
    return Benchmark("peer", sources, {key: peers[key] for one in each for key in one.peers})


def read_benchmark(path: Path) -> Benchmark:
    """Read a peer's results from a CSV; its first comment names the peer and, after a colon, the source.

    The column `metric`, `return` unless it is there, is what the peer measures.

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
    metrics = rows["metric"].str.strip().replace("", METRICS[0]) if "metric" in rows else [METRICS[0]] * len(rows)
    comment = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("#")), path.stem)
    name, _, source = comment.partition(": ")
    frames, values = (pd.to_numeric(rows[column], errors="coerce").to_numpy(float) for column in COLUMNS[2:])
    peers: Peers = {}
    for index, (algo, env) in enumerate(zip(rows["algo"], rows["env"], strict=True)):
        for column, valid, allowed in (
            ("frames", frames[index] >= 1 and frames[index].is_integer(), "a positive whole number"),
            ("return", np.isfinite(values[index]), "a number"),
            ("metric", metrics[index] in METRICS, " or ".join(METRICS)),
        ):
            if not valid:
                text = f"{column}={rows[column][index]} is not allowed: {column} must be {allowed}"
                raise LabError(f"{path}, {algo} on {env}: {text}.")
        if (env, algo) in peers:
            raise LabError(f"{path} has two results of {algo} on {env}.")
        peers[env, algo] = Peer(int(frames[index]), float(values[index]), metrics[index], name)
    return Benchmark(name, {name: source}, peers)
