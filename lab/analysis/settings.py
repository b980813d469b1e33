"""Settings of runs: what the command line set, and in what their specs differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lab.analysis.run_spec import NO_SETTING
from lab.analysis.runs import SHORT, Run
from lab.common.text import canonical, format_value

MOST_VALUES = 4  # of a setting of an Experiment that are written one by one
TYPED = {key: name for name, key in SHORT.items()}


def find_differences(runs: Iterable[Run]) -> list[dict[str, str]]:
    """Return the settings of each run, as typed on the command line by key.

    They are those that its command line set, and those in which its spec differs from that of another of these runs
    with the same algorithm and environment.
    """
    runs = list(runs)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((*run.algos, *run.envs), []).append(run)
    differing = {group: _differing_keys(members) for group, members in groups.items()}
    settings = []
    for run in runs:
        keys = {SHORT.get(key, key): key for key in run.overrides}
        keys |= {key: TYPED.get(key, key) for key in differing[(*run.algos, *run.envs)] if key not in keys}
        settings.append({name: format_setting(run, name) for key, name in keys.items()})
    return settings


def _differing_keys(runs: list[Run]) -> list[str]:
    values: dict[str, set[str]] = {}
    specs = list({id(spec): spec for run in runs for spec in run.specs}.values())
    for spec in specs:
        for key, value in spec.items():
            values.setdefault(key, set()).add(canonical(value))
    # A key that only some have is one that this program did not have when the others were trained.
    shared = [key for key in values if all(key in spec for spec in specs)]
    return [key for key in shared if len(values[key]) > 1 and not NO_SETTING.fullmatch(key) and key != "env.name"]


def format_setting(run: Run, key: str) -> str:
    """Return the values of a setting as typed on the command line; how many there are, if there are many."""
    values = run.values(key)
    if not values:
        return run.overrides.get(key, "-")
    if len(values) > MOST_VALUES:
        return f"{len(values)} values"
    return ",".join(format_value(value, digits=4) for value in values)
