"""Hydra's plugin for `-m`: a sweeper that runs Trials, grids and searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, read_write

from lab.common.interpolation import literal, resolve
from lab.launch.job import remove_if_empty
from lab.launch.launcher import AnyLauncher, JobLauncher
from lab.launch.naming import is_default_directory, name_directory
from lab.launch.supervise import notify_supervisor
from lab.run.directory import SweepDir, acquire_directory
from lab.sweep.arguments import remove_first_values
from lab.sweep.composer import Composer
from lab.sweep.naming import name_sweep
from lab.sweep.overrides import parse
from lab.sweep_spec import read_sweep


class LabSweeper(Sweeper):
    """Runs a Trial (only `seed` is swept), a grid of Trials, or a search for the best Trial."""

    hydra_context: HydraContext
    config: DictConfig
    task_function: TaskFunction

    def __init__(self, sampler: DictConfig, pruner: DictConfig) -> None:
        self.sampler, self.pruner = sampler, pruner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra gives to each of its sweepers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run a sweep, or continue the one in the same directory; exit with 1 if anything failed, 130 if interrupted.

        Args:
            arguments: overrides of the command line, except for Hydra's own.

        Raises:
            LabError: a mistake in the overrides, the config or the directory, before anything was started.
        """
        arguments = remove_first_values(arguments)
        if "algo" not in self.config:  # the config of another application, in which `seed` has no special meaning
            basic = BasicSweeper(max_batch_size=None)
            basic.hydra_context, basic.config, basic.launcher = self.hydra_context, self.config, self._launcher()
            return basic.sweep(arguments)
        settings = read_sweep(self.config)
        seed = resolve(self.config, ["seed"])["seed"] if "seed" in self.config else None
        loader = self.hydra_context.config_loader
        overrides = parse(arguments, settings.search, seed, loader)
        choices = [key for key in overrides.swept if key == "env.id" or loader.get_group_options(key)]
        composer = Composer(self.config, self.hydra_context, self.sampler, self.pruner, choices)
        with read_write(self.config), read_write(self.config.hydra):
            self.config.hydra.overrides.task = arguments
            self.config.name = literal(name_sweep(composer, overrides))
        default = is_default_directory(self.config.hydra, "sweep") and not settings.plan
        name_directory(self.config, "hydra.sweep.dir", overrides.seeds)
        from lab.sweep.sweep import run

        given = Path(str(self.config.hydra.sweep.dir))
        directory = acquire_directory(given) if default else given
        if default:
            notify_supervisor("output", str(directory.absolute()))
            with read_write(self.config.hydra):
                self.config.hydra.sweep.dir = literal(str(directory))
        try:
            launcher = self._launcher()
            launcher = launcher if isinstance(launcher, JobLauncher) else AnyLauncher(launcher, self.config)
            composer.open(SweepDir(directory), launcher)
            return run(composer, settings, overrides)
        finally:
            if default:
                remove_if_empty(directory)

    def _launcher(self) -> Any:
        return Plugins.instance().instantiate_launcher(self.hydra_context, self.task_function, self.config)
