"""The interface of launchers: what a sweep asks of whatever runs its jobs."""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from lab.common.text import quote
from lab.errors import LabError
from lab.memory.spec import free_memory
from lab.run.directory import SweepDir
from lab.run.provenance import command_line
from lab.trial import Job

MAX_THREADS = 1000  # that wait for jobs


class JobLauncher(Launcher):
    """A Hydra launcher that a sweep can steer while its jobs run.

    To add a launcher, write a subclass with `start`, `kill` and `stop`, and with `adopt` if its jobs outlive the sweep.
    Register it in lab/sweep/__init__.py, describe its options in conf/hydra/launcher/NAME.yaml, and add it to
    tests/launch/test_contract.py.

    Attributes:
        slots: number of jobs that run at the same time.
        outlives_controller: whether jobs go on when the controller, the process of the sweep, ends.
    """

    slots: int = 8
    outlives_controller: bool = False
    _next_number: int | None = None

    @abstractmethod
    def start(self, jobs: Sequence[Job], first: int) -> list[Future[JobReturn]]:
        """Run jobs with their overrides as soon as there are slots, and return at once; `first` numbers the first."""

    @abstractmethod
    def kill(self, job: Job | None = None) -> None:
        """Kill a job with all its processes, or every job."""

    @abstractmethod
    def stop(self) -> None:
        """Start no more jobs. Those that run may be asked to save their work and end."""

    def adopt(self) -> list[tuple[Job, Future[JobReturn]]]:
        """Return the jobs in `directory` that an earlier process started and that still wait or run."""
        return []

    def warm_up(self) -> None:
        """Prepare for the first job; called as soon as it is certain that there is one."""

    def free_memory(self) -> float:
        """Return the bytes of memory that each of the jobs that run at the same time can use."""
        return free_memory() / self.slots

    def pickle_job(self, job: Job, number: int, context: HydraContext | None = None) -> bytes:
        """Return all that `run_pickled_job` needs to run a job in another process, with a Hydra context of its own."""
        hydra = (context or self.hydra_context, self.task_function, self.config, Singleton.get_state())
        return cloudpickle.dumps((*hydra, job.overrides, number, command_line()))

    @property
    def directory(self) -> SweepDir:
        """The run directory of the sweep."""
        return SweepDir(Path(str(self.config.hydra.sweep.dir)))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra gives to each of its launchers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and wait for them, as Hydra's own sweepers ask."""
        jobs = [Job(list(overrides), {}) for overrides in job_overrides]
        results = []
        for job, future in zip(jobs, self.start(jobs, initial_job_idx), strict=True):
            error = future.exception()
            results.append(failed(job.overrides, _describe(error).rstrip(".")) if error else future.result())
        return results

    def submit(self, jobs: Sequence[Job]) -> list[Future[JobReturn]]:
        """Start jobs of a sweep under numbers that no job in its directory had."""
        first = self._next_number or self.directory.next_job()
        self._next_number = first + len(jobs)
        for job in jobs:
            # A job composes its config anew, and the sweep's directory may depend on what is swept.
            job.overrides = [*job.overrides, f"hydra.sweep.dir={quote(str(self.directory.path.absolute()))}"]
        return self.start(jobs, first)

    def error(self, future: Future[JobReturn]) -> str | None:
        """Return why a job that is over has no result; None if it has one, or was never started."""
        try:
            result = future.result()
        except CancelledError:
            return None
        except Exception as error:
            return _describe(error)
        # The property `return_value` would print and raise the error.
        return _describe(result._return_value) if result.status == JobStatus.FAILED else None


class AnyLauncher(JobLauncher):
    """Makes any launcher of Hydra's a JobLauncher, as far as its blocking `launch` allows."""

    def __init__(self, launcher: Launcher, config: DictConfig) -> None:
        self._launcher, self.config = launcher, config
        self._in_process = isinstance(launcher, BasicLauncher)
        self.slots = 1 if self._in_process else self.slots
        self._threads = ThreadPoolExecutor(1 if self._in_process else MAX_THREADS, "launch")

    def start(self, jobs: Sequence[Job], first: int) -> list[Future[JobReturn]]:
        """Launch each job on its own: a launcher may give up all jobs of a call when it loses one."""
        return [self._threads.submit(self._launch, job, number) for number, job in enumerate(jobs, first)]

    def _launch(self, job: Job, number: int) -> JobReturn:
        return self._launcher.launch([job.overrides], initial_job_idx=number)[0]

    def kill(self, job: Job | None = None) -> None:
        """Print that this is not possible; jobs in this process end with it."""
        if job is None and not self._in_process:
            print("\nThis launcher cannot kill jobs: their Sessions end when they log next.", file=sys.stderr)

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of hydra.launcher, which Hydra gives to a launcher, as plain data."""
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in options.items()
    }


def run_pickled_job(payload: bytes) -> JobReturn:
    """Run what `JobLauncher.pickle_job` returned, in another process."""
    context, task_function, config, state, overrides, number, command = cloudpickle.loads(payload)
    sys.orig_argv = command  # what the user typed, not how this process was forked
    Singleton.set_state(state)
    setup_globals()
    try:
        job = context.config_loader.load_sweep_config(config, overrides)
    except Exception as error:
        return failed(overrides, f"its config cannot be composed: {error}")
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = f"{os.getpid()}", number
    return run_job(
        hydra_context=context,
        task_function=task_function,
        config=job,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def failed(overrides: Sequence[str], reason: str) -> JobReturn:
    """Return the result of a job that ended without one."""
    result = JobReturn()
    result.overrides, result.status = list(overrides), JobStatus.FAILED
    result.return_value = LabError(f"The job has no result: {reason}.")
    return result


def _describe(error: object) -> str:
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
