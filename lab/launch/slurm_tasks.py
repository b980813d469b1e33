"""Tasks of SLURM: whether they wait or run, what they returned, and how they ended."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
from hydra.core.utils import JobReturn

from lab.errors import LabError, print_to_stderr
from lab.launch.launcher import failed

TIMEOUT = 60.0  # seconds for a command of SLURM to answer
MISSING_SECONDS = 10.0  # after which a task that is neither in the queue nor has a result counts as lost


@dataclass(frozen=True)
class Task:
    """A task of a SLURM array.

    Attributes:
        id: as `squeue` prints it, such as 17_3.
        folder: where submitit keeps the files of the task, with %j for the id.
    """

    id: str
    folder: Path

    def path(self, suffix: str) -> Path:
        """Return a file of submitit's, such as `log.err`."""
        return Path(str(self.folder).replace("%j", self.id)) / f"{self.id}_0_{suffix}"

    def has_result(self) -> bool:
        """Return whether the task ran to its end."""
        path = self.path("result.pkl")
        try:
            # An NFS client may cache that the file was missing; listing the folder renews this.
            return path.exists() or path.name in os.listdir(path.parent)  # noqa: PTH208
        except FileNotFoundError:
            return False

    def result(self) -> JobReturn:
        """Return the result of a task that ran to its end."""
        try:
            kind, value = cloudpickle.loads(self.path("result.pkl").read_bytes())
        except Exception as error:  # unpickling can raise anything
            return failed([], f"what its task returned cannot be read: {type(error).__name__}: {error}")
        return value if kind == "success" else failed([], str(value).strip().splitlines()[-1])

    def describe_end(self) -> str:
        """Return what SLURM and the log say of a task that ended without a result."""
        try:
            table = run_slurm("sacct", "--noheader", "--parsable2", f"--jobs={self.id}", "--format=State,ExitCode")
        except LabError:
            table = ""
        rows = [line.split("|") for line in table.splitlines()]
        rows = [row for row in rows if row[0] != "COMPLETED"] or rows  # an environment may exit with code 0
        states = dict.fromkeys(f"{state} ({code})" for state, code in rows)
        text = f"SLURM reports {', '.join(states) or 'nothing'} for its task {self.id}"
        try:
            lines = self.path("log.err").read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        important = [line for line in lines if "slurmstepd" in line or "srun: error" in line] or lines[-1:]
        return f"{text}; its log ends: {' / '.join(important[-2:])}" if important else text


class TaskMonitor:
    """Polls the queue of SLURM in one thread, and resolves the futures of tasks that are over."""

    def __init__(self, seconds: float) -> None:
        """Set the seconds between two polls."""
        self.seconds = seconds
        self._futures: dict[Task, Future[JobReturn]] = {}
        self._missing_since: dict[Task, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, task: Task) -> Future[JobReturn]:
        """Return a future for the result of a task."""
        with self._lock:
            future = self._futures.setdefault(task, Future())
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll_until_done, daemon=True, name="SLURM queue")
                self._thread.start()
        return future

    def _poll_until_done(self) -> None:
        while True:
            time.sleep(self.seconds)
            with self._lock:
                futures = dict(self._futures)
                if not futures:
                    self._thread = None
                    return
            try:
                self._poll(futures)
            except Exception as error:  # the file system or the cluster may recover
                print_to_stderr(f"The tasks could not be checked: {type(error).__name__}: {error}")

    def _poll(self, futures: dict[Task, Future[JobReturn]]) -> None:
        try:
            queued = tasks_in_queue([task for task in futures if not task.has_result()])
        except LabError:  # SLURM is busy; ask again at the next poll
            return
        for task, future in futures.items():
            if task.has_result():
                result = task.result()
            elif task.id in queued:
                self._missing_since.pop(task, None)
                continue
            elif time.monotonic() - self._missing_since.setdefault(task, time.monotonic()) < MISSING_SECONDS:
                continue
            else:
                result = failed([], task.describe_end())
            with self._lock:
                del self._futures[task]
            future.set_result(result)


def tasks_in_queue(tasks: Collection[Task]) -> set[str]:
    """Return the ids of those tasks, and of others in their arrays, that wait or run.

    Raises:
        LabError: SLURM does not answer.
    """
    arrays = ",".join(dict.fromkeys(task.id.partition("_")[0] for task in tasks))
    try:
        return (
            set(run_slurm("squeue", "--noheader", "--array", "--format=%i", f"--jobs={arrays}").split())
            if arrays
            else set()
        )
    except LabError as error:
        if "Invalid job id" in str(error):  # SLURM has forgotten all of them
            return set()
        raise


def run_slurm(*command: str) -> str:
    """Run a command of SLURM and return its output.

    Raises:
        LabError: it is not installed, it failed, or it timed out.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{command[0]} failed: {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """Return in one line what a failed command printed, or else the error."""
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) and error.stderr else str(error)
    return " ".join((text.decode(errors="replace") if isinstance(text, bytes) else text).split())
