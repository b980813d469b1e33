"""Comparison of Sessions that were run again with those before: files, weights, returns, machine and packages."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lab.common.text import format_number
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.exported import read_digest

OWN = "lab-rl"  # this project's distribution: a checkout is known by its commit, not by its version
# Their arithmetic is that of a Session, with that of the packages that its spec names.
DECISIVE = ("torch", "numpy", "gymnasium", "ale-py", "box2d", "box2d-py", "mujoco", "opencv-python", "minigrid",
            "gymnasium-robotics", "shimmy", "dm-control")  # fmt: skip
MACHINE = {"Python": "python", "platform": "platform", "GPU": "gpu"}  # keys of provenance.json, by name
SAME = {True: "identical", False: "differs", None: "not there"}


@dataclass(frozen=True)
class Verdict:
    """How a Session that was run again compares with the one before.

    Attributes:
        session: its path in the run directory.
        identical: for episodes.csv, metrics.csv and the final weights, whether all bits are the same; None if there is
            nothing to compare with.
        diverges_at: the first frame at which a table differs; None if no row does.
        then: the return before: the mean of the last 100 episodes; None if no episode ended.
        now: the return now.
        error: why there is no result now.
    """

    session: str
    identical: dict[str, bool | None]
    diverges_at: int | None = None
    then: float | None = None
    now: float | None = None
    error: str | None = None

    @property
    def is_identical(self) -> bool:
        """Whether everything that could be compared is the same."""
        return self.error is None and False not in self.identical.values() and True in self.identical.values()

    @property
    def difference(self) -> float | None:
        """The return now less that before; 0 if neither exists, None if the other is missing."""
        if self.then is None or self.now is None:
            return 0.0 if self.then is self.now and self.error is None else None
        return self.now - self.then

    def is_within(self, tolerance: float) -> bool:
        """Return whether everything is the same, or the returns differ at most by a tolerance above 0."""
        is_close = self.difference is not None and abs(self.difference) <= tolerance
        return self.is_identical or (tolerance > 0 and self.error is None and is_close)

    def to_dict(self) -> dict[str, Any]:
        """Return what rerun.json holds of it."""
        return {
            "session": self.session,
            "identical": self.is_identical,
            "files": self.identical,
            "diverges_at": self.diverges_at,
            "return": {"then": self.then, "now": self.now, "difference": self.difference},
            "error": self.error,
        }


def compare_sessions(name: str, before: RunDir, again: RunDir) -> Verdict:
    """Compare a Session with one that was run again; if that did not complete, the verdict says why."""
    try:
        return _compare(name, before, again)
    except (LabError, OSError, ValueError, KeyError, csv.Error) as error:
        return Verdict(name, {}, error=f"cannot be compared: {error}")


def _compare(name: str, before: RunDir, again: RunDir) -> Verdict:
    status = again.find_status()
    if status is None or status["state"] != "completed":
        lines = ((status and status["error"]) or "").strip().splitlines()
        reason = f"{status['state']} at frame {status['frame']:,}" if status else "did not start"
        return Verdict(name, {}, error=f"{reason}: {lines[-1]}" if lines else reason)
    identical: dict[str, bool | None] = {}
    frames = []
    tables = {"episodes": (before.episodes, again.episodes), "metrics": (before.metrics, again.metrics)}
    for table, (old, new) in tables.items():
        identical[table] = old.read_bytes() == new.read_bytes() if old.exists() else None
        if identical[table] is False:
            frames.append(find_divergence(old, new))
    identical["weights"] = _has_same_weights(before, again)
    diverges_at = min((frame for frame in frames if frame is not None), default=None)
    return Verdict(name, identical, diverges_at, _final_return(before), _final_return(again))


def find_divergence(old: Path, new: Path) -> int | None:
    """Return the first frame at which the rows of two tables differ; None if only their headers do."""
    with old.open(newline="", encoding="utf-8") as one, new.open(newline="", encoding="utf-8") as other:
        for rows in zip_longest(csv.DictReader(one), csv.DictReader(other)):
            if rows[0] != rows[1]:
                return min(int(row["frame"]) for row in rows if row)
    return None


def _has_same_weights(before: RunDir, again: RunDir) -> bool | None:
    from lab.run.tensor_files import digest_weights, read

    last = before.checkpoint("last")
    digest = digest_weights(read(last)["parameters"]) if last.exists() else read_digest(before)
    return None if digest is None else digest == digest_weights(read(again.checkpoint("last"))["parameters"])


def _final_return(directory: RunDir) -> float | None:
    from lab.analysis.session import read_tables, session_results

    value = session_results(read_tables(directory))["return"]
    return None if value is None else float(value)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return a table with a row for each Session."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Session", "episodes", "metrics", "weights"):
        table.add_column(column, no_wrap=True)
    for column in ("diverges at frame", "return then", "now", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    for verdict in verdicts:
        if verdict.error is not None:
            table.add_row(verdict.session, Text(verdict.error, "red"))
            continue
        files = [Text(SAME[same], "" if same else "red") for same in verdict.identical.values()]
        frame = "-" if verdict.diverges_at is None else f"{verdict.diverges_at:,}"
        table.add_row(
            verdict.session, *files, frame, *map(format_number, (verdict.then, verdict.now, verdict.difference))
        )
    return table


def compare_machines(
    recorded: dict[str, Any], here: dict[str, Any], installed: bool = False
) -> dict[str, tuple[str | None, str | None]]:
    """Return what differs between two results of `lab.run.provenance.machine`, then and now.

    Packages that are new are left out: the Session before cannot have used them.

    Args:
        recorded: the result then.
        here: the result now.
        installed: whether this project is an installed package, and not a checkout.
    """
    pairs = {name: (recorded[key], here[key]) for name, key in MACHINE.items()}
    pairs["CPU"] = (recorded["cpu"]["model"], here["cpu"]["model"])
    packages = {name.lower(): version for name, version in here["packages"].items()}
    pairs |= {
        name: (version, packages.get(name.lower()))
        for name, version in recorded["packages"].items()
        if installed or name.lower() != OWN
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def find_decisive(names: Iterable[str], spec: Any, code: Iterable[str]) -> set[str]:
    """Return the parts of a machine and the packages that may change the numbers of a Session, by name.

    Args:
        names: as `compare_machines` gives them.
        spec: of the Session: packages of the modules in it, as in `mine:Mine-v0`, count.
        code: the user's own packages that the Session imported.
    """
    modules = {*code, *_list_modules(spec)}
    distributions = {one for module in modules for one in metadata.packages_distributions().get(module, [module])}
    known = {_normalize(name) for name in (*MACHINE, "CPU", OWN, *DECISIVE, *distributions)}
    return {name for name in names if _normalize(name) in known}


def _list_modules(value: Any) -> list[str]:
    """Return the first part of each text in a document that may name something in a module."""
    if isinstance(value, dict | list):
        return [name for each in (value.values() if isinstance(value, dict) else value) for name in _list_modules(each)]
    match = re.match(r"(\w+)[.:]", value) if isinstance(value, str) else None
    return [match[1]] if match else []


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
