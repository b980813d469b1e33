"""What a sweep takes from Hydra: composing, the launcher that was chosen, sampler and pruner."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from lab.launch.launcher import AnyLauncher, SweepLauncher
from lab.launch.points import quote
from lab.run_dir import SweepDir, flatten, write_text
from lab.spec import Spec, read
from lab.trial import Job


@dataclass
class Context:
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
    launcher: Launcher
    sampler: DictConfig
    pruner: DictConfig
    _configs: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)
    _numbers: dict[Job, int] = field(default_factory=dict)
    _next: int = 0

    def __post_init__(self) -> None:
        self.directory = SweepDir(Path(str(self.config.hydra.sweep.dir)))
        chosen = self.launcher
        self.jobs = chosen if isinstance(chosen, SweepLauncher) else AnyLauncher(chosen)

    def spec(self, words: Sequence[str]) -> Spec:
        """Compose and check the spec that overrides make, with seed 0.

        Raises:
            LabError: there is no such spec.
        """
        overrides = OverridesParser.create().parse_overrides([*words, "seed=0"])
        added = any(override.is_add() or override.is_force_add() for override in overrides)  # whose order counts
        values = [override for override in overrides if not added and self._may_set_value(override)]
        base = self._composed(tuple(str(override.input_line) for override in overrides if override not in values))
        config = copy.deepcopy(base)
        leaves = flatten(OmegaConf.to_container(base, resolve=False))  # type: ignore[arg-type]
        for override in values:
            if override.key_or_group not in leaves:  # not there, or a group: Hydra knows what to say
                return read(self._composed((*words, "seed=0")))[0]
            OmegaConf.update(config, override.key_or_group, override.value())
        return read(config)[0]

    def _may_set_value(self, override: Override) -> bool:
        """Say whether an override only sets a value, and so does not choose what other files are composed."""
        plain = not (override.is_delete() or override.package)
        return plain and not self.hydra.config_loader.get_group_options(override.key_or_group)

    def _composed(self, words: tuple[str, ...]) -> DictConfig:
        """Compose what overrides choose, once: that takes ten times longer than to set a value."""
        from lab.launch.job import check_tuned

        if words not in self._configs:
            config = self.hydra.config_loader.load_sweep_config(self.config, list(words))
            check_tuned(words, config.hydra.runtime.config_sources)
            with open_dict(config):
                del config["hydra"]
            self._configs[words] = config
        return self._configs[words]

    def launch(self, jobs: list[Job]) -> list[Future[str | None]]:
        """Hand jobs to the launcher; the future of each gives null, or why it has no result."""
        # A job composes its config anew, and where the sweep goes may depend on what is swept.
        sweep = f"hydra.sweep.dir={quote(str(self.directory.path.absolute()))}"
        first = self._next or self.directory.next_job()
        self._next = first + len(jobs)
        self._numbers |= {job: number for number, job in enumerate(jobs, first)}
        return self.jobs.submit(jobs, [[*job.words, sweep] for job in jobs], first)

    def adopt(self) -> list[tuple[Job, Future[str | None]]]:
        """Return the jobs that an earlier process launched, and that are still queued or running."""
        found = self.jobs.adopt(self.directory)
        self._numbers |= {job: number for number, job, _ in found}
        return [(job, future) for _, job, future in found]

    def kill(self, job: Job) -> None:
        """Let the launcher kill a job, if it can."""
        self.jobs.kill(self._numbers[job])

    def stop(self) -> None:
        """Let the launcher start no more jobs."""
        self.jobs.stop()

    def write_multirun(self, directory: SweepDir) -> None:
        """Write how the sweep was composed, where Hydra's own sweeper does."""
        write_text(directory.multirun, OmegaConf.to_yaml(self.config))
