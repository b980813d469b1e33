"""A watchdog that finds hung jobs: their processes live, but their Sessions make no progress."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from lab.trial import Job

CHECKS = 20  # of each job in the time after which it counts as hung
MIN_SECONDS = 1.0  # between two checks


class Watchdog:
    """Reads the progress of Sessions from their status files, and measures time by the clock of this process."""

    def __init__(self, minutes: float | None) -> None:
        """Report a job as hung after `minutes` without progress; None disables this."""
        self.minutes = minutes
        self._last_check = 0.0
        self._progress: dict[Job, tuple[list[tuple[int, str]], float]] = {}  # and since when it has not changed
        self._reasons: dict[Job, str] = {}

    def find_hung(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs that hang, each only once. Jobs that wait for a slot do not hang."""
        if self.minutes is None or monotonic() - self._last_check < max(MIN_SECONDS, 60 * self.minutes / CHECKS):
            return []
        self._last_check = monotonic()
        return [job for job in jobs if self._is_hung(job, 60 * self.minutes)]

    def reason(self, job: Job) -> str | None:
        """Return a sentence about a job that hung; None for any other."""
        return self._reasons.get(job)

    def _is_hung(self, job: Job, seconds: float) -> bool:
        progress = job.progress()
        if progress is None or job in self._reasons:
            return False
        before, since = self._progress.get(job, (None, 0.0))
        if progress != before:
            self._progress[job] = progress, monotonic()
            return False
        if monotonic() - since < seconds:
            return False
        frame = progress[0][0]
        text = f"No step for {self.minutes:g} minutes at frame {frame:,}: it hung, so its process was killed."
        self._reasons[job] = text
        return True
