"""Jobs as processes of this machine, as many at once as there are slots."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from lab.common.signals import Requests
from lab.errors import LabError, describe_exit, require
from lab.launch.gpus import ORDER, VISIBLE, Gpus, visible
from lab.launch.launcher import SweepLauncher, failed
from lab.run.provenance import command_line

PRELOADED = ["lab.launch.ignore_signals", "lab.launch.preload"]  # in this order
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # what keeps libraries from taking all cores
LEASED = ("auto", "cuda")  # devices for which a job is given a GPU; cuda:1 names one itself
PATIENCE = 30.0  # seconds that a job may take to end by itself once the process that launched it is gone


class LocalLauncher(SweepLauncher, Launcher):
    """Runs each job in a process of its own, so that what kills one job costs nothing but that job.

    `launch` may be called from several threads; they share the slots, first come first served.
    """

    def __init__(self, slots: int | None = None, per_gpu: int = 1, gpu_memory: int | None = None) -> None:
        require(slots is None or slots >= 1, "hydra.launcher.slots", slots, "null, or 1 or more")
        require(per_gpu >= 1, "hydra.launcher.per_gpu", per_gpu, "1 or more")
        require(gpu_memory is None or gpu_memory >= 1, "hydra.launcher.gpu_memory", gpu_memory, "null, or 1 or more")
        self.slots, self.per_gpu, self.gpu_memory = slots, per_gpu, gpu_memory
        self._stopped = threading.Event()
        self._processes: dict[int, Any] = {}
        self._starting = threading.Lock()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a job needs from Hydra."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.threads = int(config.get("threads", 1) or 1)
        self.room = self.slots or max(1, len(os.sched_getaffinity(0)) // self.threads)
        self.gpus: Gpus | None = None
        if str(config.get("device")) in LEASED and (names := visible()):
            self.gpus = Gpus(names, self.per_gpu, self.gpu_memory)
            self.room = min(self.room, self.gpus.room)
        self._free = threading.Semaphore(self.room)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def warm_up(self) -> None:
        """Start the process from which jobs are forked, so that it has imported what they need when they come."""
        for name in THREADS:  # read by libraries when they are imported
            os.environ[name] = str(self.threads)
        resource_tracker.ensure_running()  # which forkserver starts as well, and which lets interrupts through then
        with ignoring_interrupts():
            forkserver.ensure_running()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return when all have ended.

        Args:
            job_overrides: the words of each.
            initial_job_idx: number of the first.

        Returns:
            A JobReturn for each; that of a job whose process was killed holds a LabError.
        """
        with ThreadPoolExecutor(len(job_overrides)) as threads:
            numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
            return list(threads.map(self._run, map(list, job_overrides), numbers))

    def stop(self) -> None:
        """Start no more jobs, and ask those that run to end with everything written."""
        super().stop()
        with self._starting:
            self._stopped.set()
            for process in self._processes.values():
                process.terminate()

    def kill(self, number: int) -> None:
        """Kill the job of a number with all the processes that it has started, if it runs."""
        process = self._processes.get(number)
        if process:
            kill_group(process.pid)

    def kill_all(self) -> None:
        """Kill all jobs that run."""
        for number in list(self._processes):
            self.kill(number)

    def _run(self, words: list[str], number: int) -> JobReturn:
        with contextlib.ExitStack() as held:
            held.enter_context(self._free)
            environment: dict[str, str] = {}
            if self.gpus:
                try:
                    environment = {VISIBLE: held.enter_context(self.gpus.leased()), ORDER: "PCI_BUS_ID"}
                except LabError as error:
                    return failed(words, str(error).removesuffix("."))
            with self._starting, ignoring_interrupts():
                if self._stopped.is_set():
                    return failed(words, "it was not started any more")
                receiver, sender = self._context.Pipe(duplex=False)
                log = Path(str(self.config.hydra.sweep.dir)) / ".jobs" / f"{number}.log"
                state, command = Singleton.get_state(), command_line()
                task = (self.hydra_context, self.task_function, self.config)
                arguments = (*task, state, words, number, command, environment)
                payload = cloudpickle.dumps(arguments)
                process = self._context.Process(target=work, args=(payload, sender, str(log)), name=f"job-{number}")
                process.start()
                sender.close()
                self._processes[number] = process
            answer = b""
            if receiver in wait([receiver, process.sentinel]):
                with contextlib.suppress(EOFError):
                    answer = receiver.recv_bytes()
            process.join(PATIENCE)  # a thread of an environment may keep it
            kill_group(process.pid)  # and what a job that was killed alone has left running
            process.join()
            with self._starting:
                del self._processes[number]
            if answer:
                return cloudpickle.loads(answer)
            output = f"what it printed is in .jobs/{log.name} of the sweep's directory"
            return failed(words, f"its process {describe_exit(process.exitcode)}; {output}")


def kill_group(pid: int | None) -> None:
    """Kill the process that leads a group, and the group."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def work(payload: bytes, sender: Connection, log: str) -> None:
    """Run one job in a new process, and send its JobReturn; nothing if asked to end while it does not train."""
    with contextlib.suppress(KeyboardInterrupt):
        Requests(at_once=True).set()
        sender.send_bytes(cloudpickle.dumps(_work(payload, log)))


def _work(payload: bytes, log: str) -> JobReturn:
    os.setsid()  # a group of its own, which can be killed as a whole, and which Ctrl-C does not reach
    end_with_parent()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as output:  # noqa: PTH123 - it replaces the standard streams
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    context, task_function, config, state, words, number, command, environment = cloudpickle.loads(payload)
    os.environ.update(environment)
    sys.orig_argv = command  # what was typed, instead of how this process was forked
    Singleton.set_state(state)
    setup_globals()
    try:
        job = context.config_loader.load_sweep_config(config, words)
    except Exception as error:
        return failed(words, f"its config cannot be composed: {error}")
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = f"{os.getpid()}", number
    return run_job(
        hydra_context=context,
        task_function=task_function,
        config=job,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let processes that are begun meanwhile ignore Ctrl-C for good: it is for the sweep, which asks them to end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Let this process end when the one that launched it does, however that ends: first asked to, then at once."""
    parent = parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        with contextlib.suppress(ProcessLookupError):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)
            kill_group(os.getpgid(0) if os.getpgid(0) == os.getpid() else None)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
