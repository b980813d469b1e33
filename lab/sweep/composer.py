"""What a sweep takes from Hydra: composing, the launcher that was chosen, sampler and pruner."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import strftime
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lab.launch.launcher import JobLauncher
from lab.run.directory import SweepDir
from lab.run.files import read_json, write_sealed_yaml
from lab.spec import Spec, read

ABSENT = object()


@dataclass
class Composer:
    """What Hydra gives to a sweep.

    Attributes:
        config: composed from the words that are not swept.
        hydra: what Hydra hands to its plugins.
        launcher: runs jobs.
        sampler: the config of the sampler of a search.
        pruner: the config of what prunes.
    """

    config: DictConfig
    hydra: HydraContext
    launcher: JobLauncher
    sampler: DictConfig
    pruner: DictConfig
    _configs: dict[tuple[str, ...], tuple[DictConfig, Any]] = field(default_factory=dict)
    _specs: dict[tuple[str, ...], list[Spec]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = SweepDir(Path(str(self.config.hydra.sweep.dir)))
        self.times = self._keep_times()

    def _keep_times(self) -> dict[str, str]:
        """Let ${now:...} give in every job what it gave when the sweep began; return that by pattern."""
        known = read_json(self.directory.sweep).get("now", {}) if self.directory.sweep.exists() else {}
        patterns = re.findall(r"\$\{now:\s*([^}]*?)\s*\}", OmegaConf.to_yaml(self.config))
        cache = OmegaConf.get_cache(self.config)["now"]
        times = {pattern: known.get(pattern) or cache.get((pattern,)) or strftime(pattern) for pattern in patterns}
        cache.update({(pattern,): time for pattern, time in times.items()})
        return times

    def specs(self, words: Sequence[str], seeds: Sequence[int]) -> list[Spec]:
        """Compose and check the spec that overrides make with each of some seeds.

        Raises:
            LabError: there is no such spec.
        """
        key = (*words, f"seed=[{','.join(map(str, seeds))}]")
        if key not in self._specs:
            self._specs[key] = self._read(key)
        return self._specs[key]

    def _read(self, words: tuple[str, ...]) -> list[Spec]:
        overrides = OverridesParser.create().parse_overrides(list(words))
        values = [override for override in overrides if self._may_set_value(override)]
        base, hydra = self._composed(
            tuple(str(override.input_line) for override in overrides if override not in values)
        )
        config = copy.deepcopy(base)
        try:
            set_values(config, values)
        except (KeyError, OmegaConfBaseException):  # Hydra knows what to say
            config, hydra = self._composed(words)
        with hydra_config(hydra):
            return read(config)

    def _may_set_value(self, override: Override) -> bool:
        """Say whether an override only sets a value, and so does not choose what other files are composed."""
        plain = override.type in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
        return plain and not override.package and not self.hydra.config_loader.get_group_options(override.key_or_group)

    def _composed(self, words: tuple[str, ...]) -> tuple[DictConfig, Any]:
        """Compose what overrides choose, with Hydra's own part, once: it takes ten times longer than to set a value."""
        from lab.launch.job import check_tuned

        if words not in self._configs:
            config = self.hydra.config_loader.load_sweep_config(self.config, list(words))
            check_tuned(words, config.hydra.runtime.config_sources)
            with hydra_config():
                HydraConfig.instance().set_config(config)
                hydra = HydraConfig.instance().cfg
            with open_dict(config):
                del config["hydra"]
            self._configs[words] = config, hydra
        return self._configs[words]

    def write_multirun(self, directory: SweepDir) -> None:
        """Write how the sweep was composed, where Hydra's own sweeper does."""
        write_sealed_yaml(directory.multirun, OmegaConf.to_yaml(self.config))


@contextmanager
def hydra_config(config: Any = None) -> Iterator[None]:
    """Let ${hydra:...} give what a config of Hydra's holds, and afterwards what it gave before."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = config
    try:
        yield
    finally:
        instance.cfg = before


def set_values(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Set values in a config, as Hydra does.

    Raises:
        KeyError: one cannot be set: its key is to be changed and is not there or holds a group, or is to be added and
            is there.
        OmegaConfBaseException: OmegaConf refuses it.
    """
    known: Any = OmegaConf.to_container(config, resolve=False)
    for override in overrides:
        key, found = override.key_or_group, known
        for part in key.split("."):
            found = found.get(part, ABSENT) if isinstance(found, dict) else ABSENT
        changed = override.type == OverrideType.CHANGE
        is_group = isinstance(found, dict) and bool(found)
        if (changed and (found is ABSENT or is_group)) or (override.is_add() and found is not ABSENT):
            raise KeyError(key)
        OmegaConf.update(config, key, override.value(), force_add=not changed)
        if not changed:
            known = OmegaConf.to_container(config, resolve=False)
