"""The sweeper: what `-m` does. It plans Sessions from points and seeds, and lets an Experiment run them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lab.errors import LabError
from lab.launch.points import parse
from lab.run_dir import SweepDir, write_text
from lab.spec import Spec, read, read_sweep
from lab.trial import Job


class LabSweeper(Sweeper):
    """Runs a Trial (only `seed` is swept), a grid of Trials, or a search for the best Trial."""

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, sampler: DictConfig, pruner: DictConfig) -> None:
        self.sampler, self.pruner = sampler, pruner
        self._number, self._counting = 0, threading.Lock()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a sweep needs from Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run a sweep, or go on with one in the same directory; exit with 1 if anything failed, 130 if interrupted.

        Args:
            arguments: the words of the command line that are no concern of Hydra itself.

        Raises:
            LabError: a mistake in the words, the config or the directory; nothing was begun then.
        """
        directory = SweepDir(Path(str(self.config.hydra.sweep.dir)))
        if "algo" not in self.config:  # the config of another application, for which seeds mean nothing
            return self._grid(arguments)
        settings = read_sweep(self.config)
        words = parse(arguments, settings.search, OmegaConf.select(self.config, "seed"))
        from lab.launch.sweep import run

        return run(self, directory, settings, words)

    def spec(self, words: Sequence[str]) -> Spec:
        """Compose and check the spec that overrides make, with seed 0.

        Raises:
            LabError: there is no such spec.
        """
        from lab.launch.job import check_tuned

        config = self.hydra_context.config_loader.load_sweep_config(self.config, [*words, "seed=0"])
        check_tuned(list(words), config.hydra.runtime.config_sources)
        return read(config)[0]

    def launch(self, jobs: list[Job]) -> list[str | None]:
        """Hand jobs to the launcher; return, for each, null or why it has no result."""
        with self._counting:
            first, self._number = self._number, self._number + len(jobs)
        try:
            returns = self.launcher.launch([job.words for job in jobs], initial_job_idx=first)
            return [reason(result) for result in returns]
        except Exception as error:
            return [f"{type(error).__name__}: {error}"] * len(jobs)

    def warm_up(self) -> None:
        """Let the launcher prepare while there is other work, if it can."""
        getattr(self.launcher, "warm_up", lambda: None)()

    def stop_launcher(self) -> None:
        """Let the launcher start no more jobs, if it can."""
        getattr(self.launcher, "stop", lambda: None)()

    def write_multirun(self, directory: SweepDir) -> None:
        """Write how the sweep was composed, where Hydra's own sweeper does."""
        write_text(directory.multirun, OmegaConf.to_yaml(self.config))

    def _grid(self, arguments: list[str]) -> Any:
        basic = BasicSweeper(max_batch_size=None)
        basic.hydra_context, basic.config, basic.launcher = self.hydra_context, self.config, self.launcher
        return basic.sweep(arguments)


def reason(result: JobReturn) -> str | None:
    """Return why a job has no result, if it has none."""
    if result.status != JobStatus.FAILED:
        return None
    error = result._return_value  # the property of that name prints what it raises
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
