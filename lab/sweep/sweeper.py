"""Hydra's plugin for `-m`: a sweeper that runs Trials, grids and searches."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lab.common.interpolation import resolve
from lab.launch.launcher import AnyLauncher, JobLauncher
from lab.launch.naming import name_directory
from lab.spec import read_sweep
from lab.sweep.composer import Composer
from lab.sweep.overrides import parse


class LabSweeper(Sweeper):
    """Runs a Trial (only `seed` is swept), a grid of Trials, or a search for the best Trial."""

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, sampler: DictConfig, pruner: DictConfig) -> None:
        self.sampler, self.pruner = sampler, pruner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the sweeper and its launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run a sweep, or continue the one in the same directory; exit with 1 if anything failed, 130 if interrupted.

        Args:
            arguments: overrides of the command line, except for Hydra's own.

        Raises:
            LabError: a mistake in the overrides, the config or the directory, before anything was started.
        """
        if "algo" not in self.config:  # the config of another application, in which `seed` has no special meaning
            basic = BasicSweeper(max_batch_size=None)
            basic.hydra_context, basic.config, basic.launcher = self.hydra_context, self.config, self.launcher
            return basic.sweep(arguments)
        settings = read_sweep(self.config)
        seed = resolve(self.config, ["seed"])["seed"] if "seed" in self.config else None
        overrides = parse(arguments, settings.search, seed, self.hydra_context.config_loader)
        name_directory(self.config, "hydra.sweep.dir", overrides.seeds)
        from lab.sweep.sweep import run

        launcher = self.launcher if isinstance(self.launcher, JobLauncher) else AnyLauncher(self.launcher, self.config)
        composer = Composer(self.config, self.hydra_context, launcher, self.sampler, self.pruner)
        return run(composer, settings, overrides)
