"""Trackers that a spec may name in log.trackers: what each takes, and whether it is installed."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lab.common.conf import install_command
from lab.errors import LabError, did_you_mean
from lab.run.directory import RunDir
from lab.run.files import read_json

ARGUMENTS = {
    "wandb": ("project", "entity", "mode", "name", "group", "job_type", "tags", "notes", "dir"),
    "mlflow": ("tracking_uri", "experiment", "name", "tags"),
}  # by the name of a tracker
PACKAGES = {"wandb": ("wandb",), "mlflow": ("mlflow-skinny", "mlflow")}  # one of which it needs
MODES = ("online", "offline", "shared", "disabled")
OLD_MODES = ("dryrun", "run")  # that WANDB_MODE may still have
SCHEMES = ("http", "https", "file", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
ALLOWED = {
    "wandb.mode": ("|".join(MODES), f"one of {', '.join(MODES)}"),
    "wandb.project": (r"[^/\\#?%:]{1,128}", "1 to 128 characters, none of them / \\ # ? % or :"),
    "wandb.tags": (r".{1,64}", "words of 64 characters at most"),
    "mlflow.experiment": (r".{1,500}", "1 to 500 characters"),
}  # what a tracker refuses when a run starts: a pattern for the whole text, and what it allows in words
VARIABLES = {
    "wandb": {"mode": "WANDB_MODE"},
    "mlflow": {"tracking_uri": "MLFLOW_TRACKING_URI"},
}  # in place of arguments
OFF = {"LAB_TRACKERS": "off"}  # environment of a process that tells no tracker anything
RERUN_ENV = {"LAB_RERUN": "1"}  # environment of a process whose Sessions are those of `rerun`
MOST_LINES = 4  # at the end, and folders in a command


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


def _require_allowed(shown: str, name: str, key: str, value: str) -> None:
    """Raise LabError if a tracker would refuse an argument when its run starts; `shown` is what the user wrote."""
    pattern, allowed = ALLOWED.get(f"{name}.{key}", (".*", ""))
    if not re.fullmatch(pattern, value):
        near = did_you_mean(value, MODES) if key == "mode" else ""
        raise LabError(f"{shown}={value} is not allowed: it must be {allowed}.{near}")
    scheme = re.match(r"([\w.-]+)(\+\w+)?:", value) if key == "tracking_uri" else None
    if scheme:
        schemes = (*SCHEMES, *(entry.name for entry in metadata.entry_points(group="mlflow.tracking_store")))
        if scheme[1] not in schemes:
            raise LabError(
                f"{shown}={value} is not allowed: it must be a folder, or an address that begins with one of"
                f" {', '.join(schemes)}.{did_you_mean(scheme[1], schemes)}"
            )
    if key == "dir" and (file := next((path for path in (Path(value), *Path(value).parents) if path.is_file()), None)):
        raise LabError(f"{shown}={value} is not allowed: {file} is a file.")


def is_rerun() -> bool:
    """Return whether Sessions of this process are no new results, but those of `rerun`."""
    return RERUN_ENV.items() <= os.environ.items()


def are_off() -> bool:
    """Return whether no tracker is told what the Sessions of this process do."""
    return OFF.items() <= os.environ.items()


def require_usable(trackers: Any) -> None:
    """Raise LabError if a tracker in log.trackers is not installed, or would refuse an argument when a run starts."""
    for name, arguments in {} if are_off() else read_trackers(trackers).items():
        if not any(_is_installed(package) for package in PACKAGES[name]):
            raise LabError(f"log.trackers names {name}, which is not installed: {install_command(name)}")
        for key, value in arguments.items():
            for text in value if key == "tags" else [value]:
                _require_allowed(f"log.trackers.{name}.{key}", name, key, text)
        for key, variable in VARIABLES[name].items():
            if key not in arguments and (value := os.environ.get(variable)) and value not in OLD_MODES:
                _require_allowed(variable, name, key, value)


def _is_installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def tracker_path(path: Path, name: str) -> Path:
    """Return the file in the run directory of a Session that says under which id a tracker knows it."""
    return path / f"{name}.json"


def unsent_runs(folder: Path, identity: str = "") -> list[Path]:
    """Return the offline runs of Weights & Biases in a folder that `wandb sync` has not sent; all, or of one id."""
    runs = sorted((folder / "wandb").glob(f"offline-run-*{identity}"))
    return [run for run in runs if not any(run.glob("*.wandb.synced"))]


def describe_tracked(sessions: Iterable[RunDir]) -> tuple[list[str], dict[str, str]]:
    """Return where trackers have Sessions, as lines, and the command that sends what lies here, with its purpose."""
    lines, unsent = [], []
    for path in (session.path for session in sessions):
        wandb, mlflow = _read(tracker_path(path, "wandb")), _read(tracker_path(path, "mlflow"))
        if wandb.get("url"):
            lines.append(f"Weights & Biases has {path} at {wandb['url']}")
        elif wandb.get("id"):
            unsent += unsent_runs(Path(wandb.get("dir") or path), str(wandb["id"]))
        if mlflow.get("tracking_uri"):
            lines.append(f"MLflow's tracking URI is {re.sub('://[^/@]*@', '://', str(mlflow['tracking_uri']))}")
    lines = list(dict.fromkeys(lines))
    lines = [*lines[:MOST_LINES], "..."] if len(lines) > MOST_LINES else lines
    if not unsent:
        return lines, {}
    many = f"find {shlex.quote(os.path.commonpath(unsent))} -name 'offline-run-*' -exec wandb sync {{}} +"
    command = many if len(unsent) > MOST_LINES else f"wandb sync {shlex.join(map(str, unsent))}"
    return lines, {command: "send to Weights & Biases what it has of this offline"}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (LabError, OSError):
        return {}
