"""The launcher for SLURM: each job of a sweep is a task of a SLURM job array, submitted by submitit.

The life of a task:

1. `SlurmLauncher.start` copies the code to the sweep's directory, so that later edits do not reach waiting tasks, and
   submits arrays of tasks. It records each task in `.jobs/NUMBER.json`, by which `adopt` finds it again after the
   controller died.
2. On a node, submitit unpickles a `Worker`, which composes the job's config and trains its Sessions.
3. Shortly before its time limit, a task gets SIGUSR2: its Sessions write checkpoints, and submitit requeues the task.
   A task that is preempted gets SIGTERM: its Sessions write checkpoints, then it waits to be killed, as SLURM requeues
   only what it had to kill. After the loss of a node SLURM requeues too. Sessions resume from their checkpoints.
4. A `TaskMonitor` polls the queue, and resolves the future of each task that is over.

What the Sessions did is read from their run directories; a task returns only Hydra's JobReturn.
"""

from __future__ import annotations

import hashlib
import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as SubmititLauncher

from lab.common.validation import Count, Natural, Positive, validate
from lab.errors import LabError, print_to_stderr, require
from lab.launch.copied import copy_code, with_config_groups_of
from lab.launch.launcher import JobLauncher, plain_options
from lab.launch.slurm_tasks import Task, TaskMonitor, describe_error, run_slurm, tasks_in_queue
from lab.run.code.copy import CodeCopy
from lab.run.directory import RunDir
from lab.run.files import read_json, write_atomically, write_sealed_json
from lab.run.provenance import command_line
from lab.run.schemas import JOB
from lab.trial import Job

if TYPE_CHECKING:
    import submitit

WORDS = ("partition", "account", "qos", "constraint", "exclude", "mem_per_cpu", "mem_per_gpu", "gres", "comment")
KINDS: dict[str, Any] = {
    **dict.fromkeys(("timeout_min", "array_size", "array_parallelism", "nodes", "tasks_per_node"), Count),
    **dict.fromkeys(("max_num_timeout", "signal_delay_s"), Natural),
    **dict.fromkeys(("cpus_per_task", "cpus_per_gpu", "gpus_per_node", "gpus_per_task"), Natural | None),
    **dict.fromkeys(("submitit_folder", "name"), str),
    **dict.fromkeys((*WORDS, "python"), str | None),
    **dict.fromkeys(("setup", "srun_args"), list[str] | None),
    **dict.fromkeys(("use_srun", "stderr_to_stdout"), bool),
    "additional_parameters": dict[str, Any] | None,
    "mem_gb": Positive | None,
    "poll": Positive,
}  # of the keys in conf/hydra/launcher/slurm.yaml; SLURM itself checks other options of submitit
MIN_SECONDS = 15  # shortest time between the start of a task and the warning of its time limit
KILL_SECONDS = 600.0  # longest time that a preempted or canceled task waits for SLURM to kill it
# Runs Python with SIGUSR2 blocked, which exec preserves: the signal may arrive before submitit has set its handler, and
# would kill the task.
START_PYTHON = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class SlurmLauncher(JobLauncher):
    """Runs jobs as tasks of SLURM arrays, with the code as it is when they are submitted.

    Args:
        array_size: maximum number of tasks in an array.
        poll: seconds between two queries of the queue.
        params: options of submitit's executor, as in conf/hydra/launcher/slurm.yaml.
    """

    outlives_controller = True

    def __init__(self, array_size: int, poll: float, **params: Any) -> None:
        given = plain_options({"array_size": array_size, "poll": poll, **params})
        params = {key: validate(KINDS.get(key, Any), value, f"hydra.launcher.{key}") for key, value in given.items()}
        array_size, poll = params.pop("array_size"), params.pop("poll")
        for key in ("nodes", "tasks_per_node"):
            require(params.get(key, 1) == 1, f"hydra.launcher.{key}", params.get(key), "1: a job is one process")
        minimum, timeout = params["signal_delay_s"] + MIN_SECONDS, params["timeout_min"]
        allowed = f"{minimum / 60:.2g} minutes or more, for signal_delay_s={params['signal_delay_s']}"
        require(60 * timeout >= minimum, "hydra.launcher.timeout_min", timeout, allowed)
        self.array_size, self.monitor = array_size, TaskMonitor(poll)
        self.params: dict[str, Any] = {key: value for key, value in params.items() if value is not None}
        for key in self.params.keys() - SlurmQueueConf.__dataclass_fields__.keys():
            import submitit

            if key not in submitit.SlurmExecutor._valid_parameters():
                raise TypeError(f"SlurmLauncher.__init__() got an unexpected keyword argument '{key}'")
        self.slots = self.params["array_parallelism"]
        self._tasks: dict[Job, Task] = {}
        self._code: CodeCopy | None = None

    def start(self, jobs: Sequence[Job], first: int) -> list[Future[JobReturn]]:
        """Submit jobs in as few arrays as possible; if SLURM refuses one array, cancel those before it."""
        root = self.directory.path
        if "%" in str(root.absolute()):
            raise LabError(f"hydra.sweep.dir={root} cannot be used with SLURM, which replaces % in paths.")
        if self._code is None:
            self._code = copy_code(self.config, root)
        worker = Worker(self._write_shared(self._code))
        submitted: list[Job] = []
        for start in range(0, len(jobs), self.array_size):
            batch = jobs[start : start + self.array_size]
            numbers = range(first + start, first + start + len(batch))
            try:
                array = self._executor(self._code).map_array(worker, [job.overrides for job in batch], numbers)
            except (subprocess.CalledProcessError, RuntimeError) as error:
                self._cancel(submitted)
                raise LabError(f"SLURM refused the jobs: {describe_error(error)}") from error
            for job, number, submitted_job in zip(batch, numbers, array, strict=True):
                self._tasks[job] = Task(submitted_job.job_id, Path(self.params["submitit_folder"]).absolute())
                self._record(job, number)
            submitted += batch
        return [self.monitor.watch(self._tasks[job]) for job in jobs]

    def adopt(self) -> list[tuple[Job, Future[JobReturn]]]:
        tasks: dict[Job, Task] = {}
        for path in sorted(self.directory.jobs.glob("*.json"), key=lambda path: int(path.stem)):
            record = read_json(path, JOB)
            sessions = [RunDir(self.directory.path / session) for session in record["sessions"]]
            job = Job(list(record["overrides"]), {session.place: session for session in sessions})
            if not job.ended:
                tasks[job] = Task(record["task"], Path(record["folder"]))
        queued = tasks_in_queue(tasks.values())
        self._tasks |= {job: task for job, task in tasks.items() if task.id in queued}
        return [(job, self.monitor.watch(task)) for job, task in tasks.items() if task.id in queued]

    def free_memory(self) -> float:
        size = self.params.get("mem_gb")  # other options are for the cluster to count
        return size * 2**30 if size else math.inf

    def kill(self, job: Job | None = None) -> None:
        self._cancel([job] if job else list(self._tasks))

    def stop(self) -> None:
        """Cancel the tasks that wait; those that run are asked through their run directories."""
        self._cancel(list(self._tasks), "--state=PENDING")

    def _cancel(self, jobs: Sequence[Job], *options: str) -> None:
        tasks = [self._tasks[job] for job in jobs if job in self._tasks]
        ids = [task.id for task in tasks if not task.has_result()]
        if len(ids) > 1:  # cancel whole arrays: all their tasks belong to this sweep
            ids = list(dict.fromkeys(name.partition("_")[0] for name in ids))
        try:
            if ids:
                run_slurm("scancel", "--quiet", *options, *ids)
        except LabError as error:
            print_to_stderr(f"Tasks could not be canceled: {error}")

    def _record(self, job: Job, number: int) -> None:
        """Write what `adopt` reads. Jobs from Hydra's own sweepers have no Sessions and are not adopted."""
        if job.sessions:
            task, root = self._tasks[job], self.directory.path
            sessions = [str(session.path.relative_to(root)) for session in job.sessions.values()]
            content = {"task": task.id, "folder": str(task.folder), "overrides": job.overrides, "sessions": sessions}
            write_sealed_json(self.directory.jobs / f"{number}.json", content)

    def _write_shared(self, code: CodeCopy) -> Path:
        """Write what all tasks need to one file, instead of pickling it with each of them."""
        context = with_config_groups_of(code, self.hydra_context)
        content = cloudpickle.dumps((context, self.config, self.task_function, Singleton.get_state(), command_line()))
        path = (self.directory.jobs / f"{hashlib.sha256(content).hexdigest()[:12]}.pkl").absolute()
        write_atomically(path, content)
        return path

    def _executor(self, code: CodeCopy) -> submitit.AutoExecutor:
        import submitit

        params = dict(self.params)
        python = params.pop("python", None) or shlex.join([sys.executable, "-c", START_PYTHON])
        executor = submitit.AutoExecutor(
            folder=params.pop("submitit_folder"),
            cluster="slurm",
            slurm_max_num_timeout=params.pop("max_num_timeout"),
            slurm_python=python,
        )
        # Some clusters do not requeue preempted tasks by default.
        params["additional_parameters"] = {"requeue": True, **params.get("additional_parameters", {})}
        exports = [f"export {name}={shlex.quote(value)}" for name, value in code.env().items()]
        params["setup"] = [*params.get("setup", []), *exports]
        common = BaseQueueConf.__dataclass_fields__  # options that submitit has for every kind of cluster
        executor.update_parameters(**{key if key in common else f"slurm_{key}": value for key, value in params.items()})
        return executor


class Worker:
    """What a task runs: one job, with the code and the config groups of its submission."""

    def __init__(self, shared: Path) -> None:
        self.shared = shared

    def __call__(self, overrides: list[str], number: int) -> JobReturn:
        """Run the job."""
        context, config, task_function, state, command = cloudpickle.loads(self.shared.read_bytes())
        sys.orig_argv = command  # what the user typed, not how this process was started
        signal.signal(signal.SIGTERM, wait_to_be_killed)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})  # submitit handles it by now
        launcher = SubmititLauncher()
        launcher.setup(hydra_context=context, task_function=task_function, config=config)
        return launcher(overrides, "hydra.sweep.dir", number, str(number), state)

    def checkpoint(self, *arguments: Any) -> submitit.helpers.DelayedSubmission:
        """Return what a requeued task runs: the same call, as all progress is in run directories."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


def wait_to_be_killed(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM: SLURM requeues a preempted task that it had to kill, but not one that ended by itself."""
    time.sleep(KILL_SECONDS)
    sys.exit(128 + number)
