"""Names of several Sessions that differ in the seed, where ${seed} is part of a name or a path."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from lab.common.interpolation import literal


def name_seeds(seeds: Sequence[int]) -> str:
    """Return a short name of seeds: 0-3 for a range, 0,2,5 for others; of many, the first seven are named."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and list(seeds) == list(range(first, last + 1)):
        return f"{first}-{last}"
    names = [str(seed) for seed in seeds]
    return ",".join(names if len(names) <= 8 else [*names[:7], f"and-{len(names) - 7}-more"])


def select_for_all(config: DictConfig, key: str, seeds: Sequence[int]) -> str | None:
    """Return the value at a key with ${seed} replaced by the name of the seeds; None if it cannot be resolved."""
    config = copy.deepcopy(config)
    with flag_override(config, ["readonly", "struct"], False):
        config["seed"] = seeds[0] if len(seeds) == 1 else name_seeds(seeds)
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException:  # as when a resolver expects a number
        return None
    return None if value is None else str(value)


def name_directory(config: DictConfig, key: str, seeds: Sequence[int]) -> None:
    """Set the key of a directory, such as hydra.sweep.dir, to the same one for all seeds."""
    directory = select_for_all(config, key, seeds)
    if directory is not None:
        with flag_override(config.hydra, ["readonly", "struct"], False):
            OmegaConf.update(config, key, literal(directory))


def is_default_directory(hydra: Any, kind: str) -> bool:
    """Return whether hydra.run.dir or hydra.sweep.dir is a default that contains the start time."""
    lines: Any = OmegaConf.to_container(hydra.overrides.hydra, resolve=False)
    written = OmegaConf.to_container(hydra[kind], resolve=False)["dir"]  # type: ignore[call-overload, index]
    explicit = any(re.match(rf"\+*hydra(\.{kind}(\.dir)?)?=", str(line)) for line in lines)
    return not explicit and "${now:" in str(written)


def run_directory(config: DictConfig, hydra: Any) -> Path:
    """Return hydra.run.dir for a single job, with ${seed} replaced by the name of all seeds of a stack."""
    given = Path(hydra.runtime.output_dir)
    try:
        seeds = OmegaConf.select(config, "seed")
    except OmegaConfBaseException:  # reported when specs are read
        return given
    if not OmegaConf.is_list(seeds) or not len(seeds):
        return given
    whole = copy.deepcopy(config)
    with flag_override(whole, ["readonly", "struct"], False):
        whole["hydra"] = OmegaConf.to_container(hydra, resolve=False)
    directory = select_for_all(whole, "hydra.run.dir", list(seeds))
    return given if directory is None else Path(directory).absolute()
