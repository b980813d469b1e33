"""Published results: Trials of algorithms on environments, and the figures of a peer that they are held against."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.analysis.card import environment, title
from lab.analysis.experiment import Experiment, read_experiment
from lab.analysis.plotting import reference_of, written
from lab.analysis.trial import VARIES, Trial, read_trial, standing, summaries
from lab.analysis.wording import estimated, interval, number
from lab.errors import LabError
from lab.run.directory import SweepDir, TrialDir, find_level
from lab.run.schemas import FIGURES

COLUMNS = ("algo", "env", "frames", "return")  # of a CSV of figures to be held against
CEILINGS = {"CartPole-v1": 500.0}  # highest mean return that there can be, by environment
EVEN = 0.01  # share of a ceiling: where the peer is this near to it, a difference this small is none
MEANS = ("best", "eval_return", "strength", "frames_to_solve")  # figures of which results.json has the mean alone
VERDICTS = ("better", "even", "worse")


@dataclass(frozen=True)
class Peer:
    """A figure that somebody else published: the mean return that an algorithm reached on an environment in frames."""

    frames: int
    value: float


@dataclass(frozen=True)
class Benchmark:
    """What somebody else published.

    Attributes:
        name: whose it is.
        source: what the figures are and where they come from.
        figures: by environment and algorithm, in the order of the file.
    """

    name: str
    source: str
    figures: dict[tuple[str, str], Peer]


@dataclass
class Result:
    """A Trial that is published, and the figure that it is held against, if there is one for its environment."""

    trial: Trial
    peer: Peer | None

    @property
    def algo(self) -> str:
        """The algorithm, as in conf/algo."""
        return str(self.trial.spec["algo.name"])

    @property
    def env(self) -> str:
        """The environment, as in conf/env."""
        return str(self.trial.spec["env.name"])

    @property
    def frames(self) -> int:
        """Frames that each Session was to be trained for."""
        return int(self.trial.spec["frames"])

    @property
    def incomplete(self) -> bool:
        """Whether some Session did not complete."""
        return len(self.trial.completed) < len(self.trial.sessions)

    @cached_property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Of each figure that a completed Session has, what lab.analysis.statistics.summarize says."""
        return {name: found for name, found in summaries(self.trial).items() if found["n"]}

    @property
    def mean(self) -> dict[str, float | None]:
        """The mean return with its interval; null where there is none."""
        return (
            self.figures["return"]["mean"] if "return" in self.figures else {"value": None, "low": None, "high": None}
        )

    @property
    def difference(self) -> float | None:
        """The mean return less the peer's."""
        value = self.mean["value"]
        return None if self.peer is None or value is None else value - self.peer.value

    @property
    def verdict(self) -> str | None:
        """One of VERDICTS: how the mean return is, held against the peer's."""
        if self.peer is None or self.difference is None:
            return None
        ceiling = CEILINGS.get(environment(self.trial.spec))
        near = ceiling is not None and max(ceiling - self.peer.value, abs(self.difference)) <= EVEN * ceiling
        return "even" if near or self.difference == 0 else "better" if self.difference > 0 else "worse"

    @property
    def share(self) -> float | None:
        """How far the mean return falls short of the peer's, as a share of the way to that from random actions."""
        random_return = reference_of(self.trial.sessions).get("random_return")
        if self.peer is None or self.difference is None or random_return is None or self.peer.value <= random_return:
            return None
        return -self.difference / (self.peer.value - random_return)


@dataclass
class Publication:
    """All that is published together.

    Attributes:
        path: the directory that holds the Trials.
        results: by environment and algorithm.
        experiments: those in the directory, by name.
        against: what the results are held against, if anything.
        left_out: what else the directory holds, and why it is no result.
    """

    path: Path
    results: dict[tuple[str, str], Result]
    experiments: dict[str, Experiment]
    against: Benchmark | None
    left_out: list[str]

    @property
    def environments(self) -> list[str]:
        """Environments of which there is a Trial: in the order of the peer's figures, others after them by name."""
        return self._ordered({env for env, _ in self.results}, [env for env, _ in self.peers])

    @property
    def algorithms(self) -> list[str]:
        """Algorithms of which there is a Trial, in the same order."""
        return self._ordered({algo for _, algo in self.results}, [algo for _, algo in self.peers])

    @property
    def peers(self) -> dict[tuple[str, str], Peer]:
        """The peer's figures, by environment and algorithm."""
        return self.against.figures if self.against else {}

    def of(self, env: str) -> list[Result]:
        """Return the results on an environment, by algorithm."""
        return [self.results[env, algo] for algo in self.algorithms if (env, algo) in self.results]

    def ordered(self) -> list[Result]:
        """Return all results, by environment and then by algorithm."""
        return [result for env in self.environments for result in self.of(env)]

    def counts(self) -> dict[str, int]:
        """Return how many results are better, even and worse."""
        verdicts = [result.verdict for result in self.results.values()]
        return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

    @staticmethod
    def _ordered(found: set[str], known: Sequence[str]) -> list[str]:
        return [name for name in dict.fromkeys([*known, *sorted(found)]) if name in found]


def read_publication(path: Path, against: Benchmark | None = None) -> Publication:
    """Read the Trials and Experiments in the sub-directories of a directory; what else is there is left alone.

    Raises:
        LabError: there is no Trial, there are two of the same algorithm and environment, an Experiment has the name of
            an environment, or a file cannot be read.
    """
    if not path.is_dir():
        raise LabError(f"{path} cannot be published: there is no such directory.")
    kind = _level(path)
    if kind:
        raise LabError(f"{path} is itself the directory of {_a(kind)}: name the directory that holds its Trials.")
    results: dict[tuple[str, str], Result] = {}
    experiments: dict[str, Experiment] = {}
    left_out = []
    for below in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        kind = _level(below)
        if kind == "experiment":
            experiments[below.name] = read_experiment(SweepDir(below))
            continue
        if kind != "trial":
            left_out += [f"{below.name} is {_a(kind)}, and no Trial"] if kind else []
            continue
        trial = read_trial(TrialDir(below)) if TrialDir(below).seeds() else None
        if trial is None or not trial.spec:
            if trial and trial.state != "pending":
                raise LabError(f"{below} cannot be published: the spec of none of its Sessions can be read.")
            left_out.append(f"of {below.name}, no Session has begun")
            continue
        result = _result(trial, against)
        _refuse_twin(results, result)
        results[result.env, result.algo] = result
    if not results:
        rest = f" ({'; '.join(left_out)})" if left_out else ""
        raise LabError(
            f"{path} holds no Trial: there must be one in a sub-directory, as {path / 'ppo_cartpole'}{rest}."
        )
    for env in {env for env, _ in results} & set(experiments):
        raise LabError(
            f"{path / env} has the name, and so the picture, of an environment, and is an Experiment: rename it."
        )
    return Publication(path, results, experiments, against, left_out)


def read_benchmark(path: Path) -> Benchmark:
    """Read what somebody else published: a CSV whose first comment says whose figures they are, and after a colon what.

    Raises:
        LabError: the file cannot be read, lacks a column, or has a figure twice or one that is no number.
    """
    wanted = f"{', '.join(COLUMNS[:-1])} and {COLUMNS[-1]}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise LabError(f"against={path} does not exist: it must be a CSV with the columns {wanted}.") from error
    except (OSError, ValueError) as error:
        raise LabError(f"against={path} cannot be read: {error}.") from error
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    rows = [(place, line) for place, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    head = _cells(rows[0][1]) if rows else []
    missing = [column for column in COLUMNS if column not in head]
    if missing:
        raise LabError(f"{path} has no column {missing[0]!r}: its columns must be {wanted}.")
    figures: dict[tuple[str, str], Peer] = {}
    for place, line in rows[1:]:
        row = dict(zip(head, _cells(line), strict=False))
        frames, value = (_number(row.get(column), column, f"{path}, line {place}") for column in COLUMNS[2:])
        pair = (row["env"], row["algo"])
        if pair in figures:
            raise LabError(f"{path}, line {place}: there is a figure of {row['algo']} on {row['env']} already.")
        figures[pair] = Peer(int(frames), value)
    name, _, source = comments[0].partition(": ") if comments else (path.stem, "", "")
    return Benchmark(name, source, figures)


def results_json(publication: Publication) -> dict[str, Any]:
    """Return what results.json holds: figures by environment and algorithm; it is deterministic."""
    made: dict[str, Any] = {}
    for result in publication.ordered():
        made.setdefault(result.env, {})[result.algo] = _flat(result)
    return made


def results_csv(publication: Publication) -> str:
    """Return results.csv: a row for each Trial, with all of its figures."""
    rows: list[dict[str, Any]] = []
    for result in publication.ordered():
        row = {"env": result.env, "algo": result.algo, "env_id": environment(result.trial.spec), **_flat(result)}
        for name in FIGURES:
            if name != "frames":  # which in a row are those asked for
                row |= _estimate(name, result.figures.get(name), "mean")
        rows.append({**row, "directory": result.trial.directory.path.name})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def said_of(experiment: Experiment) -> str:
    """Say in a sentence what an Experiment varied, and what was best."""
    objective, trials = experiment.objective, len(experiment.trials)
    said = f"{len(experiment.ranking)} of {trials} Trials ranked, over {', '.join(experiment.hyperparameters)}"
    best = experiment.best
    if best is None:
        return f"{said}; there is no one best."
    found = {"low": best.lows[0], "high": best.highs[0], "value": best.values[0]}
    figure = f"{objective.aggregate} {objective.metrics[0]}"
    point = ", ".join(f"{key}={written(value)}" for key, value in experiment.point(best.trial).items())
    return f"{said}; the best by {figure}: {estimated(found)} with {point}."


def shortfalls(publication: Publication) -> list[str]:
    """Return a sentence on each result that is worse than the peer's: by how much, and whether that is sure."""
    said = []
    for result in publication.ordered():
        if result.verdict == "worse" and publication.against and result.peer and result.difference is not None:
            share, mean = result.share, result.mean
            less = f"{title(result.trial)} is {number(-result.difference)} below {publication.against.name}'s"
            less += f" {number(result.peer.value)}"
            if share is not None:
                less += f", {100 * share:.1f} % of the way to it from random actions"
            if mean["low"] is not None and mean["high"] is not None:
                holds = mean["low"] <= result.peer.value <= mean["high"]
                less += f"; the 95 % interval {interval(mean)} {'holds' if holds else 'does not hold'} that figure"
            said.append(f"{less}.")
    return said


def notes(publication: Publication) -> list[str]:
    """Return sentences on what a reader of the table should know."""
    said, against = [], publication.against
    for result in publication.ordered():
        what = title(result.trial)
        rest = "; ".join(standing(result.trial.sessions))
        if rest:
            said.append(f"Of {what}, {rest}: what did not complete is in no figure.")
        if against and result.peer and result.peer.frames != result.frames:
            said.append(
                f"{what} was trained for {result.frames:,} frames and {against.name}'s for {result.peer.frames:,}:"
                " that alone can make a difference."
            )
    if against:
        absent: dict[str, list[str]] = {}
        for env, algo in against.figures:
            if (env, algo) not in publication.results:
                absent.setdefault(env, []).append(algo)
        if absent:
            named = "; ".join(f"on {env}, {', '.join(algos)}" for env, algos in absent.items())
            said.append(f"{against.name} has figures of which there is no Trial here: {named}.")
        other = [title(result.trial) for result in publication.ordered() if result.peer is None]
        if other:
            said.append(f"{against.name} has no figure of {', '.join(other)}.")
    said += [f"Left alone: {reason}." for reason in publication.left_out]
    return said


def _level(path: Path) -> str | None:
    try:
        return find_level(path)
    except LabError:
        return None


def _a(kind: str) -> str:
    return {"session": "a Session", "trial": "a Trial", "experiment": "an Experiment"}[kind]


def _result(trial: Trial, against: Benchmark | None) -> Result:
    for key in ("algo.name", "env.name", "env.id", "frames"):
        if key not in trial.spec:
            raise LabError(f"{trial.directory.path} cannot be published: the spec of its Sessions has no {key}.")
        if trial.spec[key] == VARIES:
            raise LabError(f"{trial.directory.path} cannot be published: {key} is not the same in all of its Sessions.")
    result = Result(trial, None)
    # A peer's figure is of the environment as conf/env has it, and of no other under its name.
    known = trial.spec.get("env.reference.id") == environment(trial.spec)
    if against and known:
        result.peer = against.figures.get((result.env, result.algo))
    return result


def _refuse_twin(results: dict[tuple[str, str], Result], result: Result) -> None:
    twin = results.get((result.env, result.algo))
    here = result.trial.directory.path
    if twin:
        raise LabError(
            f"{twin.trial.directory.path} and {here} are both of {title(result.trial)}: there can be one Trial of an"
            " algorithm on an environment."
        )
    for other in results.values():
        one, two = environment(other.trial.spec), environment(result.trial.spec)
        if other.env == result.env and one != two:
            raise LabError(
                f"{other.trial.directory.path} and {here} have different environments under the name {result.env}:"
                f" {one} and {two}."
            )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line]))]


def _number(text: str | None, column: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (column == "frames" and (value < 1 or not value.is_integer())):
        wanted = "a positive whole number" if column == "frames" else "a number"
        raise LabError(f"{where}: {column}={text or ''} is not allowed: {column} must be {wanted}.")
    return value


def _flat(result: Result) -> dict[str, Any]:
    """Return what results.json says of a result: plain values, each by one word."""
    peer, solved = result.peer, result.figures.get("frames_to_solve")
    return {
        "frames": result.frames,
        "sessions": len(result.trial.completed),
        "planned": len(result.trial.sessions),
        **_estimate("return", result.figures.get("return"), "mean"),
        **_estimate("iqm", result.figures.get("return"), "iqm"),
        **{name: _estimate(name, result.figures.get(name), "mean")[name] for name in MEANS},
        "solved": solved["n"] if solved else 0,
        "peer": peer.value if peer else None,
        "peer_frames": peer.frames if peer else None,
        "difference": result.difference,
        "verdict": result.verdict,
    }


def _estimate(name: str, found: dict[str, Any] | None, statistic: str) -> dict[str, float | None]:
    """Return a statistic of a figure, and the ends of its interval; null where it has none."""
    endings = {"": "value", "_low": "low", "_high": "high"}
    return {f"{name}{ending}": found[statistic][end] if found else None for ending, end in endings.items()}
