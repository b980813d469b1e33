"""The objective of a Trial part of the way: what a pruner looks at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lab.analysis.objective import Objective
from lab.analysis.session import Tables, read_tables, session_results
from lab.analysis.statistics import LEAST
from lab.analysis.trial import Trial
from lab.errors import LabError
from lab.run.directory import RunDir


def value_at(tables: list[Tables], objective: Objective, share: float) -> float | None:
    """Return the objective's first metric, over Sessions, of what they had written at a share of their frames.

    Args:
        tables: of each Session.
        objective: what to compute.
        share: of the frames asked for, from 0 to 1.

    Returns:
        Null if a Session has not come so far, or has no such figure there.
    """
    values = []
    for table in tables:
        frame = share * table.spec["frames"]
        if table.metrics["frame"].max() < frame or not len(table.metrics):
            return None
        episodes, metrics = (rows[rows["frame"] <= frame] for rows in (table.episodes, table.metrics))
        value = session_results(replace(table, episodes=episodes, metrics=metrics))[objective.metrics[0]]
        if value is None:
            return None
        values.append(value)
    enough = len(values) >= (LEAST if objective.aggregate == "lower" else 1)
    return objective.over_seeds(np.array(values, float), 0) if enough else None


def read_values_at(
    directories: list[RunDir], objective: Objective, first: int, last: int, rungs: int
) -> dict[int, float]:
    """Return the same for Sessions that still write, at each of some rungs; nothing while a file is not whole."""
    try:
        tables = [read_tables(directory) for directory in directories]
    except LabError:
        return {}
    return values_of(tables, objective, range(first, last + 1), rungs)


def values_of(tables: list[Tables], objective: Objective, wanted: range, rungs: int) -> dict[int, float]:
    """Return the objective at those of the rungs wanted that have one."""
    found = {rung: value_at(tables, objective, rung / rungs) for rung in wanted}
    return {rung: value for rung, value in found.items() if value is not None}


def values_at_rungs(trial: Trial, objective: Objective, rungs: int) -> dict[int, float]:
    """Return the objective of a Trial at each rung that all of its Sessions have come to."""
    tables = [session.tables for session in trial.sessions]
    if any(table is None for table in tables):
        return {}
    return values_of([table for table in tables if table is not None], objective, range(1, rungs), rungs)
