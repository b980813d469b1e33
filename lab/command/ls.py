"""`python -m lab ls [DIR] [condition ...]`: list what was run."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from lab.analysis.conditions import explain_none, find_runs
from lab.analysis.runs import Run
from lab.analysis.settings import find_differences
from lab.command.options import command, option
from lab.common.output import columns
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import format_interval, format_number
from lab.errors import require_one_of, visible
from lab.run.schemas import METRICS
from lab.sweep.tree import STYLES

LEVELS = ("run", "session", "trial", "experiment")
DATED = re.compile(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d")  # in a path that says when a run was started
SHOWN_SHA = 7  # digits of a commit
GAP, INDENT = "  ", "    "
WRAP: Any = {"break_long_words": False, "break_on_hyphens": False, "replace_whitespace": False}
MOVED_FIRST = ("settings", "tags", "95 % interval", "commit", "date", "frames", "algo", "env")  # where it is narrow
FIELDS = (
    "path", "level", "state", "algo", "env", "sessions", "completed", "seeds", "frame", "start", "sha", "uncommitted",
    "tags", "rerun_of",
)  # columns of --csv before those of metrics and settings  # fmt: skip

CONDITIONS = """what must hold of what is listed, as algo=ppo env.id=CartPole-v1 'return>450' state=completed tag=paper
since=7d before=2026-11-01; with = != > >= < <=, and * and ? in texts. Keys are those of the spec and of session.json,
and state, tag, seed, sha, uncommitted, is_rerun, frame, sessions, path"""
NOTES = """A Trial has the means of its seeds, an Experiment those of its best Trial. The settings in the last column
are those that the command line set, and those in which the spec differs from what a listed run of the same algorithm
and environment had without setting them. A commit with * had uncommitted changes. `rerun of DIR` marks what `rerun`
made; is_rerun=false leaves it out."""


@dataclass
class Options:
    """Options of the command."""

    sort: str = option("date", "the key to sort by, best or newest first; -KEY reverses it", "sort=KEY")
    level: str = option("run", "run: what lies in no larger one; or every session, trial or experiment")
    csv: bool = option(False, "print a table of comma-separated values, with all metrics and settings", "--csv")


@command(
    "where to look: a directory, with all below it; outputs by default",
    Options,
    NOTES,
    conditions=" ".join(CONDITIONS.split()),
    default="outputs",
)
def main(path: Path, options: Options, conditions: list[str]) -> None:
    """List the run directories below a directory.

    Raises:
        LabError: a condition or an option is not allowed, or there is no such directory.
    """
    require_one_of("level", options.level, LEVELS)
    level = None if options.level == "run" else options.level
    runs = find_runs(path, *conditions, sort=options.sort, level=level)
    if options.csv:
        print(visible(write_csv(runs)), end="")
        return
    console = Terminal(soft_wrap=True)
    if not runs:
        console.print(explain_none(path, conditions, level))
        return
    for line in list_runs(runs, columns(console.file) or UNCUT):
        console.print(line, no_wrap=True)
    for run in runs:
        for problem in run.problems:
            console.print(f"Note: {problem}", style="yellow")


def list_runs(runs: Sequence[Run], width: int) -> list[Text]:
    """Return a table of runs as lines, of which further ones for a run have what is too wide for the first."""
    rows = [
        describe_run(run) | {"settings": " ".join([*_rerun_of(run), *map("=".join, settings.items())])}
        for run, settings in zip(runs, find_differences(runs), strict=True)
    ]
    if all(DATED.search(row["run"]) for row in rows):
        rows = [{key: value for key, value in row.items() if key != "date"} for row in rows]
    if all(row["algo"] in row["run"] for row in rows):
        rows = [{key: value for key, value in row.items() if key != "algo"} for row in rows]
    columns = [key for key in rows[0] if any(row[key] for row in rows)]
    widths = {key: max(cell_len(text) for text in (key, *(row[key] for row in rows))) for key in columns}
    first = list(columns)
    for key in MOVED_FIRST:
        if sum(widths[each] + len(GAP) for each in first) - len(GAP) > width and key in first:
            first.remove(key)
    moved = [key for key in columns if key not in first]
    lines = [_line({key: key for key in first}, widths, "bold")]
    for row in rows:
        lines.append(_line({key: row[key] for key in first}, widths))
        details = GAP.join(f"{row[key]} frames" if key == "frames" else row[key] for key in moved if row[key])
        for line in textwrap.wrap(details, max(width - len(INDENT), 20), **WRAP):
            lines.append(Text(INDENT + line, style="dim"))
    return lines


def _rerun_of(run: Run) -> list[str]:
    return [f"rerun of {run.rerun_of}"] if run.rerun_of else []


def _line(cells: dict[str, str], widths: dict[str, int], style: str = "") -> Text:
    line = Text(style=style)
    for key, text in cells.items():
        space = " " * (widths[key] - cell_len(text))
        left = key in ("run", "algo", "env", "state", "settings", "tags")
        line.append(text + space if left else space + text, STYLES.get(text, "") if key == "state" else "")
        line.append(GAP)
    line.rstrip()
    return line


def describe_run(run: Run) -> dict[str, str]:
    """Return the columns of a run in the table as texts, without its settings."""
    envs = run.envs
    mean, interval = run.figures.get("return"), run.intervals.get("return")
    done = run.sessions["completed"]
    return {
        "run": str(run.path),
        "algo": ",".join(run.algos),
        "env": f"{envs[0]} +{len(envs) - 1}" if len(envs) > 1 else "".join(envs),
        "state": run.state,
        "sessions": "" if run.level == "session" else f"{done}/{run.planned}",
        "frames": f"{run.frame:,}" if run.frame else "",
        "return": "" if mean is None else format_number(mean),
        "95 % interval": format_interval(dict(zip(("low", "high"), interval, strict=True))) if interval else "",
        "date": run.start.astimezone().strftime("%Y-%m-%d %H:%M") if run.start else "",
        "commit": f"{run.sha[:SHOWN_SHA]}{'*' if run.uncommitted else ''}" if run.sha else "",
        "tags": " ".join(run.tags),
    }


def write_csv(runs: Sequence[Run]) -> str:
    """Return a table of comma-separated values: a row for each run, with a column for each metric and setting."""
    differences = find_differences(runs)
    metrics = [name for name in METRICS if any(name in run.figures for run in runs)]
    metrics += sorted({name for run in runs for name in run.figures} - {*metrics})
    metrics = [name for name in metrics if name != "frames"]  # the column `frame`
    with_interval = {name for run in runs for name in run.intervals}
    ends = {name: (f"{name}_low", f"{name}_high") if name in with_interval else () for name in metrics}
    settings = list(dict.fromkeys(key for each in differences for key in each))
    output = io.StringIO()
    columns = [*FIELDS, *(column for name in metrics for column in (name, *ends[name])), *settings]
    table = csv.DictWriter(output, columns, lineterminator="\n")
    table.writeheader()
    for run, own in zip(runs, differences, strict=True):
        row: dict[str, Any] = {
            "path": run.path,
            "level": run.level,
            "state": run.state,
            "algo": " ".join(run.algos),
            "env": " ".join(run.envs),
            "sessions": run.planned,
            "completed": run.sessions["completed"],
            "seeds": " ".join(map(str, run.seeds)),
            "frame": run.frame,
            "start": run.start.isoformat(timespec="seconds") if run.start else "",
            "sha": run.sha or "",
            "uncommitted": "" if run.uncommitted is None else str(run.uncommitted).lower(),
            "tags": " ".join(run.tags),
            "rerun_of": run.rerun_of or "",
            **{name: run.figures.get(name) for name in metrics},
            **own,
        }
        for name in run.intervals.keys() & {*metrics}:
            row |= zip(ends[name], run.intervals[name], strict=True)
        table.writerow(row)
    return output.getvalue()
