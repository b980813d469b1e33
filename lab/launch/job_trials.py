"""The Trials of a job: their configs, made from the one that Hydra composed."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict

from lab.trial import TRIALS


@dataclass
class JobTrial:
    """Sessions of one Trial in a job.

    Attributes:
        config: of the Trial, with the seeds of these Sessions.
        overrides: that it was composed of.
        subdir: directory of the Trial in that of the job.
    """

    config: DictConfig
    overrides: list[str]
    subdir: str = ""

    @property
    def seeds(self) -> list[int]:
        """The seeds of its Sessions."""
        seed: Any = self.config.seed
        return list(seed) if OmegaConf.is_list(seed) else [seed]

    def hydra_files(self, seed: int) -> dict[str, str]:
        """Return the files that Hydra would write to .hydra for a single Session."""
        overrides = [*(override for override in self.overrides if not override.startswith("seed=")), f"seed={seed}"]
        return {
            "config.yaml": OmegaConf.to_yaml(OmegaConf.merge(self.config, {"seed": seed})),
            "hydra.yaml": self._hydra,
            "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(overrides), resolve=False),
        }

    @cached_property
    def _hydra(self) -> str:
        hydra: Any = OmegaConf.create({"hydra": HydraConfig.get()})
        with flag_override(hydra.hydra, ["readonly", "struct"], False):
            if self.subdir:
                hydra.hydra.overrides.task = self.overrides
        return OmegaConf.to_yaml(hydra)


def split_trials(config: DictConfig, overrides: Sequence[str]) -> list[JobTrial]:
    """Return the Trials of a job from its config and its overrides, as `lab.trial.make_job` describes them there."""
    if TRIALS not in config:
        return [JobTrial(config, list(overrides))]
    parts = json.loads(config[TRIALS])
    common = [override for override in overrides if override.partition("=")[0] not in (f"+{TRIALS}", "seed")]
    parser = OverridesParser.create()
    trials = []
    for subdir, changes, seeds in parts:
        own = copy.deepcopy(config)
        with open_dict(own):
            del own[TRIALS]
        changed = {}
        for override in parser.parse_overrides(changes):
            OmegaConf.update(own, override.key_or_group, override.value(), force_add=True)
            changed[override.key_or_group] = str(override.input_line)
        OmegaConf.update(own, "seed", seeds, force_add=True)
        lines = [changed.get(override.partition("=")[0].lstrip("+"), override) for override in common]
        trials.append(JobTrial(own, [*lines, f"seed={seeds}"], subdir))
    return trials
