"""`python -m lab compare DIR DIR ...`: put Sessions, Trials and Experiments side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import spec as specs
from lab.common.terminal import Terminal
from lab.common.text import format_number
from lab.run.files import rename_existing, write_atomically
from lab.run.schemas import LESS_IS_BETTER

if TYPE_CHECKING:
    from rich.table import Table

    from lab.analysis.compare import Comparison, Entry

USAGE = """Usage: python -m lab compare DIR DIR ... [key=value ...]

  DIR            the run directory of a Session, a Trial or an Experiment, which stands for its best Trial
  metric=return  what to compare: a figure of session.json
  out=.          the directory to draw compare.png into"""

WIDTH = 1000  # columns that the table may take


@dataclass
class Options:
    """What can stand beside the directories, as key=value."""

    metric: str = "return"
    out: str = "."


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: the words are not understood, or the directories cannot be compared.
    """
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    # Hydra's own names for directories hold equals signs too.
    keys = [word for word in words if re.match(r"\w*=", word) and not Path(word).exists()]
    options = specs.arguments(Options, keys, "compare")

    from lab.analysis.compare import compare, notes, plot_compare, read_entries, require_metric

    entries = read_entries([Path(word) for word in words if word not in keys])
    require_metric(entries, options.metric)
    comparisons = [compare(entry, entries[0], options.metric) for entry in entries[1:]]
    picture = Path(options.out) / "compare.png"
    content = plot_compare(entries, options.metric)
    earlier = rename_existing(picture, content)
    write_atomically(picture, content)
    # A result is meant to be copied and searched for: it is never cut to the width of a terminal.
    console = Terminal(soft_wrap=True, width=WIDTH)
    console.print()
    console.print(table(entries, comparisons, options.metric))
    console.print()
    for comparison in comparisons:
        console.print(conclusion(comparison))
    for note in notes(entries):
        console.print(f"Note: {note}", style="yellow")
    there = f"; the one that was there is {earlier} now" if earlier else ""
    console.print(f"\nMade {picture}{there}")


def table(entries: Sequence[Entry], comparisons: Sequence[Comparison], metric: str) -> Table:
    """Return the figures of all sides as a table, and how each did against the first."""
    from rich.table import Table
    from rich.text import Text

    from lab.analysis.compare import MOST_KEYS, differing
    from lab.analysis.plotting import written
    from lab.analysis.statistics import summarize

    keys = differing([entry.trial for entry in entries])
    shown = keys if 1 < len(keys) <= MOST_KEYS else []
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column(metric, no_wrap=True)
    for column in (*shown, "sessions", "mean", "IQM", f"P(better than {entries[0].name})", "IQM better by"):
        made.add_column(Text(column), justify="right", no_wrap=True)
    for entry, comparison in zip(entries, (None, *comparisons), strict=True):
        summary = summarize(entry.trial.values(metric))
        against = ["", ""]
        if comparison and not comparison.obstacle:
            against = [estimate(comparison.improvement, ".2f"), estimate(comparison.difference)]
        values = [written(entry.trial.spec.get(key)) for key in shown]
        cells = [*values, entry.n, estimate(summary["mean"]), estimate(summary["iqm"]), *against]
        made.add_row(*map(Text, (entry.name, *cells)))
    return made


def conclusion(comparison: Comparison) -> str:
    """Say in a sentence what may be concluded from a comparison, and what may not."""
    metric = comparison.metric
    if comparison.obstacle:
        pair = f"{comparison.other.name} and {comparison.entry.name}"
        return f"{pair} cannot be compared on {metric}: {comparison.obstacle}."

    sign, word = ("<", "lower") if metric in LESS_IS_BETTER else (">", "higher")
    found = comparison if (comparison.improvement["value"] or 0) > 0.5 else comparison.turned()
    one, other = found.entry.name, found.other.name
    seeds = f"With {len(found.entry.trial.values(metric))} and {len(found.other.trial.values(metric))} seeds"
    numbers = (
        f"P({one} {sign} {other}) = {estimate(found.improvement, '.2f')}, IQM {word} by {estimate(found.difference)}"
    )
    if found.doubts:
        between = f"no difference between {one} and {other} on {metric} can be concluded"
        return f"{seeds}, {between}: {numbers}; {', and '.join(found.doubts)}."
    better = f"{one} is better than {other} on {metric}"
    return f"{seeds}, {better}{', of which less is better' if sign == '<' else ''}: {numbers}."


def estimate(found: dict[str, float | None], digits: str = "") -> str:
    """Write a value and its interval, where it has them."""
    value, low, high = (
        "-" if each is None else format(each, digits) if digits else format_number(each)
        for each in (found["value"], found["low"], found["high"])
    )
    return value if found["low"] is None else f"{value} [{low}, {high}]"
