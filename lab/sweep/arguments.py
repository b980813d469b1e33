"""The command line as Hydra gets it: dicts that may add keys, and a first value of everything that is swept."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lab.common.conf import config_path
from lab.common.text import quote
from lab.errors import LabError
from lab.run.files import read_yaml
from lab.run.provenance import config_dirs
from lab.sweep.overrides import merge_dict, parse_points, parse_value, swept_values, unshuffle

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

OTHER_SWEEPERS = ("optuna", "basic", "ax", "nevergrad")


class Options:
    """Lists the options of config groups in folders, for glob(...): Hydra's own loader does not exist yet."""

    def get_group_options(self, group: str, results_filter: object = None) -> list[str]:
        """Return the sorted options of a group."""
        return sorted({file.stem for folder in folders() for file in (folder / group).glob("*.yaml")})


def folders() -> list[Path]:
    """Return the folders of config groups: those of this program, and those that the command line names."""
    return [Path(config_path()), *config_dirs(sys.argv)]


def prepare(arguments: list[str]) -> list[str]:
    """Return the command line that Hydra composes a config from.

    `sampler=random` is short for `hydra/sweeper/sampler=random`, and `pruner` alike. Overrides with a dict may add
    keys, as with `++`. Hydra leaves out what is swept and would check all other overrides
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
    if options.help:  # which is the same for all overrides
        return [line for line in arguments if line not in (*overrides, "-m", "--multirun")]
    for line in overrides:
        group, _, sweeper = line.partition("=")
        if group == "hydra/sweeper" and sweeper in OTHER_SWEEPERS:
            raise LabError(
                f"{line} is not possible: Sessions over seeds need hydra/sweeper=lab, the default, so leave it out."
                " Keys with several values make a grid; search=command_line lets Optuna search them, for"
                " search.n_trials points."
            )
    alias = {line: f"hydra/sweeper/{line}" for line in overrides if line.startswith(("sampler=", "pruner="))}
    arguments = [alias.get(argument, argument) for argument in arguments]
    merging = {line: merge_dict(line) for line in overrides if "{" in line}
    merging |= {line: locate_parents(line) for line in overrides if re.match(r"\+*init_from=[^{]*$", line)}
    arguments = [merging.get(argument, argument) for argument in arguments]
    if options.multirun or (any(line.startswith("hydra.mode=") for line in overrides) and not options.cfg):
        arguments += first_values([merging.get(line, line) for line in overrides])
    return arguments


def locate_parents(override: str) -> str:
    """Return an override of `init_from` with the full path of each run: a job may start elsewhere, and be resumed."""
    key, _, value = override.partition("=")
    if re.search(r"[\[{($'\"]", value):  # what Hydra's grammar reads as more than paths stays as it is
        return override
    paths = [str(Path(text).absolute()) if Path(text).exists() else text for text in value.split(",")]
    return f"{key}={','.join(path if re.fullmatch('[a-zA-Z0-9_/.+:@-]*', path) else quote(path) for path in paths)}"


def first_values(overrides: Sequence[str]) -> list[str]:
    """Return an override with the first value of each key that is swept, except for `seed`; of `points` the first."""
    parser = OverridesParser.create(cast("ConfigLoader", Options()))
    parsed = parser.parse_overrides(
        [line for line in (*_searched_choices(overrides), *overrides) if any(mark in line for mark in ",(")]
    )
    listed = [point for line in overrides if line.startswith("points=") for point in _listed(line)[:1]]
    return [*(line for point in listed for line in point)] + [
        f"{override.get_key_element()}={swept_values(unshuffle(override))[0]}"
        for override in parsed
        if override.is_discrete_sweep()
        and not override.is_hydra_override()
        and override.get_key_element().lstrip("+") != "seed"
    ]


def _listed(override: str) -> list[list[str]]:
    try:
        return parse_points(parse_value(override.partition("=")[2]))
    except (HydraException, LabError):  # which is reported once the config is composed
        return []


def first_choices(arguments: list[str]) -> list[str]:
    """Return the overrides that `prepare` added for config groups and for env.id."""
    overrides = [line for line in arguments if not line.startswith("-")]
    try:
        typed = remove_first_values(overrides)
    except (HydraException, LabError):
        return []
    return [line for line in overrides[len(typed) :] if _is_choice(line)]


def remove_first_values(overrides: list[str]) -> list[str]:
    """Return the overrides that were typed."""
    for typed in range(len(overrides)):
        if first_values(overrides[:typed]) == overrides[typed:]:
            return overrides[:typed]
    return overrides


def _is_choice(override: str) -> bool:
    key = override.partition("=")[0]
    return key == "env.id" or Path(config_path(), key).is_dir()


def _searched_choices(overrides: Sequence[str]) -> list[str]:
    """Return the distributions of config groups in the file of a search space that the command line does not set."""
    pairs = [line.partition("=")[::2] for line in overrides]
    keys = {key for key, _ in pairs}
    files = [Path(folder, "search", f"{value}.yaml") for key, value in pairs if key == "search" for folder in folders()]
    spaces = [read_yaml(file) for file in files if file.is_file()]
    params = {key: text for space in spaces for key, text in (space.get("params") or {}).items()}
    return [f"{key}={text}" for key, text in params.items() if key not in keys and _is_choice(f"{key}=")]
