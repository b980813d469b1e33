"""Jobs as tasks of SLURM arrays, on hydra-submitit-launcher; what came of them is read from run directories."""

from __future__ import annotations

import copy
import hashlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import cloudpickle
from hydra._internal.config_repository import ConfigRepository
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as SubmititLauncher

from lab.errors import LabError, require, visible
from lab.launch.launcher import SweepLauncher, failed
from lab.launch.tasks import Queue, Task, ask, explained, ids_in_queue
from lab.run.code.frozen import Frozen, freeze
from lab.run.directory import SweepDir, TrialDir
from lab.run.files import read_json, write_atomically, write_sealed_json
from lab.run.provenance import command_line
from lab.run.schemas import JOB
from lab.trial import Job

if TYPE_CHECKING:
    import submitit

LINGER = 600.0  # seconds that a task which was asked to end waits for SLURM to end it
# Starts Python with the signal of the time limit held back: it may come before anybody handles it, and would kill.
GUARDED = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
LEAST_SECONDS = 15  # that a task must have before it is told of its time limit


class SlurmLauncher(SweepLauncher, SubmititLauncher):
    """Submits jobs as SLURM arrays that run the code as it is at submission.

    A task that is preempted, reaches its time limit or loses its node is queued again by SLURM or by submitit, and its
    Sessions go on from their checkpoints.
    """

    outlives = True

    def __init__(self, array_size: int, poll: float, **params: Any) -> None:
        super().__init__(**params)
        for key in ("nodes", "tasks_per_node"):
            require(params.get(key, 1) == 1, f"hydra.launcher.{key}", params.get(key), "1: a job is one process")
        least = int(params["signal_delay_s"]) + LEAST_SECONDS
        timeout = params["timeout_min"]
        allowed = f"{least / 60:.2g} minutes or more, for signal_delay_s={params['signal_delay_s']}"
        require(60 * timeout >= least, "hydra.launcher.timeout_min", timeout, allowed)
        require(array_size >= 1, "hydra.launcher.array_size", array_size, "1 or more")
        require(poll > 0, "hydra.launcher.poll", poll, "above 0 seconds")
        self.array_size = array_size
        self.room = int(self.params["array_parallelism"])
        self.queue = Queue(poll)
        self._frozen: Frozen | None = None
        self._tasks: dict[int, Task] = {}

    def submit(self, jobs: Sequence[Job], words: Sequence[list[str]], first: int) -> list[Future[str | None]]:
        """Submit jobs, as few arrays as there can be; the future of each gives null, or why it has no result."""
        assert self.config is not None
        directory = SweepDir(str(self.config.hydra.sweep.dir))

        def record(number: int, task: Task) -> None:
            job = jobs[number - first]
            paths = {seed: str(session.path.relative_to(directory.path)) for seed, session in job.sessions.items()}
            content = {"task": task.id, "folder": str(task.folder), "trial": job.trial, "overrides": job.overrides}
            write_sealed_json(directory.jobs / f"{number}.json", {**content, "sessions": paths})

        return [self.queue.follow(task) for task in self._submit(words, first, record)]

    def adopt(self, directory: SweepDir) -> list[tuple[int, Job, Future[str | None]]]:
        """Return the jobs that an earlier process submitted and that are not over, with their numbers."""
        found: dict[int, tuple[Task, Job]] = {}
        for path in directory.jobs.glob("*.json"):
            record = read_json(path, JOB)
            trial = TrialDir(directory.path / Path(next(iter(record["sessions"].values()))).parent)
            job = Job(record["trial"], record["overrides"], {int(s): trial.session(int(s)) for s in record["sessions"]})
            if not job.ended:
                found[int(path.stem)] = Task(record["task"], Path(record["folder"])), job
        queued = ids_in_queue([task.id for task, _ in found.values()]) if found else set()
        going = {number: pair for number, pair in found.items() if pair[0].id in queued}
        self._tasks |= {number: task for number, (task, _) in going.items()}
        return [(number, job, self.queue.follow(task)) for number, (task, job) in sorted(going.items())]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return when all are over; the JobReturn of one that was lost holds a LabError."""
        words = [list(overrides) for overrides in job_overrides]
        tasks = self._submit(words, initial_job_idx)
        reasons = [future.result() for future in [self.queue.follow(task) for task in tasks]]
        pairs = zip(words, [task.result() for task in tasks], reasons, strict=True)
        return [result or failed(overrides, why or "its task left none") for overrides, result, why in pairs]

    def stop(self) -> None:
        """Cancel the tasks that wait."""
        self._cancel(list(self._tasks.values()), "--state=PENDING")

    def kill(self, number: int) -> None:
        """Cancel the task of a job, whether it waits or runs."""
        if number in self._tasks:
            self._cancel([self._tasks[number]])

    def kill_all(self) -> None:
        """Cancel all tasks."""
        self._cancel(list(self._tasks.values()))

    def _cancel(self, tasks: list[Task], *options: str) -> None:
        alive = [task.id for task in tasks if not task.has_result()]
        if len(alive) > 1:  # all tasks of an array are ours
            alive = list(dict.fromkeys(name.partition("_")[0] for name in alive))
        try:
            if alive:
                ask("scancel", "--quiet", *options, *alive)
        except LabError as error:  # there is more to do than this
            print(visible(f"Tasks could not be cancelled: {error}"), file=sys.stderr)

    def _submit(
        self, words: Sequence[list[str]], first: int, record: Callable[[int, Task], None] = lambda number, task: None
    ) -> list[Task]:
        """Submit arrays, as few as there can be, and record their tasks at once: all of them, or none."""
        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        directory = Path(str(self.config.hydra.sweep.dir))
        if "%" in str(directory.absolute()):
            raise LabError(
                f"hydra.sweep.dir={directory} is not possible with SLURM, which gives % a meaning of its own."
            )
        if self._frozen is None:
            self._frozen = freeze(directory / ".code", directory)
        common = (moved(self.hydra_context, self._frozen), self.config, self.task_function, Singleton.get_state())
        content = cloudpickle.dumps((*common, command_line()))
        shared = (directory / ".jobs" / f"{hashlib.sha256(content).hexdigest()[:12]}.pkl").absolute()
        write_atomically(shared, content)
        arguments = [(one, number) for number, one in enumerate(words, first)]
        tasks: list[Task] = []
        for start in range(0, len(words), self.array_size):
            part = arguments[start : start + self.array_size]
            try:
                jobs = self._executor().map_array(Worker(shared), *zip(*part, strict=True))
            except (subprocess.CalledProcessError, RuntimeError) as error:
                self._cancel(tasks)
                raise LabError(f"SLURM refused the jobs: {explained(error)}") from error
            for number, job in enumerate(jobs, first + start):
                task = Task(job.job_id, Path(str(self.params["submitit_folder"])).absolute())
                tasks.append(task)
                self._tasks[number] = task
                record(number, task)
        return tasks

    def _executor(self) -> submitit.AutoExecutor:
        import submitit

        assert self._frozen is not None
        params = dict(self.params)
        start = {f"slurm_{key}": params.pop(key) for key in ("max_num_timeout", "python")}
        start["slurm_python"] = start["slurm_python"] or shlex.join([sys.executable, "-c", GUARDED])
        executor = submitit.AutoExecutor(folder=params.pop("submitit_folder"), cluster="slurm", **start)
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self._frozen.env().items()]
        # Else a cluster may leave it at that when a task is preempted or loses its node.
        params["additional_parameters"] = {"requeue": True, **(params.get("additional_parameters") or {})}
        params["setup"] = [*(params.get("setup") or []), *exports]
        common = BaseQueueConf.__dataclass_fields__
        given = {key: value for key, value in params.items() if value is not None}
        executor.update_parameters(**{key if key in common else f"slurm_{key}": value for key, value in given.items()})
        return executor


class Worker:
    """What a task runs: one job of Hydra, in the code and with the config groups of its submission."""

    def __init__(self, shared: Path) -> None:
        """Name the file with what all jobs of a submission share, which would be long to write for each."""
        self.shared = shared

    def __call__(self, words: list[str], number: int) -> JobReturn:
        """Run the job; take it for preempted or cancelled if SIGTERM comes."""
        context, config, task_function, state, command = cloudpickle.loads(self.shared.read_bytes())
        sys.orig_argv = command  # what was typed, instead of how this process was started
        signal.signal(signal.SIGTERM, linger)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})  # from here on somebody handles it
        launcher = SubmititLauncher()
        launcher.setup(hydra_context=context, task_function=task_function, config=config)
        return launcher(words, "hydra.sweep.dir", number, str(number), state)

    def checkpoint(self, *arguments: Any) -> submitit.helpers.DelayedSubmission:
        """Say what a task that is queued again runs: the same, as all else is in run directories."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


def linger(number: int, frame: FrameType | None) -> None:
    """Wait to be killed: SLURM queues a preempted task again if it was killed, but not if it ended by itself."""
    time.sleep(LINGER)
    sys.exit(128 + number)


def moved(context: HydraContext, frozen: Frozen) -> HydraContext:
    """Return what Hydra gives to a job, but with the config groups of a frozen copy."""
    loader: Any = copy.deepcopy(context.config_loader)
    for element in loader.config_search_path.get_path():
        scheme, found, path = str(element.path).rpartition("file://")
        if scheme == "" and element.path is not None:
            element.path = f"{found}{frozen.moved(path)}"
    loader.repository = ConfigRepository(config_search_path=loader.config_search_path)
    return HydraContext(config_loader=loader, callbacks=context.callbacks)
