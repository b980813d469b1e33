"""Specs of a sweep, composed by Hydra."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import strftime
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lab.errors import LabError
from lab.launch.job import check_tuned, note_other_environment, read_specs
from lab.launch.launcher import JobLauncher
from lab.run.directory import SweepDir
from lab.run.files import read_json
from lab.spec import Spec
from lab.sweep.explain import explain

ABSENT = object()


@dataclass
class Composer:
    """Composes the specs of a sweep."""

    config: DictConfig  # composed from the overrides that are not swept, and the first value of each swept key
    hydra: HydraContext
    sampler: DictConfig  # config of Optuna's sampler
    pruner: DictConfig  # config of Optuna's pruner
    choices: Sequence[str] = ()  # swept keys that errors name: config groups, and env.id
    _configs: dict[tuple[str, ...], tuple[DictConfig, Any]] = field(default_factory=dict)
    _specs: dict[tuple[str, ...], list[Spec]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.times = self._fix_times({})

    def open(self, directory: SweepDir, launcher: JobLauncher) -> None:
        """Set the directory of the sweep, in which an earlier one may be continued, and what runs its jobs."""
        self.directory, self.launcher = directory, launcher
        known = read_json(directory.sweep).get("now", {}) if directory.sweep.exists() else {}
        if known:
            self.times = self._fix_times(known)
            self._configs.clear()
            self._specs.clear()

    @property
    def prunes(self) -> bool:
        """Whether a pruner was chosen."""
        return not str(self.pruner["_target_"]).endswith("NopPruner")

    @property
    def searches_grid(self) -> bool:
        """Whether all points of a search space are to be run."""
        return str(self.sampler["_target_"]).endswith("GridSampler")

    @property
    def learns(self) -> bool:
        """Whether the sampler learns from one Trial what it suggests for the next."""
        return not str(self.sampler["_target_"]).endswith(("GridSampler", "RandomSampler", "QMCSampler"))

    def _fix_times(self, known: Mapping[str, str]) -> dict[str, str]:
        """Give ${now:...} in every job the value that it had when the sweep was started; return values by pattern."""
        patterns = re.findall(r"\$\{now:\s*([^}]*?)\s*\}", OmegaConf.to_yaml(self.config))
        cache = OmegaConf.get_cache(self.config)["now"]
        times = {pattern: known.get(pattern) or cache.get((pattern,)) or strftime(pattern) for pattern in patterns}
        cache.update({(pattern,): time for pattern, time in times.items()})
        return times

    def specs(self, overrides: Sequence[str], seeds: Sequence[int]) -> list[Spec]:
        """Compose and check the spec of each seed; a LabError if there is none."""
        key = (*overrides, f"seed=[{','.join(map(str, seeds))}]")
        if key not in self._specs:
            try:
                self._specs[key] = self._read(key)
            except (LabError, HydraException, OmegaConfBaseException, ValueError) as error:
                choices = [line for line in overrides if line.partition("=")[0] in self.choices]
                sentence = explain(error, key, choices) or str(error)
                raise LabError(f"{sentence}{self._name_search(sentence)}") from error
        return self._specs[key]

    def _name_search(self, sentence: str) -> str:
        """Return which search has the key that a sentence says cannot be set."""
        unknown = re.search(r"(\S+) cannot be set: ", sentence)
        params = OmegaConf.select(self.config, "search.params") or {}
        if not unknown or unknown[1] not in params:
            return ""
        chosen = self.config.hydra.runtime.choices
        if any(re.match(rf"\+*{re.escape(unknown[1])}=", str(line)) for line in self.config.hydra.overrides.task):
            return ""
        return (
            f" It is searched by search={chosen.get('search')}, and algo={chosen.get('algo')} is trained:"
            " choose a search of that algorithm, or search=command_line."
        )

    def _read(self, lines: tuple[str, ...]) -> list[Spec]:
        overrides = OverridesParser.create().parse_overrides(list(lines))
        values = [override for override in overrides if self._may_set_value(override)]
        base, hydra = self._compose(tuple(str(override.input_line) for override in overrides if override not in values))
        config = copy.deepcopy(base)
        try:
            set_values(config, values)
        except (KeyError, OmegaConfBaseException):  # Hydra explains the mistake
            config, hydra = self._compose(lines)
        with hydra_config(hydra):
            specs = read_specs(config, [*hydra.hydra.overrides.task, *lines])
        note_other_environment(specs[0].env.id, hydra.hydra.runtime)
        return specs

    def group_choices(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the option that overrides choose of each config group."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        lines = tuple(str(override.input_line) for override in parsed if not self._may_set_value(override))
        return dict(self._compose(lines)[1].hydra.runtime.choices)

    def _may_set_value(self, override: Override) -> bool:
        """Return whether an override only sets a value, and chooses no other config files."""
        sets = override.type in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
        return sets and not override.package and not self.hydra.config_loader.get_group_options(override.key_or_group)

    def outline(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """Return overrides with only the key of each that sets one value, which a job can do to another config."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return tuple(
            override.key_or_group
            if self._may_set_value(override) and not isinstance(override.value(), dict)
            else str(override.input_line)
            for override in parsed
        )

    def _compose(self, lines: tuple[str, ...]) -> tuple[DictConfig, Any]:
        """Compose a config, and Hydra's part of it, once: this takes ten times longer than setting a value."""
        if lines not in self._configs:
            config = self.hydra.config_loader.load_sweep_config(self.config, list(lines))
            check_tuned(lines, config.hydra.runtime)
            with hydra_config():
                HydraConfig.instance().set_config(config)
                hydra = HydraConfig.instance().cfg
            with open_dict(config):
                del config["hydra"]
            self._configs[lines] = config, hydra
        return self._configs[lines]


@contextmanager
def hydra_config(config: Any = None) -> Iterator[None]:
    """Let ${hydra:...} refer to a config of Hydra's within the context."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = config
    try:
        yield
    finally:
        instance.cfg = before


def set_values(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Set values in a config, as Hydra does.

    A KeyError says that a key to be changed is absent or a group, or that a key to be added is present.
    """
    known: Any = OmegaConf.to_container(config, resolve=False)
    for override in overrides:
        key, value = override.key_or_group, known
        for part in key.split("."):
            value = value.get(part, ABSENT) if isinstance(value, dict) else ABSENT
        changes = override.type == OverrideType.CHANGE
        is_group = isinstance(value, dict) and bool(value)
        if (changes and (value is ABSENT or is_group)) or (override.is_add() and value is not ABSENT):
            raise KeyError(key)
        OmegaConf.update(config, key, override.value(), force_add=not changes)
        if not changes:
            known = OmegaConf.to_container(config, resolve=False)
