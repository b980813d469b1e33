"""Published results: Trials of algorithms on environments, compared with the returns that a peer publishes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.analysis.experiment import Experiment, read_experiment
from lab.analysis.statistics import Estimate
from lab.analysis.trial import VARIES, Trial, describe_unfinished, read_trial
from lab.common.text import format_interval, format_number
from lab.errors import LabError
from lab.run.directory import SweepDir, TrialDir, find_level
from lab.run.schemas import METRICS

COLUMNS = ("algo", "env", "frames", "return")  # of a peer's CSV
CEILINGS = {"CartPole-v1": 500.0}  # highest possible mean return, by environment
EVEN = 0.01  # fraction of a ceiling: near it, a smaller difference counts as even
MEANS = ("best", "eval_return", "strength", "frames_to_solve")  # metrics with only their mean in results.json
NO_ESTIMATE: Estimate = {"value": None, "low": None, "high": None}


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


class Result:
    """A published Trial compared with a peer's result.

    `mean` is the mean return with its interval, `difference` that minus the peer's, `verdict` better, even or worse,
    and `shortfall` how far it is below the peer's, as a fraction of the peer's gain over random actions.
    """

    def __init__(self, trial: Trial, peers: Peers) -> None:
        self.trial = trial
        self.algo, self.env = str(trial.spec["algo.name"]), str(trial.spec["env.name"])
        self.frames = int(trial.spec["frames"])
        # The peer's result is for the environment as conf/env defines it.
        same = trial.spec.get("env.reference.id") == trial.environment
        self.peer = peers.get((self.env, self.algo)) if same else None
        self.metrics = {name: summary for name, summary in trial.summaries.items() if summary["n"]}
        self.mean: Estimate = self.metrics["return"]["mean"] if "return" in self.metrics else NO_ESTIMATE
        self.difference: float | None = None
        self.verdict: str | None = None
        self.shortfall: float | None = None
        if self.peer and self.mean["value"] is not None:
            self.difference = difference = self.mean["value"] - self.peer.value
            ceiling = CEILINGS.get(trial.environment)
            even = ceiling is not None and max(ceiling - self.peer.value, abs(difference)) <= EVEN * ceiling
            self.verdict = "even" if even or difference == 0 else "better" if difference > 0 else "worse"
            random_return = trial.reference.get("random_return")
            if random_return is not None and self.peer.value > random_return:
                self.shortfall = -difference / (self.peer.value - random_return)


@dataclass
class Publication:
    """Results published together."""

    path: Path  # of the directory that holds the Trials
    results: dict[tuple[str, str], Result]  # by environment and algorithm
    experiments: dict[str, Experiment]  # by name
    benchmark: Benchmark | None  # what a peer publishes, which the results are compared with
    ignored: list[str]  # what else the directory holds, and why it is no result

    @property
    def peers(self) -> Peers:
        """The peer's results, by environment and algorithm."""
        return self.benchmark.peers if self.benchmark else {}

    @property
    def environments(self) -> list[str]:
        """Environments with a Trial, in the order of the peer's results, others after them by name."""
        return _in_order((env for env, _ in self.peers), {env for env, _ in self.results})

    @property
    def algorithms(self) -> list[str]:
        """Algorithms with a Trial, in the same order."""
        return _in_order((algo for _, algo in self.peers), {algo for _, algo in self.results})

    def on(self, env: str) -> list[Result]:
        """Return the results on an environment, by algorithm."""
        return [self.results[env, algo] for algo in self.algorithms if (env, algo) in self.results]

    def ordered(self) -> list[Result]:
        """Return all results, by environment and then by algorithm."""
        return [result for env in self.environments for result in self.on(env)]


def _in_order(known: Iterable[str], names: set[str]) -> list[str]:
    return [name for name in dict.fromkeys([*known, *sorted(names)]) if name in names]


def read_publication(path: Path, benchmark: Benchmark | None = None) -> Publication:
    """Read the Trials and Experiments in the sub-directories of a directory; others are ignored.

    Raises:
        LabError: there is no Trial, there are two of the same algorithm and environment, an Experiment has the name of
            an environment, or a file cannot be read.
    """
    if not path.is_dir():
        raise LabError(f"{path} cannot be published: there is no such directory.")
    if kind := _level(path):
        raise LabError(f"{path} is itself the directory of {kind}: name the directory that holds its Trials.")
    publication = Publication(path, {}, {}, benchmark, [])
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        kind = _level(folder)
        if kind == "an Experiment":
            publication.experiments[folder.name] = read_experiment(SweepDir(folder))
        elif kind == "a Trial":
            _add_trial(publication, folder)
        elif kind:
            publication.ignored.append(f"{folder.name} is {kind}, not a Trial")
    if not publication.results:
        ignored = f" ({'; '.join(publication.ignored)})" if publication.ignored else ""
        raise LabError(f"{path} holds no Trial: put one into a sub-directory such as {path / 'ppo_cartpole'}{ignored}.")
    for env in {*publication.environments} & {*publication.experiments}:
        raise LabError(
            f"{path / env} is an Experiment with the name, so also the picture, of an environment: rename it."
        )
    return publication


def _level(path: Path) -> str | None:
    try:
        return {"session": "a Session", "trial": "a Trial", "experiment": "an Experiment"}[find_level(path)]
    except LabError:
        return None


def _add_trial(publication: Publication, folder: Path) -> None:
    """Add the result of a Trial that has started, unless its spec is unreadable or another Trial contradicts it."""
    trial = read_trial(TrialDir(folder)) if TrialDir(folder).seeds() else None
    if trial is None or (trial.state == "pending" and not trial.spec):
        publication.ignored.append(f"no Session of {folder.name} has started")
        return
    if not trial.spec:
        raise LabError(f"{folder} cannot be published: the spec of none of its Sessions can be read.")
    for key in ("algo.name", "env.name", "env.id", "frames"):
        if trial.spec[key] == VARIES:
            raise LabError(f"{folder} cannot be published: {key} is not the same in all of its Sessions.")
    result = Result(trial, publication.peers)
    for other in publication.results.values():
        names = f"{other.trial.directory.path} and {folder}"
        if (other.env, other.algo) == (result.env, result.algo):
            raise LabError(f"{names} are both of {trial.title}: only one Trial of a pair can be published.")
        if other.env == result.env and other.trial.environment != trial.environment:
            environments = f"{other.trial.environment} and {trial.environment}"
            raise LabError(f"{names} have different environments under the name {result.env}: {environments}.")
    publication.results[result.env, result.algo] = result


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


def results_json(publication: Publication) -> dict[str, Any]:
    """Return the content of results.json: metrics by environment and algorithm; deterministic."""
    results: dict[str, Any] = {}
    for result in publication.ordered():
        results.setdefault(result.env, {})[result.algo] = _row(result)
    return results


def results_csv(publication: Publication) -> str:
    """Return the content of results.csv: a row for each Trial, with all of its metrics."""
    rows = []
    for result in publication.ordered():
        row = {"env": result.env, "algo": result.algo, "env_id": result.trial.environment, **_row(result)}
        for name in METRICS:
            if name != "frames":  # in a row, the planned frames
                row |= _flat_estimate(name, result.metrics.get(name), "mean")
        rows.append({**row, "directory": result.trial.directory.path.name})
    return pd.DataFrame(rows, dtype=object).to_csv(index=False)


def _row(result: Result) -> dict[str, Any]:
    """Return the plain values of a result in results.json."""
    peer, solved = result.peer, result.metrics.get("frames_to_solve")
    return {
        "frames": result.frames,
        "sessions": len(result.trial.completed),
        "planned": len(result.trial.sessions),
        **_flat_estimate("return", result.metrics.get("return"), "mean"),
        **_flat_estimate("iqm", result.metrics.get("return"), "iqm"),
        **{name: _flat_estimate(name, result.metrics.get(name), "mean")[name] for name in MEANS},
        "solved": solved["n"] if solved else 0,
        "peer": peer.value if peer else None,
        "peer_frames": peer.frames if peer else None,
        "difference": result.difference,
        "verdict": result.verdict,
    }


def _flat_estimate(name: str, summary: dict[str, Any] | None, statistic: str) -> Estimate:
    estimate = summary[statistic] if summary else NO_ESTIMATE
    return {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}


def list_shortfalls(publication: Publication) -> list[str]:
    """Return a sentence on each result that is worse than the peer's: by how much, and whether that is certain."""
    sentences = []
    for result in publication.ordered():
        if result.verdict != "worse" or not publication.benchmark or not result.peer or result.difference is None:
            continue
        text = f"{result.trial.title} is {format_number(-result.difference)} below {publication.benchmark.name}'s"
        text += f" {format_number(result.peer.value)}"
        if result.shortfall is not None:
            text += f", {100 * result.shortfall:.1f} % of its gain over random actions"
        low, high = result.mean["low"], result.mean["high"]
        if low is not None and high is not None:
            contains = "contains" if low <= result.peer.value <= high else "does not contain"
            text += f"; the 95 % interval {format_interval(result.mean)} {contains} that return"
        sentences.append(f"{text}.")
    return sentences


def list_notes(publication: Publication) -> list[str]:
    """Return sentences on excluded Sessions, different frames, results without a counterpart and ignored folders."""
    notes, benchmark = [], publication.benchmark
    for result in publication.ordered():
        title = result.trial.title
        unfinished = "; ".join(describe_unfinished(result.trial.sessions))
        if unfinished:
            notes.append(f"In {title}, {unfinished}: Sessions that did not complete are excluded.")
        if benchmark and result.peer and result.peer.frames != result.frames:
            notes.append(
                f"{title} was trained for {result.frames:,} frames and {benchmark.name}'s for {result.peer.frames:,}:"
                " that alone can make a difference."
            )
    if benchmark:
        missing: dict[str, list[str]] = {}
        for env, algo in benchmark.peers:
            if (env, algo) not in publication.results:
                missing.setdefault(env, []).append(algo)
        if missing:
            named = "; ".join(f"on {env}, {', '.join(algos)}" for env, algos in missing.items())
            notes.append(f"{benchmark.name} has results without a Trial here: {named}.")
        without = [result.trial.title for result in publication.ordered() if result.peer is None]
        if without:
            notes.append(f"{benchmark.name} has no result of {', '.join(without)}.")
    return notes + [f"Ignored: {reason}." for reason in publication.ignored]
