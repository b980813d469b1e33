"""Whether a Session that was run again is the one before, bit for bit; and if not, where they part and how they end."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.directory import RunDir

OWN = "lab-rl"  # this project's own distribution: in a checkout its code is known by commit, not by version


@dataclass(frozen=True)
class Verdict:
    """How a Session that was run again compares with the one before.

    Attributes:
        session: its path in the run directory.
        identical: of episodes.csv, metrics.csv and the final weights, whether they are the same to the last bit; null
            if there are none to compare with.
        parts_at: the first frame at which a table differs; null if none does.
        then: the return before: the mean of the last 100 episodes; null if no episode ended.
        now: the return now.
        error: why it has no result now.
    """

    session: str
    identical: dict[str, bool | None]
    parts_at: int | None = None
    then: float | None = None
    now: float | None = None
    error: str | None = None

    @property
    def is_identical(self) -> bool:
        """Whether all is the same."""
        return self.error is None and all(self.identical.values())

    @property
    def difference(self) -> float | None:
        """Return the return now less that before; 0 if neither has one, null if only one has."""
        if self.then is None or self.now is None:
            return 0.0 if self.then is self.now and self.error is None else None
        return self.now - self.then

    def within(self, tolerance: float) -> bool:
        """Say whether all is the same, or the returns are at most so far apart."""
        close = self.difference is not None and abs(self.difference) <= tolerance
        return self.is_identical or (tolerance > 0 and self.error is None and close)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "session": self.session,
            "identical": self.is_identical,
            "files": self.identical,
            "parts_at": self.parts_at,
            "return": {"then": self.then, "now": self.now, "difference": self.difference},
            "error": self.error,
        }


def compare_sessions(name: str, before: RunDir, again: RunDir) -> Verdict:
    """Compare a Session with one that was run again.

    Args:
        name: its path in the run directory.
        before: the one before.
        again: that of now; where it did not complete, the reason is all that is said.
    """
    try:
        return _compare(name, before, again)
    except (LabError, OSError, ValueError, KeyError, csv.Error) as error:
        return Verdict(name, {}, error=f"cannot be compared: {error}")


def _compare(name: str, before: RunDir, again: RunDir) -> Verdict:
    status = again.find_status()
    if status is None or status["state"] != "completed":
        lines = ((status and status["error"]) or "").strip().splitlines()
        why = f"{status['state']} at frame {status['frame']:,}" if status else "did not begin"
        return Verdict(name, {}, error=f"{why}: {lines[-1]}" if lines else why)
    tables = {"episodes": (before.episodes, again.episodes), "metrics": (before.metrics, again.metrics)}
    identical: dict[str, bool | None] = {}
    parts = []
    for table, (old, new) in tables.items():
        identical[table] = old.read_bytes() == new.read_bytes() if old.exists() else None
        if identical[table] is False:
            parts.append(parting(old, new))
    identical["weights"] = same_weights(before, again)
    parts_at = min((frame for frame in parts if frame is not None), default=None)
    return Verdict(name, identical, parts_at, final_return(before), final_return(again))


def parting(old: Path, new: Path) -> int | None:
    """Return the first frame at which the rows of two tables differ; null if it is not in a row."""
    with old.open(newline="", encoding="utf-8") as one, new.open(newline="", encoding="utf-8") as other:
        for rows in zip_longest(csv.DictReader(one), csv.DictReader(other)):
            if rows[0] != rows[1]:
                return min(int(row["frame"]) for row in rows if row)
    return None


def same_weights(before: RunDir, again: RunDir) -> bool | None:
    """Say whether the final weights of two Sessions are the same bits; null if those before are not there."""
    if not before.checkpoint("last").exists():
        return None
    from lab.run.checkpoint import read

    old, new = (read(directory.checkpoint("last"))["parameters"] for directory in (before, again))
    return old.keys() == new.keys() and all(
        value.dtype == new[name].dtype and value.numpy().tobytes() == new[name].numpy().tobytes()
        for name, value in old.items()
    )


def final_return(directory: RunDir) -> float | None:
    """Return the mean return of a Session's last 100 episodes; null if none ended."""
    from lab.analysis.session import read_tables, session_results

    value = session_results(read_tables(directory))["return"]
    return None if value is None else float(value)


def different(
    recorded: dict[str, Any], here: dict[str, Any], installed: bool = False
) -> dict[str, tuple[str | None, str | None]]:
    """Return what differs between two of what `lab.run.provenance.machine` finds: then and now, by what it is.

    Packages that were not there then are left out: nothing that ran then can have used them.

    Args:
        recorded: that of then.
        here: that of now.
        installed: whether this project is an installed package too, and no checkout.
    """
    names = {"Python": "python", "platform": "platform", "GPU": "gpu"}
    pairs = {name: (recorded[key], here[key]) for name, key in names.items()}
    pairs["CPU"] = (recorded["cpu"]["model"], here["cpu"]["model"])
    found = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    packages = {name.lower(): version for name, version in here["packages"].items()}
    for name, version in recorded["packages"].items():
        if (installed or name.lower() != OWN) and packages.get(name.lower()) != version:
            found[name] = (version, packages.get(name.lower()))
    return found
