"""Run another Hydra application with our plugins known to it: python registered.py APPLICATION WORD ..."""

from __future__ import annotations

import runpy
import sys

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lab.sweep import register
from tests.helpers import CONF

OURS = {"hydra/launcher": ["local", "ray", "slurm"], "hydra/sweeper": ["lab"], "hydra/sweeper/pruner": ["none"]}


def make_known() -> None:
    """Make our plugins known to applications that do not have our conf/ in their search path."""
    register()
    for group, names in OURS.items():
        for name in names:
            node = OmegaConf.load(CONF / group / f"{name}.yaml")
            ConfigStore.instance().store(group=group, name=name, node=node, provider="lab", replace=True)


if __name__ == "__main__":
    make_known()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
