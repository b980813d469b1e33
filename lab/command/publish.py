"""`python -m lab publish DIR`: write tables, pages and pictures of Trials, beside a peer's results."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.command.options import command, option
from lab.common.terminal import UNCUT, Terminal
from lab.errors import LabError
from lab.run.files import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from lab.analysis.published import Publication

OF = "of"  # key of results.json: the directory that was published, from that of the results
STYLES = {"better": "green", "worse": "red"}


@dataclass
class Options:
    """Options of the command."""

    out: str = option(
        "results",
        "the directory to write results.json, results.csv, results.md, report.html and pictures of each environment and"
        " each Experiment into",
    )
    against: str = option(
        "",
        "CSVs of peers' results to compare with, with the columns algo, env, frames, return and, where it is not"
        " the return in training, metric=eval_return",
        "against=FILE,...",
    )


@command(
    "a directory that holds Trials and Experiments, each in a sub-directory; or the directory of one of them", Options
)
def main(path: Path, options: Options) -> None:
    """Publish Trials and Experiments.

    Raises:
        LabError: there is no Trial, or a file cannot be read.
    """
    from lab.analysis.benchmark import read_benchmarks
    from lab.analysis.published import read_publication
    from lab.analysis.published_tables import list_notes, list_shortfalls

    benchmark = read_benchmarks([Path(file.strip()) for file in options.against.split(",") if file.strip()])
    publication = read_publication(path, benchmark)
    paths = write_publication(publication, Path(options.out))
    console = Terminal(soft_wrap=True, width=UNCUT)
    console.print()
    console.print(publication_table(publication))
    console.print()
    for sentence in list_shortfalls(publication):
        console.print(sentence)
    for note in list_notes(publication):
        console.print(f"Note: {note}", style="yellow")
    console.print(f"\nMade {', '.join(map(str, paths))}")


def write_publication(publication: Publication, out: Path) -> list[Path]:
    """Write all files of a publication into a directory, and return them.

    Raises:
        LabError: a file exists that no earlier publication of the same directory wrote.
    """
    from lab.analysis.pages import AGGREGATES, picture_name, write_markdown, write_page
    from lab.analysis.plot_experiment import plot_experiment
    from lab.analysis.plot_published import plot_environment
    from lab.analysis.published_across import group_results, plot_groups
    from lab.analysis.published_tables import results_csv, results_json

    groups = group_results(publication)
    pictures = {env: plot_environment(publication, env) for env in publication.environments}
    pictures |= {name: plot_experiment(experiment) for name, experiment in publication.experiments.items()}
    if groups:
        pictures = {AGGREGATES: plot_groups(groups), **pictures}
    files = {
        "results.csv": results_csv(publication).encode(errors="backslashreplace"),
        "results.md": write_markdown(publication, groups).encode(errors="backslashreplace"),
        "report.html": write_page(publication, groups, pictures).encode(errors="backslashreplace"),
        **{picture_name(name): picture for name, picture in pictures.items()},
    }
    results, of = out / "results.json", os.path.relpath(publication.path.resolve(), out.resolve())
    _refuse_foreign(results, [out / name for name in files], of)
    write_json(results, {**results_json(publication), OF: of})
    (out / picture_name("")).parent.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(out / name, content)
    return [results, *(out / name for name in files)]


def _refuse_foreign(results: Path, others: list[Path], of: str) -> None:
    """Raise LabError if a file would be overwritten that no earlier publication of the same directory wrote."""
    existing = next((path for path in (results, *others) if os.path.lexists(path)), None)
    try:
        earlier = read_json(results).get(OF) if existing else of
    except LabError:
        earlier = None
    if earlier != of:
        why = (
            f"{results.parent} holds the results of {os.path.normpath(results.parent / earlier)}"
            if isinstance(earlier, str)
            else f"{existing} exists, and does not say that an earlier `publish` of the same directory wrote it"
        )
        raise LabError(f"{why}; nothing is overwritten: choose another out=DIR, or move it away.")


def publication_table(publication: Publication) -> Table:
    """Return a table with a row for each Trial: its mean return, and the peer's."""
    from rich.table import Table
    from rich.text import Text

    from lab.analysis.published_tables import table as published_table

    columns, rows = published_table(publication)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        left = column in ("environment", "algorithm", "settings", "verdict")
        table.add_column(Text(column), justify="left" if left else "right", no_wrap=True)
    for row in rows:
        style = STYLES.get(row[-1].split()[-1], "")
        table.add_row(*map(Text, row[:-1]), Text(row[-1], style=style))
    return table
