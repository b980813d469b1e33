"""How far Sessions and Trials have come, read from their small status files: light enough to look at all the time."""

from __future__ import annotations

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
    """How far a Session has come.

    Attributes:
        directory: where it is.
        seed: its seed; null where only its spec says.
        status: what status.json holds; `pending` before that.
    """

    directory: RunDir
    seed: int | None
    status: dict[str, Any] = field(default_factory=lambda: dict(PENDING))

    def refresh(self) -> None:
        """Read the status again, unless the Session has ended."""
        if self.state not in ENDED:
            self.status = {**PENDING, **(self.directory.find_status() or {})}

    @property
    def state(self) -> str:
        """One of lab.run.directory.STATES, or pending."""
        return str(self.status["state"])

    @property
    def fraction_done(self) -> float:
        """Fraction of its frames that is done, from 0 to 1."""
        frames = self.status["frames"]
        return min(self.status["frame"] / frames, 1.0) if frames else 0.0


@dataclass
class TrialProgress:
    """How far a Trial has come.

    Attributes:
        directory: where it is.
        number: in its Experiment; null if it stands alone.
        hyperparameters: what the sweep set, by key.
        sessions: one for each seed.
        results: what trial.json holds, once it is there.
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
        """How the Trial stands."""
        return combined_state(session.state for session in self.sessions)

    @property
    def ended(self) -> bool:
        """Whether all of its Sessions have."""
        return all(session.state in ENDED for session in self.sessions)

    @property
    def fraction_done(self) -> float:
        """Fraction of its frames that the slowest Session has done, ignoring failed ones."""
        return min((session.fraction_done for session in self.sessions if session.state != "failed"), default=1.0)


def read_results(path: Path) -> dict[str, Any] | None:
    """Read trial.json; null where it is damaged, as it can be made again at any time."""
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
        seeds: those that it is to have; to them come those that it has.
        hyperparameters: what the sweep sets; null to read it.
    """
    point = directory.find_point()
    every = sorted({*seeds, *point["seeds"], *directory.seeds()})
    values = point["hyperparameters"] if hyperparameters is None else hyperparameters
    trial = TrialProgress(
        directory, directory.number, values, [SessionProgress(directory.session(seed), seed) for seed in every]
    )
    trial.refresh()
    return trial


def read_progress(path: Path) -> list[TrialProgress]:
    """Return the progress of every Trial in a run directory; a Session alone makes a Trial of its own.

    Raises:
        LabError: it is not a run directory.
    """
    kind = find_level(path)
    if kind == "session":
        session = SessionProgress(RunDir(path), None)
        session.refresh()
        return [TrialProgress(TrialDir(path), None, {}, [session])]
    if kind == "trial":
        return [read_trial_progress(TrialDir(path))]
    return [read_trial_progress(directory) for directory in SweepDir(path).trials()]


def count_states(trials: Sequence[TrialProgress]) -> dict[str, int]:
    """Return how many Sessions stand in each state."""
    counts: dict[str, int] = {}
    for trial in trials:
        for session in trial.sessions:
            counts[session.state] = counts.get(session.state, 0) + 1
    return counts
