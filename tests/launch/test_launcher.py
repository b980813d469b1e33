"""Launchers as a sweep sees them: what jobs return, and launchers of Hydra's that know nothing of sweeps."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from lab.errors import LabError
from lab.launch.launcher import AnyLauncher
from lab.trial import Job


class LosingLauncher(Launcher):
    def __init__(self) -> None:
        self.numbers: list[int] = []

    def setup(self, **options: object) -> None: ...

    def launch(self, job_overrides: object, initial_job_idx: int) -> list[JobReturn]:
        self.numbers.append(initial_job_idx)
        raise RuntimeError("a task was lost")


def test_any_launcher_gets_each_job_by_itself_and_may_raise(tmp_path: Path) -> None:
    hydra_launcher = LosingLauncher()
    launcher = AnyLauncher(hydra_launcher, OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert launcher.slots == 8
    for _ in range(2):
        futures = launcher.submit([Job(["a=1"], {}), Job(["a=2"], {})])
        assert [launcher.error(future) for future in futures] == ["RuntimeError: a task was lost"] * 2
    assert sorted(hydra_launcher.numbers) == [1, 2, 3, 4]


def test_the_error_of_a_job(tmp_path: Path) -> None:
    results = [JobReturn(status=JobStatus.COMPLETED), *(JobReturn(status=JobStatus.FAILED) for _ in range(2))]
    results[1].return_value, results[2].return_value = LabError("A sentence."), ValueError("broken")
    futures: list[Future[JobReturn]] = [Future() for _ in range(4)]
    for future, result in zip(futures[:3], results, strict=True):
        future.set_result(result)
    futures[3].cancel()
    launcher = AnyLauncher(LosingLauncher(), OmegaConf.create({}))
    assert [launcher.error(future) for future in futures] == [None, "A sentence.", "ValueError: broken", None]
