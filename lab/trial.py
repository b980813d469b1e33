"""A Trial: Sessions that differ in nothing but the seed, as a sweep runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.run.directory import RunDir, TrialDir
from lab.run.files import write_sealed_json
from lab.run.schemas import ENDED
from lab.run.status import combined_state

DIED = "The process of this Session ended without a word: it was killed, or the machine failed."


@dataclass(eq=False)
class Job:
    """What one process runs: Sessions of one Trial, in lockstep.

    Attributes:
        trial: number of the Trial.
        overrides: those of its command line.
        sessions: the directory of each of its Sessions, by the seed.
    """

    trial: int
    overrides: list[str]
    sessions: dict[int, RunDir]

    @property
    def ended(self) -> bool:
        """Whether all of its Sessions have."""
        return all(state in ENDED for state in states_of(self.sessions).values())

    def progress(self) -> list[tuple[int, str]] | None:
        """Return, of the Sessions that run, the frame and when it was written; null if none does."""
        found = [session.find_status() for session in self.sessions.values()]
        return [(one["frame"], one["updated"]) for one in found if one and one["state"] == "running"] or None


@dataclass(frozen=True)
class Point:
    """A set of hyperparameters.

    Attributes:
        overrides: as on the command line.
        hyperparameters: as values by key.
    """

    overrides: list[str]
    hyperparameters: dict[str, Any]


@dataclass
class Trial:
    """Sessions over seeds, at one point.

    Attributes:
        directory: where it is.
        fixed: overrides that every Trial of the sweep has.
        point: what tells this Trial from others.
        seeds: one Session for each.
        subdir: the directory, as seen from that of the sweep; empty if it is the same.
        retry: whether Sessions that failed are left to run again.
    """

    directory: TrialDir
    fixed: Sequence[str]
    point: Point
    seeds: Sequence[int]
    subdir: str = ""
    retry: bool = False

    @property
    def overrides(self) -> list[str]:
        """Overrides that make the spec of its Sessions, but for the seed."""
        return [*self.fixed, *self.point.overrides]

    @property
    def number(self) -> int:
        """Number of the Trial in its Experiment; 0 for one that stands alone."""
        return self.directory.number or 0

    def sessions(self) -> dict[int, RunDir]:
        """Return the directory of each Session by its seed."""
        return {seed: self.directory.session(seed) for seed in self.seeds}

    def start(self, launched: Sequence[int] = ()) -> None:
        """Write down what the Trial is, before any of its Sessions begins.

        Of those to run again, one that was lost goes on from its checkpoint; what one that failed by itself wrote is
        moved aside.

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
        seeds = sorted({*self.seeds, *self.directory.seeds()})
        write_sealed_json(self.directory.point, {"number": self.number, **asdict(self.point), "seeds": seeds})

    def states(self) -> dict[int, str]:
        """Return the state of each Session by its seed: one of lab.run.directory.STATES, or pending."""
        return states_of(self.sessions())

    @property
    def state(self) -> str:
        """How the Trial stands."""
        return combined_state(self.states().values())

    @property
    def runs(self) -> bool:
        """Whether any of its Sessions does."""
        return "running" in self.states().values()

    def remaining(self) -> list[int]:
        """Return the seeds whose Sessions have not ended, or are to run again; none of a Trial that was pruned."""
        states = self.states()
        if "pruned" in states.values():
            return []
        return [seed for seed, state in states.items() if state not in ENDED or (self.retry and state == "failed")]

    def jobs(self, stack: int, launched: Sequence[int] = ()) -> list[Job]:
        """Pack the Sessions that are left into jobs.

        Args:
            stack: Sessions in a job, at most.
            launched: seeds of Sessions that are in a job already.
        """
        left = [seed for seed in self.remaining() if seed not in launched]
        jobs = []
        for start in range(0, len(left), stack):
            seeds = left[start : start + stack]
            # A job of one Session owns the directory of that Session; a stack owns one with a directory for each seed.
            folder = Path(self.subdir, f"seed-{seeds[0]}") if len(seeds) == 1 else Path(self.subdir or ".")
            seed = str(seeds[0]) if len(seeds) == 1 else f"[{','.join(map(str, seeds))}]"
            overrides = [*self.overrides, f"seed={seed}", f"hydra.sweep.subdir={folder}"]
            jobs.append(Job(self.number, overrides, {seed: self.directory.session(seed) for seed in seeds}))
        return jobs

    def close(self, seeds: Sequence[int], reason: str | None) -> None:
        """Write the end of Sessions whose job is over although they did not write one themselves.

        Args:
            seeds: of the Sessions.
            reason: why their job has no result; null if it does not say.
        """
        for seed in seeds:
            session = self.directory.session(seed)
            if session.path.is_dir():
                list(session.path.iterdir())  # a client of NFS may remember that there was no status
            status = session.find_status()
            if status is None:
                session.write_status("failed", 0, 0, reason or DIED, lost=True)
            elif status["state"] == "interrupted" and session.is_abandoned():
                session.write_status("failed", status["frame"], status["frames"], reason or DIED, lost=True)
            elif status["state"] == "interrupted" and reason:
                session.update_status(error=reason)

    def ask_to_stop(self, state: str, reason: str) -> None:
        """Ask the Sessions that run to end as `pruned` or `interrupted`."""
        states = self.states()
        for seed, session in self.sessions().items():
            if states[seed] == "running" and not session.stop.exists():
                session.ask_to_stop(state, reason)


def states_of(sessions: Mapping[int, RunDir]) -> dict[int, str]:
    """Return the state of each Session by its seed: one of lab.run.directory.STATES, or pending."""
    found = {seed: session.find_status() for seed, session in sessions.items()}
    return {seed: status["state"] if status else "pending" for seed, status in found.items()}
