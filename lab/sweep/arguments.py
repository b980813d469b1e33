"""The command line as Hydra gets it: dicts that may add keys, and a first value of everything that is swept."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from lab.errors import LabError
from lab.run.provenance import config_dirs
from lab.sweep.explain import config_path
from lab.sweep.overrides import merge_dict, swept_values, unshuffle

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

OTHER_SWEEPERS = ("optuna", "basic", "ax", "nevergrad")


class Options:
    """Lists the options of config groups in folders, for glob(...): Hydra's own loader does not exist yet."""

    def get_group_options(self, group: str, results_filter: object = None) -> list[str]:
        """Return the sorted options of a group."""
        folders = [Path(config_path()), *config_dirs(sys.argv)]
        return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def prepare(arguments: list[str]) -> list[str]:
    """Return the command line that Hydra composes a config from.

    Overrides with a dict may add keys, as with `++`. Hydra leaves out what is swept and would check all other overrides
    against the default algorithm, so the first value of each swept key is added at the end; `remove_first_values`
    removes it again.

    Raises:
        LabError: a sweeper of another project is chosen.
    """
    try:
        options = get_args_parser().parse_intermixed_args(arguments)
    except SystemExit:  # Hydra prints why
        return arguments
    overrides = list(options.overrides)
    for line in overrides:
        group, _, sweeper = line.partition("=")
        if group == "hydra/sweeper" and sweeper in OTHER_SWEEPERS:
            raise LabError(
                f"{line} is not possible: Sessions over seeds need hydra/sweeper=lab, the default, so leave it out."
                " Keys with several values make a grid; search=command_line lets Optuna search them, for"
                " search.n_trials points."
            )
    merging = {line: merge_dict(line) for line in overrides if "{" in line}
    arguments = [merging.get(argument, argument) for argument in arguments]
    if options.multirun or any(line.startswith("hydra.mode=") for line in overrides):
        arguments += first_values([merging.get(line, line) for line in overrides])
    return arguments


def first_values(overrides: Sequence[str]) -> list[str]:
    """Return an override with the first value of each key that is swept, except for `seed`."""
    parser = OverridesParser.create(cast("ConfigLoader", Options()))
    parsed = parser.parse_overrides([line for line in overrides if any(mark in line for mark in ",(")])
    return [
        f"{override.get_key_element()}={swept_values(unshuffle(override))[0]}"
        for override in parsed
        if override.is_discrete_sweep()
        and not override.is_hydra_override()
        and override.get_key_element().lstrip("+") != "seed"
    ]


def first_choices(arguments: Sequence[str]) -> list[str]:
    """Return the overrides that `prepare` added for config groups and for env.id."""
    groups = [line for line in arguments if re.match(r"\w+=.*[,(]|env\.id=.*[,(]", line)]
    return [
        line
        for line in first_values(groups)
        if line.startswith("env.id=") or Path(config_path(), line.partition("=")[0]).is_dir()
    ]


def remove_first_values(overrides: list[str]) -> list[str]:
    """Return the overrides that were typed."""
    added = first_values(overrides)
    return overrides[: -len(added)] if added and overrides[-len(added) :] == added else overrides
