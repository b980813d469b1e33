"""What a sweep asks of launchers beyond Hydra's own interface."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from lab.errors import LabError
from lab.run.directory import SweepDir
from lab.trial import Job

DEFAULT_ROOM = 8  # jobs at the same time where a launcher does not say how many it has room for
MOST_THREADS = 1000  # that wait for jobs


class SweepLauncher:
    """A launcher that a sweep can steer; what it does here suits one whose `launch` waits for its jobs.

    Attributes:
        room: jobs that run at the same time.
        outlives: whether jobs go on when this process ends.
    """

    room: int = DEFAULT_ROOM
    outlives = False

    def warm_up(self) -> None:
        """Prepare while there is other work."""

    def submit(self, jobs: Sequence[Job], words: Sequence[list[str]], first: int) -> list[Future[str | None]]:
        """Let jobs run as soon as there is room; the future of each gives null, or why it has no result.

        Args:
            jobs: what they are.
            words: what each is told on its command line.
            first: number of the first.
        """
        # Each is launched by itself, as a launcher may give up all jobs of a call when one is lost.
        return [self._pool.submit(self._launch, one, number) for number, one in enumerate(words, first)]

    def adopt(self, directory: SweepDir) -> list[tuple[int, Job, Future[str | None]]]:
        """Return the jobs that an earlier process submitted and that are not over, with their numbers."""
        return []

    def stop(self) -> None:
        """Start no more jobs, and ask those that run to end with everything written."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def kill(self, number: int) -> None:
        """Kill the job of a number, if that is possible."""

    def kill_all(self) -> None:
        """Kill all jobs, if that is possible."""

    @property
    def _launcher(self) -> Launcher:
        assert isinstance(self, Launcher)
        return self

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1 if self.room == 1 else MOST_THREADS, "launching")

    def _launch(self, words: list[str], number: int) -> str | None:
        try:
            return reason(self._launcher.launch([words], initial_job_idx=number)[0])
        except Exception as error:
            return f"{type(error).__name__}: {error}"


class AnyLauncher(SweepLauncher):
    """Any launcher of Hydra's, as far as a sweep can steer it."""

    def __init__(self, launcher: Launcher) -> None:
        self._any = launcher
        self._here = isinstance(launcher, BasicLauncher)  # runs jobs in this process, one after the other
        if self._here:
            self.room = 1

    def kill_all(self) -> None:
        """Say what becomes of the jobs; those in this process end with it."""
        if not self._here:
            print("\nThis launcher cannot kill jobs: their Sessions end when they log next.", file=sys.stderr)

    @property
    def _launcher(self) -> Launcher:
        return self._any


def failed(words: list[str], reason: str) -> JobReturn:
    """Return what a job that has no result of its own returns."""
    result = JobReturn()
    result.overrides, result.status = words, JobStatus.FAILED
    result.return_value = LabError(f"The job has no result: {reason}.")
    return result


def reason(result: JobReturn) -> str | None:
    """Return why a job has no result, if it has none."""
    if result.status != JobStatus.FAILED:
        return None
    error = result._return_value  # the property of that name prints what it raises
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
