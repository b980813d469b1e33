"""Tasks of SLURM as the controller sees them; what needs a cluster is in tests/slurm."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from lab.errors import LabError
from lab.launch import slurm, slurm_tasks
from lab.launch.slurm import KINDS, SlurmLauncher
from lab.launch.slurm_tasks import Task, TaskMonitor
from lab.trial import Job
from tests.helpers import CONF

PARAMS = {"array_size": 10, "poll": 0.01, "array_parallelism": 4, "signal_delay_s": 30, "timeout_min": 5}


class BrokenError(Exception):
    """An exception that pickle cannot make again."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("broken")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "7_0").mkdir()
    return Task("7_0", tmp_path / "%j")


def error(task: Task) -> str:
    return str(TaskMonitor(0.01).watch(task).result(10)._return_value)


def answer(monkeypatch: pytest.MonkeyPatch, answers: Callable[[tuple[str, ...]], str]) -> None:
    for module in (slurm, slurm_tasks):
        monkeypatch.setattr(module, "run_slurm", lambda *command: answers(command))


def test_a_task_that_left_the_queue_without_a_result_says_why(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_tasks, "MISSING_SECONDS", 0.05)
    answer(monkeypatch, lambda command: "FAILED|9:0\nCANCELLED by 0|0:9\n" if command[0] == "sacct" else "")
    task.path("log.err").write_text("one line\nslurmstepd: error: Exceeded job memory limit\n")
    text = error(task)
    assert "SLURM reports FAILED (9:0), CANCELLED by 0 (0:9) for its task 7_0" in text
    assert "Exceeded job memory limit" in text


def test_a_result_that_cannot_be_read_is_a_failure_and_no_endless_wait(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, lambda command: task.id)
    task.path("result.pkl").write_bytes(pickle.dumps(("error", BrokenError(1, 2))))
    text = error(task)
    assert "cannot be read" in text


def test_a_cluster_that_does_not_answer_is_asked_again(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answers(command: tuple[str, ...]) -> str:
        asked.append(command)
        if len(asked) == 1:
            raise LabError("squeue failed: it does not answer.")
        if len(asked) == 2:
            raise PermissionError("nor does the file system")
        task.path("result.pkl").write_bytes(pickle.dumps(("success", JobReturn(status=JobStatus.COMPLETED))))
        return task.id

    answer(monkeypatch, answers)
    assert TaskMonitor(0.01).watch(task).result(10).status == JobStatus.COMPLETED
    assert len(asked) == 3


def test_tasks_that_cannot_be_canceled_stop_nothing_else(
    task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(command: tuple[str, ...]) -> str:
        raise LabError("scancel failed: it is busy.")

    answer(monkeypatch, refuse)
    launcher = SlurmLauncher(**PARAMS)
    launcher._tasks = {Job([], {}): each for each in (task, Task("7_1", task.folder))}
    launcher.stop()
    assert "Tasks could not be canceled: scancel failed: it is busy." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"nodes": 2}, "hydra.launcher.nodes=2 is not allowed"),
        ({"array_size": 0}, "hydra.launcher.array_size=0 is not allowed"),
        ({"array_size": "abc"}, "hydra.launcher.array_size=abc is not allowed"),
        ({"cpus_per_task": "abc"}, "hydra.launcher.cpus_per_task=abc is not allowed"),
        ({"mem_gb": "2G"}, "hydra.launcher.mem_gb=2G is not allowed"),
        ({"signal_delay_s": None}, "hydra.launcher.signal_delay_s=null is not allowed"),
        ({"setup": "module load cuda"}, "hydra.launcher.setup must be a list, in which each is a word"),
        ({"timeout_min": 1, "signal_delay_s": 120}, "hydra.launcher.timeout_min must be 2.2 minutes or more"),
    ],
)
def test_law_6_options_that_cannot_work_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        SlurmLauncher(**{**PARAMS, **changed})


def test_law_6_the_options_of_the_config_are_all_checked() -> None:
    keys = OmegaConf.load(CONF / "hydra" / "launcher" / "slurm.yaml").keys() - {"_target_"}
    assert keys == KINDS.keys()


def test_a_signal_that_comes_before_anybody_handles_it_is_held_back() -> None:
    early = """
import os, signal
os.kill(os.getpid(), signal.SIGUSR2)
signal.signal(signal.SIGUSR2, lambda number, frame: print("handled"))
print("ready")
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
"""
    done = subprocess.run(
        [sys.executable, "-c", slurm.START_PYTHON, "-c", early], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["ready", "handled"])
    plain = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, check=False)
    assert plain.returncode < 0, "without the guard it kills"
