"""What was run: a row for each run directory below a directory, read from its small files and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.analysis.run_spec import read_overrides, read_spec
from lab.common.text import canonical
from lab.errors import LabError, warn_once
from lab.run.directory import RunDir, SweepDir, TrialDir
from lab.run.files import read_json
from lab.run.schemas import RERUN, RERUN_BEGUN, SESSION, STATES, TRIAL
from lab.run.status import combined_state
from lab.run.tags import read_tags

LEVELS = ("session", "trial", "experiment")
RUN_STATES = (*STATES, "pending", "damaged")  # damaged: status.json cannot be read
BESIDE_SPEC = {"status.json", "session.log", "metrics.csv", "provenance.json"}  # tell a damaged Session from a stranger
SHORT = {"algo.lr": "algo.optimizer.lr"}  # keys of the command line by another name in a spec


@dataclass
class Run:
    """A run directory: of a Session, a Trial or an Experiment.

    Attributes:
        path: of the directory.
        level: session, trial or experiment.
        state: one of RUN_STATES. A Trial failed if one of its Sessions did, an Experiment if all of its Trials did.
        sessions: how many Sessions are in each state; planned ones that have not started are pending.
        frame: frames done, by the Session that has done fewest.
        figures: metrics of a Session, means over the seeds of a Trial, those of the best Trial of an Experiment.
        intervals: their 95 % intervals over seeds.
        specs: the different specs by dotted key, without the seed; of each Trial that of its first Session.
        seeds: of its Sessions.
        start: when it was started, in UTC.
        sha: of the commit that it was trained with; None if unknown.
        uncommitted: whether that code had uncommitted changes.
        tags: its tags.
        overrides: what the command line set, as typed, by key of the spec.
        problems: what could not be read, as sentences.
        rerun_of: the directory whose Sessions `rerun` ran again here; None if it did not make this one.
    """

    path: Path
    level: str
    state: str = "pending"
    sessions: Counter[str] = field(default_factory=Counter)
    frame: int = 0
    figures: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    specs: list[dict[str, Any]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    start: datetime | None = None
    sha: str | None = None
    uncommitted: bool | None = None
    tags: list[str] = field(default_factory=list)
    overrides: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    rerun_of: str | None = None

    def values(self, key: str) -> list[Any]:
        """Return the different values of a key of the spec over its Trials; empty if it has none."""
        key = SHORT.get(key, key)
        return list({canonical(spec[key]): spec[key] for spec in self.specs if key in spec}.values())

    @property
    def algos(self) -> list[str]:
        """Names of its algorithms."""
        return [str(value) for value in self.values("algo.name")]

    @property
    def envs(self) -> list[str]:
        """Ids of its environments."""
        return [str(value) for value in self.values("env.id")]

    @property
    def planned(self) -> int:
        """Number of its Sessions."""
        return sum(self.sessions.values())


def read_runs(root: Path, level: str | None = None) -> list[Run]:
    """Read the run directories below a directory, or the directory itself if it is one.

    Nothing in them is executed, and no link to a directory is followed. What cannot be read is among a run's problems.

    Args:
        root: the directory.
        level: session, trial or experiment; None for each run directory that lies in no other.

    Raises:
        LabError: there is no such directory.
    """
    if not root.is_dir():
        raise LabError(f"There is no directory {root}: name the one that runs are in.")
    return [read_run(path, kind) for path, kind in walk_runs(root, level)]


def walk_runs(root: Path, level: str | None = None) -> Iterator[tuple[Path, str]]:
    """Yield the run directories below a directory, by name, with their levels; the arguments are those of read_runs."""
    kind = _level(root)
    if kind is not None and kind == (level or kind):
        yield root, kind
    if kind is None or (level is not None and LEVELS.index(level) < LEVELS.index(kind)):
        for folder in _folders(root):
            if kind is None or re.fullmatch(r"(trial|seed)-\d+|validation", folder.name):
                yield from walk_runs(folder, level)


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        warn_once(f"{path} cannot be read: {error.strerror}.")
        return []


def _folders(path: Path) -> Iterator[Path]:
    for entry in _entries(path):
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield path / entry.name


def _level(path: Path) -> Any:
    """Return the level of a run directory; None for any other directory."""
    names = {entry.name: entry for entry in _entries(path)}
    if "spec.yaml" in names or "status.json" in names:
        own = bool(BESIDE_SPEC & names.keys()) and "spec.yaml" in names
        return "session" if own or _holds_session(path) else None
    numbered = [match for name in names if (match := re.fullmatch(r"(trial|seed)-\d+", name))]
    kinds = {match[1] for match in numbered if names[match[0]].is_dir()}
    if {"point.json", "sweep.json"} & names.keys() or any(_level(path / match[0]) for match in numbered):
        if kinds:
            return "experiment" if "trial" in kinds else "trial"
        if "sweep.json" in names:
            with suppress(LabError):
                return SweepDir(path).read_sweep()["kind"]
        return "trial" if "point.json" in names else None
    return None


def _holds_session(path: Path) -> bool:
    """Return whether one of the files that every Session has is one of this program."""
    try:
        return read_spec(RunDir(path))[0].keys() > {"seed", "frames"}
    except LabError:
        pass
    try:
        return {"state", "frame", "frames", "pid"} <= read_json(RunDir(path).status).keys()
    except LabError:
        return False


def read_run(path: Path, level: str) -> Run:
    """Read a run directory of a level."""
    run = Run(path, level)
    trials = SweepDir(path).trials() if level == "experiment" else [TrialDir(path)]
    sessions = [RunDir(path)]
    if level != "session":
        sessions = [trial.session(seed) for trial in trials for seed in trial.seeds()]
        _count_sessions(run, trials)
    returns = _read_sessions(run, sessions)
    firsts = (
        sessions if level == "session" else [trial.session(seeds[0]) for trial in trials if (seeds := trial.seeds())]
    )
    for first in firsts:
        with _Noting(run):
            spec, seed = read_spec(first)
            if spec not in run.specs:
                run.specs.append(spec)
            run.seeds = [seed] if level == "session" else run.seeds
    _read_figures(run, returns)
    if firsts:
        _read_origin(run, firsts[0])
    if run.start is None:
        with suppress(OSError):
            run.start = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    with _Noting(run):
        run.tags = read_tags(path)
    if mark := next((path / name for name in (RERUN, RERUN_BEGUN) if (path / name).exists()), None):
        with _Noting(run):
            of = Path(str(read_json(mark).get("of", "another run")))
            run.rerun_of = str(of.relative_to(Path.cwd()) if of.is_relative_to(Path.cwd()) else of)
    return run


class _Noting(suppress):
    """Adds a LabError to the problems of a run."""

    def __init__(self, run: Run) -> None:
        super().__init__(LabError)
        self._run = run

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, LabError):
            self._run.problems.append(str(error))
        return super().__exit__(kind, error, trace)


def _count_sessions(run: Run, trials: list[TrialDir]) -> None:
    """Count the planned Sessions of a sweep as pending, and note the seeds."""
    seeds: dict[int, None] = {}
    planned = 0
    for trial in trials:
        own = set(trial.seeds())
        if trial.point.exists():
            with _Noting(run):
                own |= set(trial.read_point()["seeds"])
        planned += len(own)
        seeds |= dict.fromkeys(sorted(own))
    sweep = SweepDir(run.path)
    if run.level == "experiment" and sweep.sweep.exists():
        with _Noting(run):
            content = sweep.read_sweep()
            planned += max(content["trials"] - len(trials), 0) * len(content["seeds"])
            seeds |= dict.fromkeys(content["seeds"])
    run.seeds = list(seeds)
    run.sessions["pending"] = planned


def _read_sessions(run: Run, sessions: list[RunDir]) -> list[float]:
    """Read how the Sessions of a run stand; return the mean returns of the last episodes of each that has any."""
    returns, frames, by_trial = [], [], dict[Path, list[str]]()
    for session in sessions:
        state = "pending"
        if session.status.exists() or session.spec.exists():
            try:
                status = session.read_status(recover=False)
                state = status["state"]
                frames.append(status["frame"])
                returns += [] if status.get("return") is None else [status["return"]]
            except LabError as error:
                state = "damaged"
                run.problems.append(str(error))
        run.sessions[state] += 1
        run.sessions["pending"] -= 1 if run.level != "session" else 0
        by_trial.setdefault(session.path.parent, []).append(state)
    run.sessions = +run.sessions
    run.frame = min(frames, default=0)
    run.state = _state(run, [combined_state(states) for states in by_trial.values()])
    return returns


def _state(run: Run, trials: list[str]) -> str:
    if run.level != "session" and SweepDir(run.path).lock.is_held():
        return "running"
    if run.level != "experiment":
        return "damaged" if "damaged" in run.sessions else combined_state(run.sessions.elements())
    for state in ("running", "damaged", "interrupted"):
        if run.sessions[state]:
            return state
    if run.sessions["pending"]:
        return "interrupted" if run.sessions.keys() - {"pending"} else "pending"
    return "completed" if "completed" in trials else next(iter(trials), "pending")


def _read_figures(run: Run, returns: list[float]) -> None:
    """Read the metrics of a Session, a Trial or the best Trial of an Experiment."""
    with _Noting(run):
        if run.level == "session":
            path = RunDir(run.path).results
            run.figures = dict(read_json(path, SESSION)) if path.exists() else {}
        else:
            trial: TrialDir | None = TrialDir(run.path)
            if run.level == "experiment":
                sweep, trial = SweepDir(run.path), None
                best = read_json(sweep.results).get("best") if sweep.results.exists() else None
                if isinstance(best, dict) and isinstance(best.get("trial"), int):
                    trial = sweep.trial(best["trial"])
            if trial is not None and trial.results.exists():
                for name, summary in read_json(trial.results, TRIAL)["metrics"].items():
                    mean = summary["mean"]
                    run.figures[name] = mean["value"]
                    if mean["low"] is not None and mean["high"] is not None:
                        run.intervals[name] = mean["low"], mean["high"]
    if run.level != "experiment" and not run.figures and returns:
        run.figures["return"] = sum(returns) / len(returns)


def _read_origin(run: Run, session: RunDir) -> None:
    """Read when, with which code and with which overrides a run was started, from its first Session."""
    facts: dict[str, Any] = {}
    try:
        # Without its checksum: of a file of some kilobytes three values are needed.
        content = json.loads(session.provenance.read_text(encoding="utf-8"))
        facts = content if isinstance(content, dict) else {}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        run.problems.append(f"{session.provenance} cannot be read: {error}.")
    git = facts.get("git")
    if isinstance(git, Mapping):
        run.sha = git["sha"] if isinstance(git.get("sha"), str) else None
        run.uncommitted = git.get("uncommitted") is True
    with suppress(ValueError, TypeError, KeyError):
        run.start = datetime.fromisoformat(facts["start"]).astimezone(UTC)
    run.overrides = read_overrides(session, str(facts.get("command", "")))
