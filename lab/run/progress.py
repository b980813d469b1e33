"""How far Sessions and Trials are, read from their small status files often and cheaply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import LabError, warn_once
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.files import read_json
from lab.run.schemas import ENDED, TRIAL
from lab.run.status import combined_state

PENDING = {"state": "pending", "frame": 0, "frames": 0, "return": None, "frames_per_second": None, "error": None}


@dataclass
class SessionProgress:
    """How far a Session is; `seed` is None where only its spec tells."""

    directory: RunDir
    seed: int | None
    status: dict[str, Any] = field(default_factory=lambda: dict(PENDING))

    def refresh(self) -> None:
        """Read the status again, unless the Session has ended."""
        if self.state not in ENDED:
            self.status = {**PENDING, **(self.directory.find_status() or {})}

    @property
    def state(self) -> str:
        """One of lab.run.schemas.STATES, or pending."""
        return str(self.status["state"])

    @property
    def fraction_done(self) -> float:
        """Fraction of its frames that is done, from 0 to 1; 1 if it has completed."""
        if self.state == "completed":
            return 1.0
        frames = self.status["frames"]
        return min(self.status["frame"] / frames, 1.0) if frames else 0.0


@dataclass
class TrialProgress:
    """How far a Trial is.

    Attributes:
        directory: where it is.
        number: in its Experiment; None for a standalone Trial.
        hyperparameters: what the sweep set, by key.
        sessions: one for each seed.
        results: the content of trial.json, once it is there.
    """

    directory: TrialDir
    number: int | None
    hyperparameters: dict[str, Any]
    sessions: list[SessionProgress]
    results: dict[str, Any] | None = None

    def refresh(self) -> None:
        """Read again what may have changed."""
        for session in self.sessions:
            session.refresh()
        if self.results is None and self.ended and self.directory.results.exists():
            self.results = read_results(self.directory.results)

    @property
    def state(self) -> str:
        """The state of the Trial, from those of its Sessions."""
        return combined_state(session.state for session in self.sessions)

    @property
    def ended(self) -> bool:
        """Whether all of its Sessions have ended."""
        return all(session.state in ENDED for session in self.sessions)

    @property
    def fraction_done(self) -> float:
        """Fraction of its frames that the slowest Session has done, ignoring failed ones."""
        return min((session.fraction_done for session in self.sessions if session.state != "failed"), default=1.0)


def read_results(path: Path) -> dict[str, Any] | None:
    """Read trial.json; None and a warning if it is damaged, as `report` can write it again."""
    try:
        return read_json(path, TRIAL)
    except LabError as error:
        warn_once(f"{error} `report` makes it again.")
        return None


def read_trial_progress(
    directory: TrialDir, seeds: Iterable[int] = (), hyperparameters: dict[str, Any] | None = None
) -> TrialProgress:
    """Return the progress of a Trial.

    Args:
        directory: where it is.
        seeds: planned ones, in addition to those in the directory.
        hyperparameters: what the sweep sets; None to read them.
    """
    point = directory.find_point()
    values = point["hyperparameters"] if hyperparameters is None else hyperparameters
    sessions = [
        SessionProgress(directory.session(seed), seed) for seed in sorted({*seeds, *point["seeds"], *directory.seeds()})
    ]
    trial = TrialProgress(directory, directory.number, values, sessions)
    trial.refresh()
    return trial


def read_progress(path: Path) -> list[TrialProgress]:
    """Return the progress of every Trial in a run directory; a Session alone counts as a Trial.

    Raises:
        LabError: it is not a run directory.
    """
    level = find_level(path)
    if level == "session":
        session = SessionProgress(RunDir(path), None)
        session.refresh()
        return [TrialProgress(TrialDir(path), None, {}, [session])]
    trials = [TrialDir(path)] if level == "trial" else SweepDir(path).trials()
    return [read_trial_progress(trial) for trial in trials]


def count_states(trials: Sequence[TrialProgress]) -> dict[str, int]:
    """Return how many Sessions are in each state."""
    return dict(Counter(session.state for trial in trials for session in trial.sessions))


def is_active(path: Path, trials: list[TrialProgress]) -> bool:
    """Return whether a controller or a Session runs, or a cluster may still have a task for one."""
    directory = SweepDir(path)
    active = {"running", "pending", "interrupted"} if any(directory.jobs.glob("*.json")) else {"running"}
    starts = directory.lock.is_awaited()  # a detached sweep
    return bool(directory.lock.is_held() or starts or active & count_states(trials).keys())
