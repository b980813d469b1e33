"""`python -m lab report DIR`: make the metrics and pictures of a run directory again, from its files."""

from __future__ import annotations

from pathlib import Path

from lab.analysis import analyze
from lab.command.options import NoOptions, command
from lab.errors import visible
from lab.run.directory import SweepDir, find_level
from lab.sweep.drawing import draw_trials
from lab.sweep.summary import print_summary

NOTES = """The files are session.json and session.png of a Session; trial.json, trial.png and, unless it is part of an
Experiment, card.md of a Trial; experiment.json, trials.csv, experiment.png, report.html, and trial.json and trial.png
of every Trial of an Experiment."""


@command("the run directory of a Session, a Trial or an Experiment, finished or not", notes=NOTES)
def main(path: Path, options: NoOptions) -> None:
    """Make the metrics and pictures of a run directory again.

    Raises:
        LabError: the directory is no run directory, or its files cannot be read.
    """
    made = analyze(path)
    level = find_level(path)
    if level != "session":
        print_summary(path)
    print(visible("\nMade " + ", ".join(map(str, made))))
    if level == "experiment":
        draw_trials(SweepDir(path), again=True)
