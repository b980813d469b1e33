"""Jobs as processes of this machine, as many at the same time as there are slots."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.utils import JobReturn

from lab.build import build
from lab.common.signals import Requests
from lab.common.validation import Count
from lab.errors import describe_exit
from lab.launch.gpus import GpuPool, visible_gpus
from lab.launch.launcher import JobLauncher, failed, plain_options, run_pickled_job
from lab.launch.processes import ProcessPool, kill_group
from lab.trial import Job

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # limit the threads of numerical libraries
LEASED = ("auto", "cuda")  # values of `device` for which a job is given a GPU; cuda:1 names one itself
PATIENCE = 30.0  # seconds for a process to end after it was asked to, or has sent its result


@dataclass
class LocalOptions:
    """The keys of conf/hydra/launcher/local.yaml."""

    slots: Count | None = None
    per_gpu: Count = 1
    gpu_memory: Count | None = None


class LocalLauncher(JobLauncher):
    """Runs each job in a process of its own, so that what kills a job kills only that job."""

    def __init__(self, **options: Any) -> None:
        known = build(LocalOptions, plain_options(options), "hydra.launcher.")
        self.slots, self.per_gpu, self.gpu_memory = known.slots or 0, known.per_gpu, known.gpu_memory

    def setup(self, **context: Any) -> None:
        super().setup(**context)
        self.threads = int(self.config.get("threads", 1) or 1)
        self.slots = self.slots or max(1, len(os.sched_getaffinity(0)) // self.threads)
        gpus = None
        if str(self.config.get("device")) in LEASED and (names := visible_gpus()):
            gpus = GpuPool(names, self.per_gpu, self.gpu_memory)
            self.slots = min(self.slots, gpus.slots)
        self._pool = ProcessPool[JobReturn](self.slots, gpus)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["lab.launch.preload"])

    def warm_up(self) -> None:
        """Start the process from which jobs are forked, so that its imports are done when the first job comes."""
        for name in THREADS:  # read when the libraries are imported
            os.environ[name] = str(self.threads)
        resource_tracker.ensure_running()  # forkserver starts it too, but with interrupts let through
        with interrupts_ignored():
            forkserver.ensure_running()

    def start(self, jobs: Sequence[Job], first: int) -> list[Future[JobReturn]]:
        return [self._pool.submit(job, partial(self._fork, job, number)) for number, job in enumerate(jobs, first)]

    def kill(self, job: Job | None = None) -> None:
        self._pool.kill(job)

    def stop(self) -> None:
        self._pool.stop()

    def _fork(self, job: Job, number: int, environment: dict[str, str]) -> _ForkedJob:
        payload = self.pickle_job(job, number)
        return _ForkedJob(self._context, job.overrides, payload, environment, self.directory.jobs / f"{number}.log")


class _ForkedJob:
    """The process of a job, which sends its JobReturn."""

    def __init__(
        self, context: Any, overrides: list[str], payload: bytes, environment: dict[str, str], log: Path
    ) -> None:
        self.overrides, self.log = overrides, log
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(payload, sender, environment, log), name=f"job-{log.stem}")
        with interrupts_ignored():
            self._process.start()
        sender.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def wait(self) -> JobReturn:
        answer = b""
        if self._receiver in wait([self._receiver, self._process.sentinel]):
            with suppress(EOFError):
                answer = self._receiver.recv_bytes()
        self._process.join(PATIENCE)  # a thread of an environment may keep it
        kill_group(self.pid)
        self._process.join()
        if answer:
            return cloudpickle.loads(answer)
        output = f"what it printed is in .jobs/{self.log.name} of the sweep's directory"
        return failed(self.overrides, f"its process {describe_exit(self._process.exitcode)}; {output}")


def _run(payload: bytes, sender: Connection, environment: dict[str, str], log: Path) -> None:
    """Run a job in its process, and send its JobReturn; nothing if asked to end while it does not train."""
    with suppress(KeyboardInterrupt):
        Requests(at_once=True).set()
        os.setsid()  # a group of its own, which can be killed as a whole, and which Ctrl-C does not reach
        threading.Thread(target=end_with_parent, daemon=True, name="end with parent").start()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab", buffering=0) as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.update(environment)
        sender.send_bytes(cloudpickle.dumps(run_pickled_job(payload)))


def end_with_parent() -> None:
    """End this process when the one that launched it ends: by SIGTERM first, and by SIGKILL if that does not help."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    kill_group(os.getpid())


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let processes that are started meanwhile ignore Ctrl-C for good: the sweep asks them to end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
