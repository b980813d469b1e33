"""A Trial: Sessions that differ in nothing but the seed, and the jobs that train them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lab.common.interpolation import literal
from lab.common.parts import split_evenly
from lab.common.text import quote
from lab.run.directory import RunDir, TrialDir
from lab.run.files import write_sealed_json
from lab.run.schemas import ENDED

K = TypeVar("K", bound=Hashable)

TRIALS = "job_trials"  # key in the config of a job of several Trials, which no Session has
EXTENSION = ("frames=", "extended_from=")  # how the overrides of an extension begin
DIED = "The process of this Session ended without writing a result: it was killed, or the machine failed."


@dataclass(eq=False)
class Job:
    """What one process runs: Sessions of one Trial or of several, trained in lockstep as far as that is possible."""

    overrides: list[str]  # the command line of the job
    sessions: dict[tuple[int, int], RunDir]  # directory of each Session by the number of its Trial and its seed

    @property
    def trials(self) -> list[int]:
        """Numbers of the Trials that it has Sessions of."""
        return list(dict.fromkeys(number for number, _ in self.sessions))

    def sessions_of(self, trial: int) -> dict[int, RunDir]:
        """Return the directory of each Session of a Trial by its seed."""
        return {seed: session for (number, seed), session in self.sessions.items() if number == trial}

    @property
    def ended(self) -> bool:
        """Whether all of its Sessions have ended."""
        return all(state in ENDED for state in states_of(self.sessions).values())

    def progress(self) -> list[tuple[int, str]] | None:
        """Return the frame of each running Session and when it was written; None if no Session runs."""
        statuses = [session.find_status() for session in self.sessions.values()]
        running = [status for status in statuses if status and status["state"] == "running"]
        return [(status["frame"], status["updated"]) for status in running] or None


@dataclass(frozen=True)
class Point:
    """A set of hyperparameters: as overrides on the command line, and as values by key."""

    overrides: list[str]
    hyperparameters: dict[str, Any]

    def extend(self, overrides: Sequence[str] = ()) -> Point:
        """Return the point with the overrides of an extension in place of earlier ones; without them, as planned."""
        extended = any(line.startswith(EXTENSION[1]) for line in self.overrides)
        planned = [line for line in self.overrides if not (extended and line.startswith(EXTENSION))]
        return Point([*planned, *overrides], self.hyperparameters)


@dataclass
class Trial:
    """A Session for each of some seeds, at one point."""

    directory: TrialDir
    fixed: Sequence[str]  # overrides that all Trials of the sweep have in common
    point: Point  # hyperparameters that distinguish it from other Trials
    seeds: Sequence[int]
    subdir: str = ""  # path of its directory relative to that of the sweep; empty if they are the same
    retry: bool = False  # whether failed Sessions remain to be run again

    @property
    def overrides(self) -> list[str]:
        """Overrides that, with a seed, make the spec of a Session."""
        return [*self.fixed, *self.point.overrides]

    @property
    def number(self) -> int:
        """Number of the Trial in its Experiment; 0 for a standalone Trial."""
        return self.directory.number or 0

    def sessions(self) -> dict[int, RunDir]:
        """Return the directory of each Session by its seed."""
        return {seed: self.directory.session(seed) for seed in self.seeds}

    def states(self) -> dict[int, str]:
        """Return the state of each Session by its seed: one of lab.run.schemas.STATES, or "pending"."""
        return states_of(self.sessions())

    @property
    def is_running(self) -> bool:
        """Whether any Session is running."""
        return "running" in self.states().values()

    def remaining(self) -> list[int]:
        """Return the seeds of the Sessions still to be run; a Trial that was pruned has none."""
        states = self.states()
        if "pruned" in states.values():
            return []
        return [seed for seed, state in states.items() if state not in ENDED or (self.retry and state == "failed")]

    def start(self, launched: Sequence[int] = ()) -> None:
        """Write point.json, and prepare failed Sessions to run again if `retry` is set.

        A failed Session whose process was lost will continue from its checkpoint; any other starts anew, and its
        files are moved aside.

        Args:
            launched: seeds of Sessions that are in a job already.
        """
        states = self.states()
        for seed, session in self.sessions().items():
            if self.retry and states[seed] == "failed" and seed not in launched:
                if session.read_status()["lost"]:
                    session.mark_interrupted()
                else:
                    session.move_results_aside()
        self.retry = False
        self.write_point()

    def write_point(self) -> None:
        """Write point.json, with the seeds of all Sessions that are there."""
        seeds = sorted({*self.seeds, *self.directory.seeds()})
        write_sealed_json(self.directory.point, {"number": self.number, **asdict(self.point), "seeds": seeds})

    def close(self, seeds: Sequence[int], reason: str | None) -> None:
        """Write an end state for Sessions whose job ended without writing one; `reason` says why, if that is known."""
        for seed in seeds:
            session = self.directory.session(seed)
            if session.path.is_dir():
                list(session.path.iterdir())  # an NFS client may have cached that there is no status
            status = session.find_status()
            if status is None:
                session.write_status("failed", 0, 0, reason or DIED, lost=True)
            elif status["state"] == "interrupted" and session.is_abandoned():
                session.write_status("failed", status["frame"], status["frames"], reason or DIED, lost=True)
            elif status["state"] == "interrupted" and reason:
                session.update_status(error=reason)

    def ask_to_stop(self, state: str, reason: str) -> None:
        """Ask the running Sessions to end as "pruned" or "interrupted"."""
        states = self.states()
        for seed, session in self.sessions().items():
            if states[seed] == "running" and not session.stop.exists():
                session.ask_to_stop(state, reason)


@dataclass
class Outcome:
    """State of a Trial, read from its files."""

    state: str  # "completed" (every objective has a value), "failed", "pruned" or "running" (Sessions remain)
    values: list[float] | None = None  # one for each objective, if it completed
    rungs: dict[int, float] = field(default_factory=dict)  # the objective after each of `rungs` equal parts, as reached
    attributes: dict[str, Any] = field(default_factory=dict)  # what a dashboard of the study shows


def pack_jobs(
    trials: Sequence[Trial],
    stack: int,
    group: Callable[[Trial], Hashable],
    launched: Collection[tuple[int, int]] = (),
) -> list[Job]:
    """Pack the remaining Sessions of started Trials into jobs of at most `stack`.

    Args:
        trials: in the order of their jobs.
        stack: Sessions in a job, at most.
        group: returns what Trials have in common whose Sessions may share a job.
        launched: Sessions that are in a job already, by the number of the Trial and the seed.
    """
    groups: dict[Hashable, list[tuple[Trial, int]]] = {}
    for trial in trials:
        sessions = [(trial, seed) for seed in trial.remaining() if (trial.number, seed) not in launched]
        groups.setdefault(group(trial), []).extend(sessions)
    return [make_job(sessions) for members in groups.values() for sessions in split_evenly(members, stack)]


def make_job(sessions: Sequence[tuple[Trial, int]]) -> Job:
    """Return the job of some Sessions, given by Trial and seed.

    Its directory is that of its only Session, that of its only Trial, or that of the sweep. The overrides of a job of
    several Trials are those of the first one, and TRIALS lists for each Trial which of its overrides are others.
    """
    seeds: dict[int, list[int]] = {}
    for trial, seed in sessions:
        seeds.setdefault(trial.number, []).append(seed)
    first, own = sessions[0][0], seeds[sessions[0][0].number]
    folder, rest = Path(first.subdir or "."), []
    if len(sessions) == 1:
        folder /= f"seed-{own[0]}"
    elif len(seeds) > 1:
        folder, same = Path(), set(first.point.overrides)
        trials = {trial.number: trial for trial, _ in sessions}.values()
        parts = [
            [trial.subdir, [line for line in trial.point.overrides if line not in same], seeds[trial.number]]
            for trial in trials
        ]
        rest = [f"+{TRIALS}={quote(literal(json.dumps(parts)))}"]
    listed = str(own[0]) if len(own) == 1 else f"[{','.join(map(str, own))}]"
    overrides = [*first.overrides, f"seed={listed}", f"hydra.sweep.subdir={folder}", *rest]
    return Job(overrides, {(trial.number, seed): trial.directory.session(seed) for trial, seed in sessions})


def states_of(sessions: Mapping[K, RunDir]) -> dict[K, str]:
    """Return the state of each Session by its key: one of lab.run.schemas.STATES, or "pending"."""
    statuses = {seed: session.find_status() for seed, session in sessions.items()}
    return {seed: status["state"] if status else "pending" for seed, status in statuses.items()}
