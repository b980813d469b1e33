"""Trials in several environments side by side: grouped by their settings, and compared by normalized scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.analysis.across import CHOOSES_ENVIRONMENT, Across, Setting, make_across, rank_settings
from lab.analysis.compare import Entry, common_frame, describe_stopped_first, read_entry, require_metric
from lab.analysis.experiment import read_experiment
from lab.analysis.text import display_name, format_hyperparameter, short_names
from lab.analysis.trial import Trial
from lab.common.text import canonical, format_seeds, plural
from lab.errors import LabError
from lab.run.directory import SweepDir, find_level
from lab.run.schemas import LESS_IS_BETTER


def read_across(paths: Sequence[Path], metric: str, labels: Sequence[str] = ()) -> tuple[Across, list[str]] | None:
    """Read Trials in several environments as settings, with notes; None if all are in one environment.

    An Experiment over several environments stands for its best setting. Other Trials belong to one setting if they have
    the same label, or but for the environment the same point of a sweep, algorithm, name or spec: by the first of these
    in which no two Trials of a setting are in the same environment.

    Args:
        paths: run directories.
        metric: what is compared.
        labels: of the setting of each directory; empty to find them.

    Raises:
        LabError: a directory cannot be read, or the Trials cannot be grouped.
    """
    sides = [(path, _read_side(path)) for path in paths]
    trials = [entry.trial for _, entries in sides for entry in entries]
    environments = list(dict.fromkeys(trial.environment for trial in trials))
    if len(environments) < 2:
        return None
    if labels and len(labels) != len(paths):
        raise LabError(f"labels={','.join(labels)} is not allowed: give {len(paths)}, one for each directory.")
    require_metric([entry for _, entries in sides for entry in entries], metric)
    groups: dict[str, list[Entry]] = {}
    if labels:
        for label, (_, entries) in zip(labels, sides, strict=True):
            groups.setdefault(label, []).extend(entries)
        _require_apart(groups)
    else:
        single = [entries[0] for _, entries in sides if len(entries) == 1]
        groups = {**_group(single), **{str(path): entries for path, entries in sides if len(entries) > 1}}
    for name in environments:
        inside = [entry for entries in groups.values() for entry in entries if entry.trial.environment == name]
        budgets = {session.frames for entry in inside for session in entry.trial.completed}
        for entry in inside:
            entry.until, entry.same_budget = common_frame(inside), len(budgets) < 2
    settings = []
    for name, entries in groups.items():
        setting = Setting({}, {entry.trial.environment: entry.trial_for(metric) for entry in entries}, name)
        lacking = [f"{one}: no Trial" for one in environments if one not in setting.trials]
        setting.reason = "; ".join([*lacking, *_without(setting, metric)])
        settings.append(setting)
    across = make_across(settings, environments, metric, -1 if metric in LESS_IS_BETTER else 1)
    if not across.ranking:
        raise LabError(f"Nothing can be compared over {', '.join(environments)}. {' '.join(across.describe())}")
    return across, _notes(groups, metric)


def _without(setting: Setting, metric: str) -> list[str]:
    """Return where completed Sessions of a setting lack a metric: the others would flatter it."""
    reasons = []
    for name, trial in setting.trials.items():
        seeds = [session.seed for session in trial.completed if session.metric(metric) is None]
        if len(seeds) == len(trial.completed):
            reasons.append(f"{name}: no Session has any {metric}")
        elif seeds:
            reasons.append(f"{name}: {format_seeds(seeds)} {'have' if len(seeds) > 1 else 'has'} no {metric}")
    return reasons


def _read_side(path: Path) -> list[Entry]:
    """Return the Trials that a directory stands for: of an Experiment over environments those of its best setting."""
    if find_level(path) == "experiment":
        across = rank_settings(read_experiment(SweepDir(path)))
        if across and not across.ranking:
            raise LabError(f"{path} has no setting that is ranked in all of its environments: {across.describe()[0]}")
        if across:
            best = across.ranking[0]
            note = f"{path} stands for its best setting over environments, {best.name}"
            if len(across.ranking) > 1:
                note += f": the best of {len(across.ranking)} by these very seeds, so new seeds may well do worse"
            return [Entry(path, trial, f"{note}.") for trial in best.trials.values()]
    return [read_entry(path)]


def _group(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return Trials by the name of their setting."""
    if not entries:
        return {}
    ways: list[Callable[[Trial], dict[str, Any]]] = [
        lambda trial: _without_environment(trial.hyperparameters),
        lambda trial: {"algo": display_name(str(trial.spec.get("algo.name")))},
        lambda trial: {"name": str(trial.spec.get("name")).removesuffix(f"_{trial.spec.get('env.name')}")},
        lambda trial: _without_environment({**trial.spec, "name": None}),
    ]
    for way in ways:
        points = [way(entry.trial) for entry in entries]
        keys = [key for key in dict.fromkeys(key for point in points for key in point)
                if len({canonical(point.get(key)) for point in points}) > 1]  # fmt: skip
        names = short_names(keys)
        groups: dict[str, list[Entry]] = {}
        for entry, point in zip(entries, points, strict=True):
            texts = (f"{names[key]}={format_hyperparameter(point.get(key))}" for key in keys)
            groups.setdefault(" ".join(texts) or display_name(str(entry.trial.spec.get("algo.name"))), []).append(entry)
        if not _repeated(groups) and (len(groups) < len(entries) or len(entries) == 1):
            return groups
    if len({entry.trial.environment for entry in entries}) == len(entries):
        where = ", ".join(f"{entry.path}: {entry.trial.environment}" for entry in entries)
        raise LabError(
            f"No two of these are in the same environment ({where}), so nothing can be compared: add Trials of the same"
            " settings in the same environments."
        )
    raise LabError(
        f"{plural(len(entries), 'Trial')} of several environments cannot be grouped by their settings: name the setting"
        f" of each directory, one label each, as labels={','.join(f'A{n // 2 + 1}' for n in range(len(entries)))}."
    )


def _without_environment(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings without what chooses the environment, and without how they were found there."""
    return {
        key: value
        for key, value in values.items()
        if not CHOOSES_ENVIRONMENT.fullmatch(key) and key.partition(".")[0] != "tuning"
    }


def _repeated(groups: dict[str, list[Entry]]) -> list[str]:
    """Return settings that have two Trials in one environment."""
    return [name for name, entries in groups.items() if len({one.trial.environment for one in entries}) < len(entries)]


def _require_apart(groups: dict[str, list[Entry]]) -> None:
    for name in _repeated(groups):
        raise LabError(f"labels: {name} is the setting of two Trials in the same environment: it may have one in each.")


def _notes(groups: dict[str, list[Entry]], metric: str) -> list[str]:
    entries = [entry for group in groups.values() for entry in group]
    notes = list(dict.fromkeys(entry.note for entry in entries if entry.note))
    cut = {entry.trial.environment: entry for entry in entries if entry.until_for(metric) is not None}
    for name, entry in cut.items():
        why = "Sessions were stopped on success at different frames"
        if not entry.same_budget:
            here = [one for one in entries if one.trial.environment == name]
            why = describe_stopped_first(here) or "The budgets of frames differ"
        notes.append(f"{why} in {name}, so all are compared there as they were at frame {entry.until:,}.")
    unfinished = [entry.path for entry in entries if len(entry.trial.completed) < len(entry.trial.sessions)]
    if unfinished:
        notes.append(f"Sessions that did not complete are excluded: of {', '.join(map(str, unfinished))}.")
    return notes
