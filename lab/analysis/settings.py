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

    They are those that its command line set, and those in which its spec differs from the default: what the newest of
    these runs with the same algorithm and environment has that did not set them.
    """
    runs = list(runs)
    groups: dict[tuple[Any, ...], list[tuple[Run, dict[str, Any]]]] = {}
    for run in runs:
        for spec in run.specs:
            groups.setdefault((spec.get("algo.name"), spec.get("env.id")), []).append((run, spec))
    differing = {group: _differing_keys(members) for group, members in groups.items()}
    settings = []
    for run in runs:
        keys = {SHORT.get(key, key): key for key in run.overrides}
        for spec in run.specs:
            defaults = differing[spec.get("algo.name"), spec.get("env.id")]
            keys |= {
                key: TYPED.get(key, key)
                for key, default in defaults.items()
                if key not in keys and canonical(spec[key]) != default
            }
        settings.append({name: format_setting(run, name) for key, name in keys.items()})
    return settings


def _differing_keys(members: list[tuple[Run, dict[str, Any]]]) -> dict[str, str | None]:
    """Return the keys that differ between some specs, with the default of each as text; None if all runs set it."""
    specs = list({id(spec): spec for _, spec in members}.values())
    newest_first = sorted((run for run, _ in members if not run.rerun_of), key=_start, reverse=True)
    differing: dict[str, str | None] = {}
    # A key that only some have is one that this program did not have when the others were trained.
    for key in (key for key in specs[0] if all(key in spec for spec in specs)) if specs else ():
        if len({canonical(spec[key]) for spec in specs}) > 1 and not NO_SETTING.fullmatch(key):
            unset = (run for run in newest_first if not {key, TYPED.get(key, key)} & run.overrides.keys())
            single = (values[0] for run in unset if len(values := _values(run, key, members)) == 1)
            differing[key] = next(single, None)
    return differing


def _values(run: Run, key: str, members: list[tuple[Run, dict[str, Any]]]) -> list[str]:
    return list({canonical(spec[key]) for one, spec in members if one is run})


def _start(run: Run) -> float:
    return run.start.timestamp() if run.start else 0.0


def format_setting(run: Run, key: str) -> str:
    """Return the values of a setting as typed on the command line; how many there are, if there are many."""
    values = run.values(key)
    if not values:
        return run.overrides.get(key, "-")
    if len(values) > MOST_VALUES:
        return f"{len(values)} values"
    return ",".join(format_value(value, digits=4) for value in values)
