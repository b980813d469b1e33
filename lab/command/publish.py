"""`python -m lab publish DIR`: build what is published of Trials, held against what somebody else published."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import spec as specs
from lab.common.terminal import Terminal
from lab.errors import LabError
from lab.run.files import read_json, write_atomically, write_json, write_text

if TYPE_CHECKING:
    from rich.table import Table

    from lab.analysis.published import Publication

USAGE = """Usage: python -m lab publish DIR [key=value ...]

  DIR            a directory that holds Trials and Experiments, each in a sub-directory
  out=results    the directory to write results.json, results.csv, results.md, report.html and a picture for each
                 environment and each Experiment into
  against=FILE   a CSV of figures to be held against, with the columns algo, env, frames and return"""

RESULTS = {"*": {"*": {"frames": int}}}  # what results.json holds, by environment and algorithm
STYLES = {"better": "green", "worse": "red"}
WIDTH = 1000  # columns that the table may take


@dataclass
class Options:
    """What can follow the directory, as key=value."""

    out: str = "results"
    against: str = ""


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: the words are not understood, there is no Trial, or a file cannot be read.
    """
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    options = specs.arguments(Options, words[1:], "publish")

    from lab.analysis.published import notes, read_benchmark, read_publication, shortfalls

    against = read_benchmark(Path(options.against)) if options.against else None
    publication = read_publication(Path(words[0]), against)
    made = write(publication, Path(options.out))
    # A result is meant to be copied and searched for: it is never cut to the width of a terminal.
    console = Terminal(soft_wrap=True, width=WIDTH)
    console.print()
    console.print(table(publication))
    console.print()
    for sentence in shortfalls(publication):
        console.print(sentence)
    for note in notes(publication):
        console.print(f"Note: {note}", style="yellow")
    console.print(f"\nMade {', '.join(map(str, made))}")


def require_own(results: Path, others: list[Path]) -> None:
    """Raise LabError if a file is there that would be written over, and `publish` did not write it.

    Args:
        results: results.json, by which an earlier publication is known.
        others: the other files.
    """
    there = [path for path in (results, *others) if os.path.lexists(path)]
    try:
        own = all("frames" in figures for env in read_json(results, RESULTS).values() for figures in env.values())
    except LabError:
        own = False
    if there and not own:
        raise LabError(
            f"{there[0]} is there already, and not by an earlier `publish` into {results.parent}:"
            " choose another out=DIR, or move it away."
        )


def write(publication: Publication, out: Path) -> list[Path]:
    """Write all files of a publication into a directory, and return them."""
    from lab.analysis.page_published import picture_name, write_markdown, write_page
    from lab.analysis.plot_experiment import plot_experiment
    from lab.analysis.plot_published import plot_environment
    from lab.analysis.published import results_csv, results_json

    pictures = {env: plot_environment(publication, env) for env in publication.environments}
    pictures |= {name: plot_experiment(experiment) for name, experiment in publication.experiments.items()}
    names = ("results.json", "results.csv", "results.md", "report.html")
    results, rows, markdown, page = (out / name for name in names)
    require_own(results, [rows, markdown, page, *(out / picture_name(shown) for shown in pictures)])
    write_json(results, results_json(publication))
    write_text(rows, results_csv(publication))
    write_text(markdown, write_markdown(publication))
    write_text(page, write_page(publication, pictures))
    for shown, picture in pictures.items():
        write_atomically(out / picture_name(shown), picture)
    return [results, rows, markdown, page, *(out / picture_name(shown) for shown in pictures)]


def table(publication: Publication) -> Table:
    """Return a row for each Trial: its mean return, and what it is held against."""
    from rich.table import Table
    from rich.text import Text

    from lab.analysis.card import environment
    from lab.analysis.wording import estimated, number, of_sessions

    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("environment", no_wrap=True)
    made.add_column("algorithm", no_wrap=True)
    for column in ("frames", "completed", "return", "frames to solve"):
        made.add_column(column, justify="right", no_wrap=True)
    against = publication.against
    if against:
        made.add_column(Text(against.name), justify="right", no_wrap=True)
        made.add_column("difference", justify="right", no_wrap=True)
        made.add_column("", no_wrap=True)
    for result in publication.ordered():
        trial, solved = result.trial, result.figures.get("frames_to_solve")
        cells = [environment(trial.spec), result.algo, f"{result.frames:,}", of_sessions(trial), estimated(result.mean)]
        some = f" ({solved['n']} of {len(trial.completed)})" if solved and solved["n"] < len(trial.completed) else ""
        cells.append(number(solved["mean"]["value"], "frames_to_solve") + some if solved else "-")
        if against:
            cells += [number(result.peer.value) if result.peer else "-", number(result.difference)]
        style = STYLES.get(result.verdict or "", "")
        made.add_row(*map(Text, cells), *([Text(result.verdict or "", style=style)] if against else []))
    return made
