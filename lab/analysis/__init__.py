"""Analysis: pure functions of the files of a run directory. Nothing of training is imported here."""

from __future__ import annotations

from lab.run_dir import RunDir, write_atomically, write_json


def analyse_session(directory: RunDir) -> None:
    """Write session.json and session.png from the tables of a Session, finished or not.

    Raises:
        LabError: the directory is not that of a Session.
    """
    from lab.analysis.plot import plot_session
    from lab.analysis.results import read_tables, session_results

    tables = read_tables(directory)
    write_json(directory.results, session_results(tables))
    write_atomically(directory.plot, plot_session(tables))
