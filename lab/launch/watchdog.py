"""Finding jobs that hang: their processes live, but their Sessions take no step any more."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from lab.trial import Job

LOOKS = 20  # looks at every job in the time after which it counts as hung
LOOK_SECONDS = 1.0  # at least, between two of them


class Watchdog:
    """Watches how Sessions go on by their status files, on this process's own clock: those of hosts may differ."""

    def __init__(self, minutes: float | None) -> None:
        """Let a job hang for so many minutes, or for ever if null."""
        self.minutes = minutes
        self._looked = 0.0
        self._seen: dict[Job, tuple[list[tuple[int, str]], float]] = {}
        self._reasons: dict[Job, str] = {}

    def hanging(self, jobs: Iterable[Job]) -> list[Job]:
        """Return which of the jobs hang, each once; one that waits for its turn does not."""
        if self.minutes is None or monotonic() - self._looked < max(LOOK_SECONDS, 60 * self.minutes / LOOKS):
            return []
        self._looked = monotonic()
        return [job for job in jobs if self._hangs(job, 60 * self.minutes)]

    def reason(self, job: Job) -> str | None:
        """Say why a job was found to hang, if it was."""
        return self._reasons.get(job)

    def _hangs(self, job: Job, seconds: float) -> bool:
        progress = job.progress()
        if progress is None or job in self._reasons:
            return False
        seen, since = self._seen.get(job, (None, 0.0))
        if progress != seen:
            self._seen[job] = progress, monotonic()
            return False
        if monotonic() - since < seconds:
            return False
        self._reasons[job] = (
            f"No step for {self.minutes:g} minutes at frame {progress[0][0]:,}: it hung, so its process was killed."
        )
        return True
