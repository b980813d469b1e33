"""The contract of a JobLauncher: every launcher passes this suite, besides Hydra's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.launch.launcher import AnyLauncher, JobLauncher
from lab.sweep import register
from lab.trial import Job
from tests.helpers import CONF, wait_for

SECONDS = 60.0  # for a job that does nothing to end


class LauncherContract:
    """What a sweep expects of a launcher; a subclass sets `name`, and `overrides` if it needs some."""

    name: str
    overrides: tuple[str, ...] = ()
    can_kill = True

    @pytest.fixture
    def launcher(self, tmp_path: Path) -> Iterator[JobLauncher]:
        def task(config: DictConfig) -> None:
            Path(HydraConfig.get().runtime.output_dir, "started").touch()
            if config.name == "raises":
                raise ValueError("this is broken")
            if config.name == "hangs":
                time.sleep(1000)

        register()
        with initialize_config_dir(str(CONF)):
            chosen = [f"hydra/launcher={self.name}", *self.overrides, f"hydra.sweep.dir='{tmp_path}'", "name=fine"]
            config = compose("config", chosen, return_hydra_config=True)
            context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
            made: Any = Plugins.instance().instantiate_launcher(context, task, config)
            launcher = made if isinstance(made, JobLauncher) else AnyLauncher(made, config)
            yield launcher
            launcher.stop()
            launcher.kill()

    def test_futures_say_what_became_of_jobs(self, launcher: JobLauncher) -> None:
        launcher.warm_up()
        jobs = [job(number, name) for number, name in enumerate(("fine", "raises", "fine"))]
        futures = launcher.submit(jobs)
        wait_for(lambda: all(future.done() for future in futures), seconds=SECONDS)
        assert [launcher.error(future) for future in futures] == [None, "ValueError: this is broken", None]
        assert [future.result().overrides for future in futures] == [[each.overrides[0]] for each in jobs]

    def test_a_killed_job_has_no_result_and_a_waiting_one_never_starts(
        self, launcher: JobLauncher, tmp_path: Path
    ) -> None:
        if not self.can_kill:
            pytest.skip("it cannot kill jobs")
        jobs = [job(number, "hangs") for number in range(launcher.slots + 1)]
        futures = launcher.submit(jobs)
        started = [tmp_path / str(number) / "started" for number in range(launcher.slots + 1)]
        wait_for(lambda: all(path.exists() for path in started[:-1]), seconds=SECONDS)
        launcher.stop()
        launcher.kill(jobs[0])
        wait_for(futures[0].done, seconds=SECONDS)
        assert "The job has no result: " in str(launcher.error(futures[0]))
        launcher.kill()
        wait_for(lambda: all(future.done() for future in futures), seconds=SECONDS)
        assert not started[-1].exists()

    def test_jobs_are_numbered_on_and_none_is_adopted_that_is_over(self, launcher: JobLauncher, tmp_path: Path) -> None:
        assert launcher.adopt() == []
        (tmp_path / ".jobs").mkdir(exist_ok=True)
        (tmp_path / ".jobs" / "6.log").touch()
        for number in (7, 8):
            (future,) = launcher.submit([job(number, "fine")])
            wait_for(future.done, seconds=SECONDS)
            assert future.result().hydra_cfg.hydra.job.num == number
        assert launcher.adopt() == []


def job(number: int, name: str) -> Job:
    return Job([f"name={name}", f"hydra.sweep.subdir='{number}'"], {})
