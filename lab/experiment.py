"""An Experiment: Trials over hyperparameters, run as fast as there is room, until all of its points are done.

This process controls: it asks for points, launches Sessions, reads their directories, decides on pruning. It trains
nothing itself, and all that it must remember is in the run directory, so that it may be killed at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from lab.common.signals import stop_signals
from lab.errors import LabError
from lab.run.directory import TrialDir
from lab.run.disk import DiskSpace, failed_on_full_disk
from lab.run.schemas import ENDED
from lab.trial import Job, Trial, states_of

if TYPE_CHECKING:
    from lab.analysis.objective import Objective
    from lab.launch.launcher import JobLauncher
    from lab.launch.watchdog import Watchdog
    from lab.sweep.plan import SweepPlan
    from lab.sweep.study import Study
    from lab.sweep.tree import Tree

INTERRUPTED = "interrupted"  # why an Experiment stopped that was asked to
TICK = 0.25  # seconds between looks at the run directories
LEFTOVER_SECONDS = 60.0  # how long to wait for Sessions whose sweep was killed; they end by themselves
FEWEST_ENDED = 4  # Sessions that must have ended before a rate of failures means anything


@dataclass
class Outcome:
    """How a Trial stands, as its files tell.

    Attributes:
        state: completed (all that the objective needs is there), failed, pruned or running.
        values: of the objectives, if it completed.
        rungs: value of the objective by rung, as far as it was looked at.
    """

    state: str
    values: list[float] | None = None
    rungs: dict[int, float] = field(default_factory=dict)


@dataclass
class Running:
    """A Trial whose jobs were launched.

    Attributes:
        trial: the Trial.
        jobs: those of its jobs that are not over.
        over: the others, with why they have no result.
    """

    trial: Trial
    jobs: dict[Future[Any], Job]
    over: list[tuple[Job, str | None]] = field(default_factory=list)

    def close(self) -> None:
        """See to it that every Session of jobs that are over has an end."""
        for job, reason in self.over:
            self.trial.close(list(job.sessions), reason)


@dataclass
class Experiment:
    """The Trials of a plan while they run.

    Attributes:
        plan: what to run.
        study: where points come from, and what prunes; null for a grid without a pruner.
        objective: what the study is told.
        launcher: runs jobs.
        tree: what the terminal shows.
        watchdog: finds jobs that hang.
        draw: draws a Trial that has ended, without making the others wait.
        stopped: why it ended before its plan was done, if it did.
    """

    plan: SweepPlan
    study: Study | None
    objective: Objective
    launcher: JobLauncher
    tree: Tree
    watchdog: Watchdog
    draw: Callable[[TrialDir], None] = lambda directory: None
    stopped: str | None = None
    _running: list[Running] = field(default_factory=list)
    _lingering: list[Running] = field(default_factory=list)  # whose launcher gave up while Sessions of theirs still run
    _looked: dict[int, int] = field(default_factory=dict)  # the last rung at which the pruner looked, by Trial
    _ended: list[str] = field(default_factory=list)  # states of the Sessions that this process saw to their end

    def __post_init__(self) -> None:
        self._disk_space = DiskSpace(self.plan.directory.path, self.tree.announce)

    def open(self) -> None:
        """Take in what an earlier process left in the directory.

        Raises:
            LabError: Sessions of an earlier process still run, or the study cannot go on.
        """
        begun = self.plan.started()
        adopted = self.launcher.adopt()
        for trial in begun:
            jobs = {future: job for job, future in adopted if job.trial == trial.number}
            if jobs:
                self._running.append(Running(trial, jobs))
        wait_for_leftovers([trial for trial in begun if trial not in self._adopted()])
        outcomes = self._open_study(begun)
        self.tree.adopt({trial.number: (trial, outcomes[trial.number]) for trial in begun})
        for running in self._running:  # what is in no job that goes on is launched again
            launched = [seed for job in running.jobs.values() for seed in job.sessions]
            running.trial.start(launched)
            left = running.trial.jobs(self.plan.stack, launched)
            running.jobs |= zip(self.launcher.submit(left), left, strict=True)
        self._waiting = [trial for trial in begun if trial.remaining() and trial not in self._adopted()]
        # Of these some Sessions are done, and to prune the rest would take a whole Trial out of the ranking.
        self._looked = {trial.number: self.plan.rungs for trial in begun if "completed" in trial.states().values()}
        self._next = max((trial.number + 1 for trial in begun), default=0)

    def _open_study(self, begun: Sequence[Trial]) -> dict[int, Outcome]:
        """Let the study begin, or begin anew, with how Trials stand now; return that by their numbers."""
        outcomes = {trial.number: self.outcome(trial) for trial in begun}
        if self.study:
            self.study.open(outcomes)
        return outcomes

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Do what writes, and again when a full disk has room; false if it was to stop before that."""

        def recover() -> None:
            self._open_study(self.plan.started())
            self._looked = {number: rung for number, rung in self._looked.items() if rung == self.plan.rungs}

        return self._disk_space.attempt(action, recover, self._asked)

    def _adopted(self) -> list[Trial]:
        return [running.trial for running in self._running]

    def run(self) -> None:
        """Run all Trials that are not done.

        Raises:
            KeyboardInterrupt: on a second request to stop; jobs may still run then.
            LabError: the search space gave no point.
        """
        try:
            with self.tree, stop_signals() as stop:
                self._asked = stop
                while self._step(stop):
                    pass
        except BaseException:
            # Whatever it is, what runs is to end too; the threads that wait for it would keep this process.
            self.stop("it could not go on")
            raise

    def _step(self, stop: Callable[[], bool]) -> bool:
        """Do what there is to do now; false once nothing is left."""
        if not self.stopped and not stop():
            self._launch()
        if self.plan.detach or not (self._running or self._lingering):
            return False
        futures = [future for running in self._running for future in running.jobs]
        if futures:
            wait(futures, timeout=TICK, return_when=FIRST_COMPLETED)
        else:
            sleep(TICK)
        if stop() and not self.stopped:
            self.tree.announce("Interrupted: what runs ends with everything written. Ctrl-C again ends it at once.")
            self.stop(INTERRUPTED)
        for running in self._running[:]:
            self._take_back(running)
        for job in self.watchdog.find_hung([job for running in self._running for job in running.jobs.values()]):
            self.launcher.kill(job)
        for running in self._lingering[:]:
            if not running.trial.runs:
                self._lingering.remove(running)
                if not self.stopped:
                    self._attempt(running.close)
                self._conclude(running.trial)
        if self.stopped:
            self._ask_to_stop()
        elif self.study and self.plan.prune:
            for trial in self._adopted():
                self._attempt(partial(self._look, trial, self.study))
        self.tree.update()
        return True

    def _launch(self) -> None:
        """Launch the jobs of as many Trials as may run at the same time, all at once."""
        begun: list[tuple[Trial, list[Job]]] = []
        while len(self._running) + len(begun) < self.plan.parallel:
            before = len(begun)
            if not self._attempt(partial(self._begin_next, begun)) or len(begun) == before:
                break
            self.tree.start(begun[-1][0])
        futures = iter(self.launcher.submit([job for _, jobs in begun for job in jobs]) if begun else ())
        for trial, jobs in begun:
            self._running.append(Running(trial, {next(futures): job for job in jobs}))

    def _take_back(self, running: Running) -> None:
        """See to it that every Session of jobs that are over has an end, unless they were asked to stop."""
        for future in [future for future in running.jobs if future.done()]:
            job = running.jobs.pop(future)
            reason = self.watchdog.reason(job) or self.launcher.error(future)
            running.over.append((job, reason))
            if not self.stopped:
                self._attempt(running.close)
            states = states_of(job.sessions)
            if not failed_on_full_disk(job.sessions):
                self._ended += states.values()
            if reason and not set(ENDED).issuperset(states.values()):
                self.tree.say(f"{running.trial.directory.path}: {reason}")
        if not running.jobs:
            self._running.remove(running)
            self._lingering.append(running)

    def _begin_next(self, begun: list[tuple[Trial, list[Job]]]) -> None:
        """Begin the next Trial, if there is one: one that was begun earlier, or the next point; add it and its jobs."""
        if self._waiting:
            trial = self._waiting[0]
        elif self._next >= self.plan.total:
            return
        else:
            number, values = self.study.ask() if self.study else (self._next, {})
            assert number == self._next, "points are numbered without a gap"
            points = self.plan.points
            trial = self.plan.trial(number, self.plan.searched(values) if points is None else points[number])
        trial.start()
        if self._waiting:
            self._waiting.pop(0)
        else:
            self._next += 1
        begun.append((trial, trial.jobs(self.plan.stack)))

    def _go_on_with_room(self, trial: Trial) -> bool:
        """Let Sessions that failed because the disk was full go on once it has room; false if there are none."""
        if self.stopped or not failed_on_full_disk(trial.sessions()):
            return False
        if not self._disk_space.wait(self._asked) or not self._attempt(partial(interrupt_all, trial)):
            return False
        self._waiting.insert(0, trial)
        return True

    def _conclude(self, trial: Trial) -> None:
        if self._go_on_with_room(trial):
            return
        from lab.analysis import analyze_trial

        outcome = self.outcome(trial)
        study = self.study
        if study and outcome.state != "running":
            self._attempt(partial(study.tell, trial.number, outcome))
        try:
            analyze_trial(trial.directory)
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
        self._ask_to_stop()
        self.launcher.stop()

    def _ask_to_stop(self) -> None:
        for trial in [*self._adopted(), *(running.trial for running in self._lingering)]:
            with suppress(OSError):  # of a full disk; the launcher asks as well
                trial.ask_to_stop("interrupted", f"the sweep was stopped: {self.stopped}")

    def outcome(self, trial: Trial) -> Outcome:
        """Read from its files how a Trial stands."""
        from lab.analysis.rungs import values_at_rungs
        from lab.analysis.trial import read_trial

        found = read_trial(trial.directory)
        rungs = values_at_rungs(found, self.objective, self.plan.rungs) if self.plan.prune else {}
        if trial.remaining():
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
        last = min(int(self.tree.fraction_done(trial) * rungs), rungs - 1)
        if last < first or not {"pending", "running"}.issuperset(trial.states().values()):
            return
        self._looked[trial.number] = last
        for rung, value in read_values_at(list(trial.sessions().values()), self.objective, first, last, rungs).items():
            if study.report(trial.number, rung, value):
                trial.ask_to_stop("pruned", f"pruned at rung {rung} of {rungs}: {self.tree.figures([value])}")
                return


def interrupt_all(trial: Trial) -> None:
    """Let the Sessions of a Trial that failed because the disk was full count as interrupted."""
    for session in failed_on_full_disk(trial.sessions()):
        session.mark_interrupted()


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
