"""The objective of a Trial part of the way: what a pruner looks at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lab.analysis.objective import Objective
from lab.analysis.session import Tables, read_tables, session_results
from lab.analysis.statistics import aggregate
from lab.analysis.trial import Trial
from lab.errors import LabError
from lab.run_dir import RunDir


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
    return aggregate(np.array(values, float), objective.aggregate) if values else None


def read_value_at(directories: list[RunDir], objective: Objective, share: float) -> float | None:
    """Return the same for Sessions that may still be writing; null too if a file cannot be read at this moment."""
    try:
        return value_at([read_tables(directory) for directory in directories], objective, share)
    except LabError:
        return None


def values_at_rungs(trial: Trial, objective: Objective, rungs: int) -> dict[int, float]:
    """Return the objective of a Trial at each rung that all of its Sessions have come to."""
    tables = [session.tables for session in trial.sessions]
    if any(table is None for table in tables):
        return {}
    known = [table for table in tables if table is not None]
    found = {rung: value_at(known, objective, rung / rungs) for rung in range(1, rungs)}
    return {rung: value for rung, value in found.items() if value is not None}
