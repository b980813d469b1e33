"""`python -m lab report DIR`: make the figures and pictures of a run directory again, from its files."""

from __future__ import annotations

from pathlib import Path

from lab.analysis import analyze
from lab.errors import visible
from lab.run.directory import find_level
from lab.sweep.summary import print_summary

USAGE = """Usage: python -m lab report DIR

  DIR   the run directory of a Session, a Trial or an Experiment, finished or not

Of a Session, session.json and session.png are made again; of a Trial, trial.json, trial.png and, if it is not one of
an Experiment, card.md; of an Experiment, experiment.json, trials.csv, experiment.png, report.html and the trial.json of
every Trial."""


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: the directory is no run directory, or its files cannot be read.
    """
    if len(words) != 1 or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    path = Path(words[0])
    made = analyze(path)
    if find_level(path) != "session":
        print_summary(path)
    print(visible("\nMade " + ", ".join(map(str, made))))
