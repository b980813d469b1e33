"""Prepare the directory of a stage that trains: `python -m benchmark.stage train@ppo-cartpole`.

A Trial that was interrupted goes on from its checkpoints, if neither the command nor anything that the stage depends on
has changed since it began. One that has completed is kept if DVC has not recorded that yet. What other code or settings
have left is removed, and so is what DVC has recorded: it is asked to train that anew.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.repo import Repo

from lab.analysis.trial import read_trial
from lab.common.text import format_duration
from lab.errors import LabError
from lab.run.directory import TrialDir
from lab.run.files import read_json, write_json
from lab.run.progress import is_active, read_progress


def prepare(name: str) -> str:
    """Remove what the stage cannot go on from, and return a sentence on what it does now.

    Raises:
        LabError: there is no such stage, its output is no directory below trained/, or a Trial is running there.
    """
    with Repo() as repo:
        stages = [stage for stage in repo.index.stages if getattr(stage, "name", None) == name]
        if not stages:
            raise LabError(f"{name} is not a stage of dvc.yaml.")
        (stage,) = stages
        out = Path(stage.outs[0].fs_path)
        record = Path(repo.tmp_dir) / "begun" / f"{name}.json"
        recorded = {str(dep): dep.hash_info.value for dep in stage.deps}  # in dvc.lock
        depends = {str(dep): dep.get_hash().value for dep in stage.deps}
        root = Path(repo.root_dir)
    if root / "trained" not in out.parents:
        raise LabError(f"{out} is the output of {name}, and not below {root / 'trained'}: it is not touched.")
    state, shown = _state(out), out.relative_to(root)
    if out.exists() and _read(record) == {"command": stage.cmd, "depends": depends}:
        if state != "completed":
            return f"{name} goes on from the checkpoints in {shown}"
        if recorded != depends:
            return f"{name} has trained {shown} already"
    if _runs(out):
        raise LabError(f"{shown} is running: wait for it, or end it, and run {name} again.")
    if out.is_symlink():
        out.unlink()
    elif out.exists():
        shutil.rmtree(out)
    write_json(record, {"command": stage.cmd, "depends": depends})
    seconds = last_time(root / "published" / out.name)
    return f"{name} begins" + (f"; it took {format_duration(seconds)} when it was last trained" if seconds else "")


def last_time(trial: Path) -> float | None:
    """Return how long the Sessions of a published Trial took, all at once, in seconds; None if that is not known."""
    tables = [pd.read_csv(file) for file in trial.glob("seed-*/timing.csv")]
    return max((float(table["seconds"].sum()) for table in tables), default=None)


def _read(record: Path) -> dict[str, Any] | None:
    try:
        return read_json(record)
    except (LabError, OSError):
        return None


def _runs(out: Path) -> bool:
    try:
        return is_active(out, read_progress(out))
    except LabError:  # it is not there
        return False


def _state(out: Path) -> str:
    try:
        return read_trial(TrialDir(out)).state
    except LabError:  # nothing has started
        return "pending"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m benchmark.stage STAGE, as train@ppo-cartpole")
    try:
        print(prepare(sys.argv[1]), flush=True)
    except LabError as error:
        sys.exit(str(error))
