"""From overrides to a ranked Experiment: plan, points, study and the tree on the terminal."""

from __future__ import annotations


def register() -> None:
    """Make our sweeper and launcher known to Hydra, which by itself finds those of other distributions only."""
    from hydra.core.plugins import Plugins

    from lab.launch.local import LocalLauncher
    from lab.launch.ray import RayLauncher
    from lab.launch.slurm import SlurmLauncher
    from lab.sweep.sweeper import LabSweeper

    for plugin in (LabSweeper, LocalLauncher, RayLauncher, SlurmLauncher):
        Plugins.instance().register(plugin)
