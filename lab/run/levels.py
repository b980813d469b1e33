"""What a directory holds: a Session, a Trial or an Experiment, and which Sessions have begun there."""

from __future__ import annotations

import re
from pathlib import Path

from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir


def level(path: Path) -> str:
    """Say what a directory holds: a `session`, a `trial` or an `experiment`.

    Raises:
        LabError: it is none of them.
    """
    if RunDir(path).status.exists() or RunDir(path).spec.exists():
        return "session"
    if path.is_dir():
        if _begun(path, "trial-*/point.json", "trial-*/seed-*/spec.yaml", "trial-*/seed-*/status.json"):
            return "experiment"
        planned = TrialDir(path).point.exists() and TrialDir(path).seeds()
        if planned or _begun(path, "seed-*/spec.yaml", "seed-*/status.json"):
            return "trial"
        if SweepDir(path).sweep.exists():
            return str(SweepDir(path).read_sweep()["kind"])
    raise LabError(
        f"{path} is not a run directory: "
        + ("it holds no Session, Trial or Experiment." if path.is_dir() else "there is no such directory.")
    )


def _begun(path: Path, *files: str) -> bool:
    return any(True for file in files for _ in path.glob(file))


def sessions(path: Path) -> list[RunDir]:
    """Return the Sessions that have begun in the directory of a Session, a Trial or an Experiment, in order."""
    # Not rglob, which would also walk through a sweep's frozen code, and stumble when that is renamed meanwhile.
    files = [f"{below}{name}" for below in ("", "seed-*/", "trial-*/seed-*/") for name in ("status.json", "spec.yaml")]
    found = {entry.parent for file in files for entry in path.glob(file)}
    return [RunDir(folder) for folder in sorted(found, key=_in_order)]


def _in_order(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"-(\d+)", f"{path.parent.name}/{path.name}"))
