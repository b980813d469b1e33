"""An Experiment: Trials over hyperparameters, run as fast as there is room, until all of its points are done.

This process controls: it asks for points, launches Sessions, reads their directories, decides on pruning. It trains
nothing itself, and all that it must remember is in the run directory, so that it may be killed at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Protocol

from lab.errors import LabError
from lab.interruption import stop_signals
from lab.run_dir import SweepDir, TrialDir
from lab.trial import Job, Point, Trial

if TYPE_CHECKING:
    from lab.analysis.objective import Objective
    from lab.study import Outcome, Study
    from lab.tree import Tree

INTERRUPTED = "interrupted"  # why an Experiment stopped that was asked to
TICK = 0.25  # seconds between looks at the run directories
LEFTOVER_SECONDS = 60.0  # how long to wait for Sessions whose sweep was killed; they end by themselves
FEWEST_ENDED = 4  # Sessions that must have ended before a rate of failures means anything


class Launch(Protocol):
    """Runs jobs and returns, for each, null or why it has no result; called from several threads."""

    def __call__(self, jobs: list[Job]) -> Sequence[str | None]:
        """Run jobs."""


@dataclass
class Plan:
    """What a sweep is to run.

    Attributes:
        directory: where.
        alone: whether it is a Trial that stands alone; its directory is that of the sweep then.
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
    """

    directory: SweepDir
    alone: bool
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

    def trial(self, number: int, point: Point) -> Trial:
        """Return the Trial at a point."""
        directory = TrialDir(self.directory.path) if self.alone else self.directory.trial(number)
        subdir = "" if self.alone else directory.path.name
        return Trial(directory, self.fixed, point, self.seeds, subdir)

    def begun(self) -> list[Trial]:
        """Return the Trials that an earlier process began, by number."""
        directories = [TrialDir(self.directory.path)] if self.alone else self.directory.trials()
        found = [directory.read_point() for directory in directories if directory.point.exists()]
        trials = [self.trial(one["number"], Point(one["words"], one["hyperparameters"])) for one in found]
        for trial in trials:
            trial.retry = self.retry
        return trials


@dataclass
class Experiment:
    """The Trials of a plan while they run.

    Attributes:
        plan: what to run.
        study: where points come from, and what prunes; null for a grid without a pruner.
        objective: what the study is told.
        launch: runs jobs.
        tree: what the terminal shows.
        stop_launcher: lets the launcher start nothing more.
        draw: draws a Trial that has ended, without making the others wait.
        stopped: why it ended before its plan was done, if it did.
    """

    plan: Plan
    study: Study | None
    objective: Objective
    launch: Launch
    tree: Tree
    stop_launcher: Callable[[], None] = lambda: None
    draw: Callable[[TrialDir], None] = lambda directory: None
    stopped: str | None = None
    _running: dict[Future[Sequence[str | None]], tuple[Trial, list[Job]]] = field(default_factory=dict)
    _lingering: list[Trial] = field(default_factory=list)  # whose launcher gave up while Sessions of theirs still run
    _looked: dict[int, int] = field(default_factory=dict)  # the last rung at which the pruner looked, by Trial
    _ended: list[str] = field(default_factory=list)  # states of the Sessions that this process saw to their end

    def open(self) -> None:
        """Take in what an earlier process left in the directory.

        Raises:
            LabError: Sessions of an earlier process still run, or the study cannot go on.
        """
        begun = self.plan.begun()
        wait_for_leftovers(begun)
        outcomes = {trial.number: self.outcome(trial) for trial in begun}
        if self.study:
            self.study.open(outcomes)
        self.tree.adopt({trial.number: (trial, outcomes[trial.number]) for trial in begun})
        self._waiting = [trial for trial in begun if trial.left()]
        # Of these some Sessions are done, and to prune the rest would take a whole Trial out of the ranking.
        self._looked = {trial.number: self.plan.rungs for trial in begun if "completed" in trial.states().values()}
        self._next = max((trial.number + 1 for trial in begun), default=0)

    def run(self) -> None:
        """Run all Trials that are not done.

        Raises:
            KeyboardInterrupt: on a second request to stop; jobs may still run then.
            LabError: the search space gave no point.
        """
        pool = ThreadPoolExecutor(self.plan.parallel)
        try:
            with self.tree, stop_signals() as stop:
                while self._step(pool, stop):
                    pass
        except BaseException:
            # Whatever it is, what runs is to end too; the threads that wait for it would keep this process.
            self.stop("it could not go on")
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _step(self, pool: ThreadPoolExecutor, stop: Callable[[], bool]) -> bool:
        """Do what there is to do now; false once nothing is left."""
        while not self.stopped and not stop() and len(self._running) < self.plan.parallel:
            trial = self._next_trial()
            if trial is None:
                break
            self.tree.begin(trial)
            jobs = trial.jobs(self.plan.stack)
            self._running[pool.submit(self.launch, jobs)] = trial, jobs
        if not self._running and not self._lingering:
            return False
        if self._running:
            wait(self._running, timeout=TICK, return_when=FIRST_COMPLETED)
        else:
            sleep(TICK)
        if stop() and not self.stopped:
            self.stop(INTERRUPTED)
        for future in [future for future in self._running if future.done()]:
            self._take_back(*self._running.pop(future), future.result())
        for trial in self._lingering[:]:
            if not trial.runs:
                self._lingering.remove(trial)
                self._conclude(trial)
        if self.stopped:
            self._ask_to_stop()
        elif self.study and self.plan.prune:
            for trial, _ in self._running.values():
                self._look(trial, self.study)
        self.tree.update()
        return True

    def _take_back(self, trial: Trial, jobs: list[Job], reasons: Sequence[str | None]) -> None:
        """See to it that every Session of jobs that are over has an end, unless they were asked to stop."""
        for job, reason in zip(jobs, reasons, strict=True):
            if not self.stopped:
                trial.close(job.seeds, reason)
            states = trial.states()
            self._ended += [states[seed] for seed in job.seeds]
        self._lingering.append(trial)

    def _next_trial(self) -> Trial | None:
        """Return the next Trial to run: one that was begun earlier, or the next point."""
        if self._waiting:
            trial = self._waiting.pop(0)
        elif self._next >= self.plan.total:
            return None
        else:
            number, values = self.study.ask() if self.study else (self._next, {})
            assert number == self._next, "points are numbered without a gap"
            points = self.plan.points
            trial = self.plan.trial(number, self.plan.searched(values) if points is None else points[number])
            self._next = number + 1
        trial.begin()
        return trial

    def _conclude(self, trial: Trial) -> None:
        from lab.analysis import analyse_trial

        outcome = self.outcome(trial)
        if self.study and outcome.state != "running":
            self.study.tell(trial.number, outcome)
        try:
            analyse_trial(trial.directory)
        except (LabError, OSError) as error:
            self.tree.say(f"The figures of {trial.directory.path} could not be made: {error}")
        self.draw(trial.directory)
        self.tree.end(trial, outcome)
        ended, failed = len(self._ended), self._ended.count("failed")
        if not self.stopped and ended >= FEWEST_ENDED and failed / ended > self.plan.max_failure_rate:
            self.stop(f"{failed} of {ended} Sessions failed, more than max_failure_rate={self.plan.max_failure_rate}")

    def stop(self, reason: str) -> None:
        """Begin nothing more, and ask what runs to end with everything written."""
        self.stopped = reason
        self.stop_launcher()
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        for trial in [*(trial for trial, _ in self._running.values()), *self._lingering]:
            trial.ask_to_stop("interrupted", f"the sweep was stopped: {self.stopped}")

    def outcome(self, trial: Trial) -> Outcome:
        """Read from its files how a Trial stands."""
        from lab.analysis.rungs import values_at_rungs
        from lab.analysis.trial import read_trial
        from lab.study import Outcome

        found = read_trial(trial.directory)
        rungs = values_at_rungs(found, self.objective, self.plan.rungs) if self.plan.prune else {}
        if trial.left():
            return Outcome("running", None, rungs)
        if found.state != "completed":
            return Outcome(found.state, None, rungs)
        try:
            return Outcome("completed", self.objective.values(found), rungs)
        except LabError:
            return Outcome("failed", None, rungs)

    def _look(self, trial: Trial, study: Study) -> None:
        """Let the pruner look at a Trial that has come to another rung; it is spared once one of its Sessions ended."""
        from lab.analysis.rungs import read_values_at

        rungs = self.plan.rungs
        first = self._looked.get(trial.number, 0) + 1
        last = min(int(self.tree.share(trial) * rungs), rungs - 1)
        if last < first or not {"pending", "running"}.issuperset(trial.states().values()):
            return
        self._looked[trial.number] = last
        for rung, value in read_values_at(list(trial.sessions().values()), self.objective, first, last, rungs).items():
            if study.report(trial.number, rung, value):
                trial.ask_to_stop("pruned", f"pruned at rung {rung} of {rungs}: {self.tree.figures([value])}")
                return


def wait_for_leftovers(trials: Sequence[Trial]) -> None:
    """Wait until Sessions that an earlier process launched run no more.

    Raises:
        LabError: they go on and on.
    """
    patience = monotonic() + LEFTOVER_SECONDS
    for trial in trials:
        while trial.runs:
            if monotonic() > patience:
                raise LabError(
                    f"{trial.directory.path} holds Sessions that another process still trains."
                    " Wait until they have ended, or stop that process."
                )
            sleep(TICK)
