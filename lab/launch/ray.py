"""The launcher for Ray: each job of a sweep is a task of Ray, whose worker runs it in a process of its own.

The life of a job:

1. `RayLauncher.setup` connects to Ray, once in a process, or starts one on this machine.
2. `RayLauncher.start` copies the code to the sweep's directory, so that later edits do not reach jobs that wait. It
   hands as many jobs to Ray as there are slots, and Ray finds a node for each with the resources that it asks for.
3. The worker runs the job by `lab.launch.ray_job`, with the copy of the code and with the GPUs that Ray gave it.
4. If Ray loses the worker or its node, it runs the task again elsewhere: the Sessions resume from their checkpoints. If
   it loses the controller, it ends the workers, and the jobs save their work and end.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.utils import JobReturn
from hydra.types import HydraContext

from lab.build import build
from lab.common.conf import install_command
from lab.common.text import plural
from lab.common.validation import Count, Natural, NonNegative, Positive, validate
from lab.errors import LabError, describe_exit, require, summary, visible
from lab.launch import ray_job
from lab.launch.copied import copy_code, with_config_groups_of
from lab.launch.gpus import VISIBLE
from lab.launch.launcher import JobLauncher, failed, plain_options
from lab.launch.local import THREADS
from lab.trial import Job

GB = 2**30
CONNECT_SECONDS = 10.0  # for a Ray to accept a connection
OWN_KEYS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "mem_gb"}  # by Ray's name of a resource
AMOUNTS = "a number above 0, whole if it is above 1"


@dataclass
class RayOptions:
    """The keys of conf/hydra/launcher/ray.yaml."""

    address: str | None
    slots: Count | None
    num_cpus: Positive
    num_gpus: NonNegative
    mem_gb: Positive | None
    resources: dict[str, Any]
    max_retries: Natural
    env_vars: dict[str, Any]


class RayLauncher(JobLauncher):
    """Runs jobs as tasks of Ray, with the code as it is when they are submitted."""

    def __init__(self, **options: Any) -> None:
        known = build(RayOptions, plain_options(options), "hydra.launcher.")
        client = bool(known.address and known.address.startswith("ray://"))
        allowed = "null, auto or HOST:PORT: Ray's client is not supported"
        require(not client, "hydra.launcher.address", known.address, allowed)
        num_gpus = known.num_gpus
        require(num_gpus == 0 or _is_amount(num_gpus), "hydra.launcher.num_gpus", num_gpus, f"0, or {AMOUNTS}")
        amounts = {"num_cpus": known.num_cpus}
        for name, amount in known.resources.items():
            key = f"hydra.launcher.resources.{name}"
            if name in OWN_KEYS:
                raise LabError(f"{key} cannot be set: hydra.launcher.{OWN_KEYS[name]} says how much of it a job needs.")
            require(name != "object_store_memory", key, amount, "left out: a job stores nothing in Ray")
            amounts[f"resources.{name}"] = validate(float, amount, key)
        for key, amount in amounts.items():
            require(_is_amount(amount), f"hydra.launcher.{key}", amount, AMOUNTS)
        self.address, self.slots, self.mem_gb, self.num_gpus = known.address, known.slots or 0, known.mem_gb, num_gpus
        self.env_vars = {
            name: str(validate(str | bool, value, f"hydra.launcher.env_vars.{name}"))
            for name, value in known.env_vars.items()
        }
        memory = int((known.mem_gb or 0) * GB)
        self.demand = {"CPU": known.num_cpus, "GPU": num_gpus, "memory": memory, **known.resources}
        self.options: dict[str, Any] = {
            "num_cpus": known.num_cpus,
            "num_gpus": num_gpus,
            "memory": memory or None,
            "resources": known.resources,
            "max_retries": known.max_retries,
            "scheduling_strategy": "SPREAD",
        }
        self._tasks: dict[Job, tuple[int, Any]] = {}  # number and reference of those that wait or run
        self._killed: set[Job] = set()
        self._stopped, self._lock = False, threading.Lock()
        self._environment: dict[str, str] = {}
        self._context: HydraContext | None = None

    def setup(self, **context: Any) -> None:
        """Connect to Ray.

        Raises:
            LabError: there is none, or none of its nodes can hold a job.
        """
        super().setup(**context)
        self._require_device(str(self.config.get("device")))
        self._ray = connect(self.address)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        held = [(node, number) for node in nodes if (number := count_jobs(self.demand, node))]
        if not held:
            raise LabError(f"No node of Ray can hold a job: {_describe_shortage(self.demand, nodes)}.")
        self.slots = self.slots or sum(number for _, number in held)
        where, slots = self._ray.get_runtime_context().gcs_address, plural(self.slots, "job")
        print(visible(f"Ray at {where}: {plural(len(nodes), 'node')}, {slots} at the same time"))
        self._free = min(node.get("memory", math.inf) / number for node, number in held)
        self._task = self._ray.remote(ray_job.run_in_process).options(**self.options)
        self._threads = ThreadPoolExecutor(self.slots, "ray")

    def _require_device(self, device: str) -> None:
        """Raise LabError if a job cannot see a device."""
        named = "auto, cpu or cuda: a job sees only the GPUs that Ray gives it, whatever their numbers are"
        require(not device.startswith("cuda:"), "device", device, named)
        if device == "cuda" and not self.num_gpus:
            raise LabError(
                f"device={device} needs hydra.launcher.num_gpus above 0: a job sees the GPUs it asks Ray for."
            )

    def start(self, jobs: Sequence[Job], first: int) -> list[Future[JobReturn]]:
        for device in dict.fromkeys(text for job in jobs for text in job.overrides if text.startswith("device=")):
            self._require_device(device.removeprefix("device="))
        if self._context is None:
            code = copy_code(self.config, self.directory.path)
            threads = str(int(self.config.get("threads", 1) or 1))
            gpus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if self.num_gpus else {VISIBLE: ""}  # none that others have
            self._environment = {**dict.fromkeys(THREADS, threads), **gpus, **self.env_vars, **code.env()}
            self._context = with_config_groups_of(code, self.hydra_context)
        return [self._threads.submit(self._run, job, number) for number, job in enumerate(jobs, first)]

    def free_memory(self) -> float:
        return self.mem_gb * GB if self.mem_gb else self._free

    def kill(self, job: Job | None = None) -> None:
        for other, (_, task) in list(self._tasks.items()):
            if job in (None, other):
                self._killed.add(other)
                self._ray.cancel(task)

    def stop(self) -> None:
        """Cancel the tasks that wait; those that run are asked through their run directories."""
        with self._lock:
            self._stopped = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        begun = set(os.listdir(self.directory.jobs)) if self.directory.jobs.exists() else set()  # noqa: PTH208
        for number, task in list(self._tasks.values()):
            if f"{number}.log" not in begun:
                self._ray.cancel(task)

    def _run(self, job: Job, number: int) -> JobReturn:
        """Run a job as a task of Ray, and wait for its end."""
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        payload = self.pickle_job(job, number, self._context)
        log = f"{number}.log"
        output = f"what it printed is in .jobs/{log} of the sweep's directory"
        with self._lock:
            if self._stopped:
                raise CancelledError
            path = str((self.directory.jobs / log).absolute())
            task = self._task.remote(payload, self._environment, str(Path.cwd()), path)
            self._tasks[job] = number, task
        try:
            answer, code = self._ray.get(task)
        except TaskCancelledError as error:
            if job not in self._killed:
                raise CancelledError from error
            return failed(job.overrides, f"its process was killed; {output}")
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if not isinstance(cause, RayError):
                return failed(job.overrides, f"its process could not be started: {cause}")
            times = "" if self.options["max_retries"] == 0 else f" {self.options['max_retries'] + 1} times"
            return failed(job.overrides, f"Ray lost its worker{times}: {summary(cause)}; {output}")
        finally:
            del self._tasks[job]
        if answer:
            return cloudpickle.loads(answer)
        return failed(job.overrides, f"its process {describe_exit(code)}; {output}")


def _is_amount(value: float) -> bool:
    return isinstance(value, (int, float)) and value > 0 and (value <= 1 or value == int(value))


def connect(address: str | None) -> Any:
    """Return the module `ray`, connected: to the Ray at an address, or to one that is found or started here.

    Raises:
        LabError: Ray is not installed, or there is none at the address.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise LabError(f"hydra/launcher=ray needs Ray, which is not installed: {install_command('ray')}") from error
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address and address != "auto":
        os.environ["RAY_ADDRESS"] = address  # which else counts more
    try:
        _require_listener(os.environ.get("RAY_ADDRESS", ""))
        ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"hydra.launcher.address={'null' if address is None else address}"
        raise LabError(f"{where} leads to no Ray: {' '.join(str(error).split()).rstrip('.')}.") from error
    ray.cloudpickle.register_pickle_by_value(sys.modules[ray_job.__name__])  # workers need not import lab
    return ray


def _require_listener(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT, for which Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), CONNECT_SECONDS):
            pass


def count_jobs(demand: Mapping[str, float], node: Mapping[str, float]) -> int:
    """Return how many jobs a node holds at the same time, by the resources of each and of the node."""
    return min(int(node.get(name, 0) / amount + 1e-6) for name, amount in demand.items() if amount)


def _describe_shortage(demand: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> str:
    """Return what a job asks for, and the most of it that a node has."""
    parts = []
    for name, amount in demand.items():
        unit = GB if name == "memory" else 1
        most = max((node.get(name, 0) for node in nodes), default=0)
        if amount:
            key = OWN_KEYS.get(name, f"resources.{name}")
            parts.append(f"hydra.launcher.{key}={amount / unit:g} (at most {most / unit:.4g} on a node)")
    return "it asks for " + ", ".join(parts)
