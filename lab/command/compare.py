"""`python -m lab compare DIR DIR ...`: compare Sessions, Trials and Experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lab.command.options import command, option
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import format_chance, format_estimate, plural
from lab.errors import LabError
from lab.run.files import rename_existing, write_atomically
from lab.run.schemas import LESS_IS_BETTER

if TYPE_CHECKING:
    from rich.table import Table

    from lab.analysis.across import Across
    from lab.analysis.compare import Comparison, Entry

MAX_KEYS = 4  # hyperparameters in which the sides differ that the table shows


Form = Literal["png", "svg", "pdf"]


@dataclass
class Options:
    """Options of the command."""

    metric: str = option("return", "what to compare: a metric of session.json")
    out: str = option("outputs", "where the picture goes: a directory, or a file that ends in .png, .svg or .pdf")
    format: Form = option("png", "png, svg or pdf: what kind of picture, where out is a directory")
    labels: str = option("", "names of the sides in the order of the directories", "labels=A,B,...")


@command(
    "a run directory of a Session, a Trial or an Experiment, which stands for its best Trial",
    Options,
    "Trials in several environments are grouped by their settings, and compared by scores that are normalized in each"
    " environment. labels=A,A,B,B names the setting of each directory.",
    several=True,
)
def main(paths: list[Path], options: Options) -> None:
    """Compare run directories.

    Raises:
        LabError: the directories cannot be compared.
    """
    from lab.analysis.compare import compare, list_notes, plot_compare, read_entries, require_metric
    from lab.analysis.compare_across import read_across

    picture = picture_path(options)
    labels = [label.strip() for label in options.labels.split(",")] if options.labels else []
    if across := read_across(paths, options.metric, labels) if len(paths) > 1 else None:
        print_across(*across, picture)
        return
    entries = read_entries(paths, labels)
    require_metric(entries, options.metric)
    comparisons = [compare(entry, entries[0], options.metric) for entry in entries[1:]]
    content = plot_compare(entries, options.metric, picture.suffix[1:])
    console = Terminal(soft_wrap=True, width=UNCUT)
    console.print()
    console.print(comparison_table(entries, comparisons, options.metric))
    console.print()
    for comparison in comparisons:
        console.print(describe_comparison(comparison))
    write_picture(console, list_notes(entries, options.metric), picture, content)


def print_across(across: Across, notes: Sequence[str], picture: Path) -> None:
    """Print settings over several environments, and what may be concluded; draw them."""
    from lab.analysis.across import describe_score
    from lab.analysis.plot_across import plot_across
    from lab.sweep.summary import print_section

    console = Terminal(soft_wrap=True, width=UNCUT)
    print_section(console, describe_score(across), across.to_dict())
    write_picture(console, notes, picture, plot_across(across, picture.suffix[1:]))


def write_picture(console: Terminal, notes: Sequence[str], picture: Path, content: bytes) -> None:
    """Print notes, write a picture and say where it is."""
    earlier = rename_existing(picture, content)
    write_atomically(picture, content)
    for note in notes:
        console.print(f"Note: {note}", style="yellow")
    renamed = f"; the earlier one is now {earlier}" if earlier else ""
    console.print(f"\nMade {picture}{renamed}")


def picture_path(options: Options) -> Path:
    """Return the path of the picture.

    Raises:
        LabError: out is a file of another format.
    """
    out = Path(options.out)
    if out.suffix[1:] not in get_args(Form) or out.is_dir():
        return out / f"compare.{options.format}"
    if options.format not in ("png", out.suffix[1:]):
        raise LabError(f"format={options.format} is not allowed with out={out}, whose format is {out.suffix[1:]}.")
    return out


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
    until = entries[0].until_for(metric)
    table.add_column(metric if until is None else f"{metric} at frame {until:,}", no_wrap=True)
    for column in (*keys, "sessions", "mean", "IQM", f"P(better than {entries[0].name})", "IQM better by"):
        table.add_column(Text(column), justify="right", no_wrap=True)
    for entry, comparison in zip(entries, (None, *comparisons), strict=True):
        summary = summarize(entry.values(metric))
        cells = [format_hyperparameter(entry.trial.spec.get(key)) for key in keys]
        cells += [entry.n, format_estimate(summary["mean"], metric), format_estimate(summary["iqm"], metric)]
        if comparison and not comparison.obstacle:
            cells += [format_chance(comparison.improvement), format_estimate(comparison.difference, metric)]
        table.add_row(*map(Text, (entry.name, *cells)))
    return table


def describe_comparison(comparison: Comparison) -> str:
    """Return a sentence on what may be concluded from a comparison, and what may not."""
    metric = comparison.metric
    if comparison.obstacle:
        pair = f"{comparison.other.name} and {comparison.entry.name}"
        return f"{pair} cannot be compared on {metric}: {comparison.obstacle}."
    sign, word = ("<", "lower") if metric in LESS_IS_BETTER else (">", "higher")
    if ((comparison.improvement["value"] or 0) - 0.5, comparison.difference["value"] or 0) < (0, 0):
        comparison = comparison.reversed()
    one, other = comparison.entry.name, comparison.other.name
    n, m = (len(side.values(metric)) for side in (comparison.entry, comparison.other))
    chance, by = format_chance(comparison.improvement), format_estimate(comparison.difference, metric)
    numbers = f"P({one} {sign} {other}) = {chance}, IQM {word} by {by}"
    if comparison.doubts:
        conclusion = f"no difference between {one} and {other} on {metric} can be concluded"
        numbers += f"; {', and '.join(comparison.doubts)}"
    else:
        conclusion = f"{one} is better than {other} on {metric}"
        conclusion += ", of which less is better" if metric in LESS_IS_BETTER else ""
    until = comparison.entry.until_for(comparison.metric)
    at = "" if until is None else f" at frame {until:,}"
    return f"With {n} and {plural(m, 'seed')}{at}, {conclusion}: {numbers}."
