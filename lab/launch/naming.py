"""What several Sessions that differ in the seed are called together, where ${seed} is part of a name or a path."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from lab.common.interpolation import literal


def name_seeds(seeds: Sequence[int]) -> str:
    """Return a short name of seeds: 0-3 for a range, 0,2,5 for others, of which the first few are named."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and list(seeds) == list(range(first, last + 1)):
        return f"{first}-{last}"
    names = [str(seed) for seed in seeds]
    return ",".join(names if len(names) <= 8 else [*names[:7], f"and-{len(names) - 7}-more"])


def select_for_all(config: DictConfig, key: str, seeds: Sequence[int]) -> str | None:
    """Return what a config holds at a key if ${seed} stands for all of some seeds; null if it cannot be resolved."""
    config = copy.deepcopy(config)
    with flag_override(config, ["readonly", "struct"], False):
        config["seed"] = seeds[0] if len(seeds) == 1 else name_seeds(seeds)
    try:
        found = OmegaConf.select(config, key)
    except OmegaConfBaseException:  # as when a resolver expects a number
        return None
    return None if found is None else str(found)


def name_directory(config: DictConfig, key: str, seeds: Sequence[int]) -> None:
    """Set the key of a directory, such as hydra.sweep.dir, to one that is the same for all of some seeds."""
    directory = select_for_all(config, key, seeds)
    if directory is not None:
        with flag_override(config.hydra, ["readonly", "struct"], False):
            OmegaConf.update(config, key, literal(directory))


def run_directory(config: DictConfig, hydra: Any) -> Path:
    """Return where a single job writes: hydra.run.dir, in which ${seed} stands for all seeds of a stack.

    Args:
        config: of the job.
        hydra: Hydra's own part of it.
    """
    given = Path(hydra.runtime.output_dir)
    try:
        seeds = OmegaConf.select(config, "seed")
    except OmegaConfBaseException:  # which is said where specs are read
        return given
    if not OmegaConf.is_list(seeds) or not len(seeds):
        return given
    whole = copy.deepcopy(config)
    with flag_override(whole, ["readonly", "struct"], False):
        whole["hydra"] = OmegaConf.to_container(hydra, resolve=False)
    found = select_for_all(whole, "hydra.run.dir", list(seeds))
    return given if found is None else Path(found).absolute()
