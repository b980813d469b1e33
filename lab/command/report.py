"""`python -m lab report DIR`: make the figures and the plot of a run directory again, from its files."""

from __future__ import annotations

from pathlib import Path

from lab.analysis import analyse_session
from lab.command.enjoy import find_session

USAGE = """Usage: python -m lab report DIR

  DIR   the run directory of a Session, finished or not; its session.json and session.png are made again"""


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: the directory is not that of a Session, or its files cannot be read.
    """
    if len(words) != 1 or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    directory = find_session(Path(words[0]), "report")
    analyse_session(directory)
    print(f"Made {directory.results} and {directory.plot}")
