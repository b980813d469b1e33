"""The pool of processes: slots, exit status, kill and stop."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import wait

import pytest

from lab.errors import LabError
from lab.launch.gpus import GpuPool
from lab.launch.processes import ProcessPool
from tests.helpers import wait_for


def shell(command: str) -> Callable[[dict[str, str]], subprocess.Popen[str]]:
    """Return what starts a shell command as the leader of a process group."""
    return lambda environment: subprocess.Popen(
        ["sh", "-c", command], env=environment, text=True, start_new_session=True
    )


def test_processes_share_slots_and_gpus_and_give_their_exit_status() -> None:
    pool = ProcessPool[int](4, GpuPool(["GPU-a"], per_gpu=2))
    start = time.monotonic()
    futures = [pool.submit(n, shell(f'sleep 0.3; test "$CUDA_VISIBLE_DEVICES" = GPU-a && exit {n}')) for n in range(4)]
    assert [future.result(30) for future in futures] == [0, 1, 2, 3]
    assert time.monotonic() - start > 0.6, "two at the same time, as the GPU has room for no more"


def test_a_killed_process_takes_its_children_along_and_no_other() -> None:
    pool = ProcessPool[int](2)
    one, other = pool.submit("one", shell("sleep 100 & wait")), pool.submit("other", shell("sleep 0.5"))
    wait_for(lambda: len(pool._running) == 2)
    pool.kill("one")
    assert one.result(30) == -signal.SIGKILL
    assert other.result(30) == 0


def test_a_pool_that_stops_asks_what_runs_to_end_and_starts_nothing_more() -> None:
    pool = ProcessPool[int](1)
    running = pool.submit(0, shell("trap 'exit 7' TERM; while true; do sleep 0.05; done"))
    waiting = pool.submit(1, shell("exit 0"))
    wait_for(lambda: pool._running)
    time.sleep(0.2)  # until the shell has its trap
    pool.stop(wait=True)
    assert running.result(0) == 7
    assert waiting.cancelled()


def test_a_process_that_cannot_start_leaves_its_slot_to_others() -> None:
    def fail(environment: dict[str, str]) -> subprocess.Popen[str]:
        raise LabError("no")

    pool = ProcessPool[int](1)
    futures = [pool.submit(0, fail), pool.submit(1, shell("exit 0"))]
    wait(futures, 30)
    with pytest.raises(LabError, match="no"):
        futures[0].result()
    assert futures[1].result() == 0
