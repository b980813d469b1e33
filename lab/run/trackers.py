"""Trackers that a spec may name in log.trackers: what each takes, and whether it is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lab.common.conf import install_command
from lab.errors import LabError, did_you_mean

ARGUMENTS = {
    "wandb": ("project", "entity", "mode", "name", "group", "job_type", "tags", "notes", "dir"),
    "mlflow": ("tracking_uri", "experiment", "name", "tags"),
}  # by the name of a tracker
PACKAGES = {"wandb": ("wandb",), "mlflow": ("mlflow-skinny", "mlflow")}  # one of which it needs
OFF = "LAB_TRACKERS"  # environment variable: `off` for Sessions that are no new results, as of `rerun`


def read_trackers(trackers: Any) -> dict[str, dict[str, Any]]:
    """Return the arguments of each tracker in log.trackers: null, a name, several, or a mapping to arguments.

    Raises:
        LabError: an unknown tracker or argument.
    """
    names = [trackers] if isinstance(trackers, str) else trackers or ()
    named = names if isinstance(names, Mapping) else dict.fromkeys(names)
    chosen = {}
    for name, arguments in named.items():
        if name not in ARGUMENTS:
            known = ", ".join(ARGUMENTS)
            raise LabError(f"log.trackers: {name!r} is no tracker: choose from {known}.{did_you_mean(name, ARGUMENTS)}")
        if not isinstance(arguments, Mapping | None):
            example = f"log.trackers={{{name}: {{{ARGUMENTS[name][0]}: ...}}}}"
            raise LabError(
                f"log.trackers.{name}={arguments} is not allowed: write its arguments by name, as {example}."
            )
        for key, value in (arguments or {}).items():
            if key not in ARGUMENTS[name]:
                raise LabError(
                    f"log.trackers.{name}.{key} cannot be set: {name} has no argument {key!r}."
                    f"{did_you_mean(key, ARGUMENTS[name])} Its arguments are: {', '.join(ARGUMENTS[name])}."
                )
            if key == "tags" and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
                raise LabError(f"log.trackers.{name}.tags={value} is not allowed: it must be a list of words.")
            if key != "tags" and not isinstance(value, str):
                raise LabError(f"log.trackers.{name}.{key}={value} is not allowed: it must be a word.")
        chosen[name] = dict(arguments or {})
    return chosen


def require_installed(trackers: Any) -> None:
    """Raise LabError if a tracker in log.trackers is not installed."""
    for name in {} if os.environ.get(OFF) == "off" else read_trackers(trackers):
        if not any(_is_installed(package) for package in PACKAGES[name]):
            raise LabError(f"log.trackers names {name}, which is not installed: {install_command(name)}")


def _is_installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def tracker_path(path: Path, name: str) -> Path:
    """Return the file in the run directory of a Session that says under which id a tracker knows it."""
    return path / f"{name}.json"
