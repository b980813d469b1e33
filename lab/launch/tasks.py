"""Tasks of SLURM: whether they wait, run or are over, and how they ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
from hydra.core.utils import JobReturn

from lab.errors import LabError, visible
from lab.launch.launcher import failed, reason

ANSWER_SECONDS = 60.0  # that SLURM may take to answer a question
MISSING_SECONDS = 10.0  # for which the queue must not have a task before it counts as over without a result


@dataclass(frozen=True)
class Task:
    """A task of SLURM.

    Attributes:
        id: as in `squeue`: of a job, or of a task in an array.
        folder: where submitit keeps what belongs to it; %j stands for the id.
    """

    id: str
    folder: Path

    def path(self, suffix: str) -> Path:
        """Return one of submitit's files."""
        folder = str(self.folder).replace("%j", self.id)
        return Path(folder) / f"{self.id}_0_{suffix}"

    def has_result(self) -> bool:
        """Say whether its process came to its end."""
        path = self.path("result.pkl")
        return path.exists() or path.name in listed(path.parent)  # a client of NFS may remember that it was not there

    def result(self) -> JobReturn | None:
        """Return what its job returned, if it came to its end."""
        if not self.has_result():
            return None
        try:
            kind, value = cloudpickle.loads(self.path("result.pkl").read_bytes())
        except Exception as error:  # of a class that is not here, or that pickle cannot make; nobody is to wait for it
            return failed([], f"what its task left cannot be read: {type(error).__name__}: {error}")
        return value if kind == "success" else failed([], str(value).strip().splitlines()[-1])

    def why(self) -> str:
        """Say how a task ended that has no result."""
        try:
            answer = ask("sacct", "--noheader", "--parsable2", f"--jobs={self.id}", "--format=State,ExitCode")
            rows = [line.split("|") for line in answer.splitlines()]
        except LabError:
            rows = []
        rows = [row for row in rows if row[0] != "COMPLETED"] or rows  # an environment may end it with exit code 0
        states = list(dict.fromkeys(f"{state} ({code})" for state, code in rows))
        text = f"SLURM says {', '.join(states) or 'nothing'} of its task {self.id}"
        try:
            lines = self.path("log.err").read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        told = [line for line in lines if "slurmstepd" in line or "srun: error" in line] or lines[-1:]
        return f"{text}, whose log ends: {' / '.join(told[-2:])}" if told else text


class Queue:
    """Follows tasks until they are over, in one thread for all."""

    def __init__(self, seconds: float) -> None:
        """Look every so many seconds."""
        self.seconds = seconds
        self._followed: dict[Task, Future[str | None]] = {}
        self._missed: dict[Task, float] = {}  # since when
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, task: Task) -> Future[str | None]:
        """Return a future that gives null once the task has a result, or why it has none."""
        future: Future[str | None] = Future()
        with self._changing:
            self._followed[task] = future
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, daemon=True, name="SLURM queue")
                self._thread.start()
        return future

    def _watch(self) -> None:
        while True:
            time.sleep(self.seconds)
            with self._changing:
                followed = dict(self._followed)
                if not followed:
                    self._thread = None
                    return
            try:
                self._look(followed)
            except Exception as error:  # a file system or a cluster that will answer later
                print(visible(f"Tasks could not be looked at: {type(error).__name__}: {error}"), file=sys.stderr)

    def _look(self, followed: dict[Task, Future[str | None]]) -> None:
        left = [task for task in followed if not task.has_result()]
        try:
            queued = ids_in_queue([task.id for task in left]) if left else set()
        except LabError:  # SLURM does not answer; it may later
            return
        for task, future in followed.items():
            since = self._missed.setdefault(task, time.monotonic())
            if task.id in queued:
                del self._missed[task]
            result = task.result()
            if result is None and (task.id in queued or time.monotonic() - since < MISSING_SECONDS):
                continue
            with self._changing:
                del self._followed[task]
            future.set_result(task.why() if result is None else reason(result))


def listed(folder: Path) -> set[str]:
    """Return the names in a folder, nothing if there is none."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except FileNotFoundError:
        return set()


def ids_in_queue(ids: Sequence[str]) -> set[str]:
    """Return the tasks that wait or run, of the jobs and arrays that the given ids belong to.

    Raises:
        LabError: SLURM does not answer.
    """
    jobs = ",".join(dict.fromkeys(name.partition("_")[0] for name in ids))
    try:
        return set(ask("squeue", "--noheader", "--array", "--format=%i", f"--jobs={jobs}").split())
    except LabError as error:
        if "Invalid job id" in str(error):  # SLURM has forgotten all of them
            return set()
        raise


def ask(*words: str) -> str:
    """Run a command of SLURM and return what it prints.

    Raises:
        LabError: it is not there, it failed or it does not answer.
    """
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{words[0]} failed: {explained(error)}") from error


def explained(error: Exception) -> str:
    """Say what went wrong, in the words of the program that failed."""
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        text = error.stderr if isinstance(error.stderr, str) else error.stderr.decode(errors="replace")
        return " ".join(text.split())
    return " ".join(str(error).split())
