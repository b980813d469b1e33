"""What a sweep is to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.run.directory import SweepDir, TrialDir
from lab.run.files import plain
from lab.trial import Point, Trial


@dataclass
class SweepPlan:
    """What a sweep is to run.

    Attributes:
        directory: where.
        standalone: whether it is a Trial alone; its directory is that of the sweep then.
        fixed: overrides that every Session has.
        seeds: of each Trial.
        points: of a grid, by number; null for a search.
        total: Trials in all.
        stack: Sessions that one process trains in lockstep, at most.
        parallel: Trials that run at the same time, at most.
        rungs: equal shares of a Session after which the pruner looks.
        prune: whether there is a pruner.
        searched: makes the point of what a search suggests by key.
        max_failure_rate: share of failed Sessions above which to stop.
        retry: whether Sessions that failed are run again.
        hung_after: minutes without a step after which a job is killed; null for never.
        detach: whether to launch all that there is room for, and not to wait for it.
        note: what is to be said of the points before they are run.
    """

    directory: SweepDir
    standalone: bool
    fixed: list[str]
    seeds: list[int]
    points: list[Point] | None
    total: int
    stack: int
    parallel: int
    rungs: int
    prune: bool
    searched: Callable[[dict[str, Any]], Point]
    max_failure_rate: float
    retry: bool = False
    hung_after: float | None = None
    detach: bool = False
    note: str = ""

    def trial(self, number: int, point: Point) -> Trial:
        """Return the Trial at a point."""
        directory = TrialDir(self.directory.path) if self.standalone else self.directory.trial(number)
        subdir = "" if self.standalone else directory.path.name
        return Trial(directory, self.fixed, point, self.seeds, subdir)

    def started(self) -> list[Trial]:
        """Return the Trials that an earlier process began, by number."""
        directories = [TrialDir(self.directory.path)] if self.standalone else self.directory.trials()
        found = [directory.read_point() for directory in directories if directory.point.exists()]
        trials = [self.trial(one["number"], Point(one["overrides"], plain(one["hyperparameters"]))) for one in found]
        for trial in trials:
            trial.retry = self.retry
        return trials
