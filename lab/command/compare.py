"""`python -m lab compare DIR DIR ...`: compare Sessions, Trials and Experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.command.options import command, option
from lab.common.terminal import Terminal
from lab.common.text import format_estimate, plural
from lab.run.files import rename_existing, write_atomically
from lab.run.schemas import LESS_IS_BETTER

if TYPE_CHECKING:
    from rich.table import Table

    from lab.analysis.compare import Comparison, Entry

WIDTH = 1000  # columns of the table at most
MAX_KEYS = 4  # hyperparameters in which the sides differ that the table shows


@dataclass
class Options:
    """Options of the command."""

    metric: str = option("return", "what to compare: a metric of session.json")
    out: str = option(".", "the directory to draw compare.png into")


@command(
    "a run directory of a Session, a Trial or an Experiment, which stands for its best Trial", Options, several=True
)
def main(paths: list[Path], options: Options) -> None:
    """Compare run directories.

    Raises:
        LabError: the directories cannot be compared.
    """
    from lab.analysis.compare import compare, list_notes, plot_compare, read_entries, require_metric

    entries = read_entries(paths)
    require_metric(entries, options.metric)
    comparisons = [compare(entry, entries[0], options.metric) for entry in entries[1:]]
    picture = Path(options.out) / "compare.png"
    content = plot_compare(entries, options.metric)
    earlier = rename_existing(picture, content)
    write_atomically(picture, content)
    # Results are copied and searched for: lines are never cut to the width of a terminal.
    console = Terminal(soft_wrap=True, width=WIDTH)
    console.print()
    console.print(comparison_table(entries, comparisons, options.metric))
    console.print()
    for comparison in comparisons:
        console.print(describe_comparison(comparison))
    for note in list_notes(entries):
        console.print(f"Note: {note}", style="yellow")
    renamed = f"; the earlier one is now {earlier}" if earlier else ""
    console.print(f"\nMade {picture}{renamed}")


def comparison_table(entries: Sequence[Entry], comparisons: Sequence[Comparison], metric: str) -> Table:
    """Return a table of the metrics of all sides, and how each compares with the first."""
    from rich.table import Table
    from rich.text import Text

    from lab.analysis.compare import differing_keys
    from lab.analysis.statistics import summarize
    from lab.analysis.text import format_hyperparameter

    keys = differing_keys([entry.trial for entry in entries])
    keys = keys if 1 < len(keys) <= MAX_KEYS else []
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(metric, no_wrap=True)
    for column in (*keys, "sessions", "mean", "IQM", f"P(better than {entries[0].name})", "IQM better by"):
        table.add_column(Text(column), justify="right", no_wrap=True)
    for entry, comparison in zip(entries, (None, *comparisons), strict=True):
        summary = summarize(entry.trial.values(metric))
        cells = [format_hyperparameter(entry.trial.spec.get(key)) for key in keys]
        cells += [entry.n, format_estimate(summary["mean"]), format_estimate(summary["iqm"])]
        if comparison and not comparison.obstacle:
            cells += [_format_chance(comparison.improvement), format_estimate(comparison.difference)]
        table.add_row(*map(Text, (entry.name, *cells)))
    return table


def describe_comparison(comparison: Comparison) -> str:
    """Return a sentence on what may be concluded from a comparison, and what may not."""
    metric = comparison.metric
    if comparison.obstacle:
        pair = f"{comparison.other.name} and {comparison.entry.name}"
        return f"{pair} cannot be compared on {metric}: {comparison.obstacle}."
    sign, word = ("<", "lower") if metric in LESS_IS_BETTER else (">", "higher")
    if (comparison.improvement["value"] or 0) <= 0.5:
        comparison = comparison.reversed()
    one, other = comparison.entry.name, comparison.other.name
    n, m = (len(side.trial.values(metric)) for side in (comparison.entry, comparison.other))
    chance, by = _format_chance(comparison.improvement), format_estimate(comparison.difference)
    numbers = f"P({one} {sign} {other}) = {chance}, IQM {word} by {by}"
    if comparison.doubts:
        conclusion = f"no difference between {one} and {other} on {metric} can be concluded"
        numbers += f"; {', and '.join(comparison.doubts)}"
    else:
        conclusion = f"{one} is better than {other} on {metric}"
        conclusion += ", of which less is better" if metric in LESS_IS_BETTER else ""
    return f"With {n} and {plural(m, 'seed')}, {conclusion}: {numbers}."


def _format_chance(estimate: dict[str, float | None]) -> str:
    value, low, high = ("-" if each is None else f"{each:.2f}" for each in estimate.values())
    return value if estimate["low"] is None else f"{value} [{low}, {high}]"
