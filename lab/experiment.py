"""An Experiment: Trials over hyperparameters, several at a time, until every point of the plan is done.

This process is the controller. It asks for points, launches jobs, reads run directories and decides on pruning; it
trains nothing itself. All that it must remember is in the run directory, so it can be killed at any moment, and a new
controller with the same plan continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from lab.common.signals import stop_signals
from lab.common.text import plural
from lab.errors import LabError
from lab.run.disk import DiskSpace, failed_on_full_disk
from lab.run.schemas import ENDED
from lab.trial import Job, Outcome, Trial, pack_jobs, states_of

if TYPE_CHECKING:
    from lab.launch.launcher import JobLauncher
    from lab.launch.watchdog import Watchdog
    from lab.sweep.plan import SweepPlan
    from lab.sweep.study import Study
    from lab.sweep.tree import Tree

INTERRUPTED = "interrupted"  # value of Experiment.stopped after Ctrl-C or SIGTERM
POLL_SECONDS = 0.25  # between two readings of the run directories
LEFTOVER_SECONDS = 60.0  # to wait for local jobs of a killed controller, which notice its end and save their Sessions
MIN_ENDED = 4  # Sessions that must have ended before their failure rate is judged


@dataclass
class ActiveTrial:
    """A Trial that was launched."""

    trial: Trial
    jobs: dict[Future[Any], Job]  # jobs with Sessions of it that have not ended
    ended_jobs: list[tuple[Job, str | None]] = field(default_factory=list)  # and the reason if a job has no result

    def close_sessions(self) -> None:
        """Write an end state for every Session of an ended job that wrote none itself."""
        for job, reason in self.ended_jobs:
            self.trial.close(list(job.sessions_of(self.trial.number)), reason)


@dataclass
class Experiment:
    """Runs the Trials of a plan; call `open`, then `run`."""

    plan: SweepPlan
    study: Study | None  # source of points, and pruner; None for a grid without pruning
    launcher: JobLauncher  # runs jobs, here or on a cluster
    tree: Tree  # display on the terminal
    watchdog: Watchdog  # detects jobs that hang
    stopped: str | None = None  # the reason, if it stopped before its plan was done
    _active: list[ActiveTrial] = field(default_factory=list)
    _unfinished: list[Trial] = field(default_factory=list)  # started by an earlier controller, to be launched first
    _next_number: int = 0  # number that the next new Trial gets
    _last_rung: dict[int, int] = field(default_factory=dict)  # last rung at which the pruner judged each Trial
    _spared: set[int] = field(default_factory=set)  # numbers of Trials that are never pruned
    _ended_states: list[str] = field(default_factory=list)  # states of Sessions that ended under this controller

    def __post_init__(self) -> None:
        self._disk_space = DiskSpace(self.plan.directory.path, self.tree.announce)

    def open(self) -> None:
        """Adopt the Trials and jobs that earlier controllers left; a LabError if they cannot be continued."""
        started = self.plan.started()
        in_jobs: dict[int, dict[Future[Any], Job]] = {}
        adopted = self.launcher.adopt()
        for job, future in adopted:
            for number in job.trials:
                in_jobs.setdefault(number, {})[future] = job
        idle = [trial for trial in started if trial.number not in in_jobs]
        wait_for_leftovers(idle)
        for trial in idle:  # the disk was still full when the earlier controller ended
            mark_interrupted_by_full_disk(trial)
        outcomes = self._open_study(started)
        self.tree.adopt({trial.number: (trial, outcomes[trial.number]) for trial in started})
        adopted_trials = [trial for trial in started if trial.number in in_jobs]
        self._active = [ActiveTrial(trial, in_jobs[trial.number]) for trial in adopted_trials]
        launched = {session for job, _ in adopted for session in job.sessions}
        for trial in adopted_trials:  # Sessions that are in none of the adopted jobs are launched again
            trial.start([seed for number, seed in launched if number == trial.number])
        self._launch(adopted_trials, launched)
        self._unfinished = [trial for trial in idle if trial.remaining()]
        self._next_number = max((trial.number + 1 for trial in started), default=0)
        # Pruning a Trial with a completed Session would drop that result from the ranking.
        self._spared = {trial.number for trial in started if "completed" in trial.states().values()}

    def run(self) -> None:
        """Run all Trials that are not done; a second Ctrl-C raises KeyboardInterrupt while jobs may still run."""
        try:
            with self.tree, stop_signals() as self._stop_requested:
                while self._step():
                    pass
        except BaseException:
            self.stop("the controller ended early")  # else threads that wait for jobs would keep this process alive
            raise

    def _step(self) -> bool:
        """Make one pass of the control loop; return False once nothing is left to do."""
        if not self.stopped and not self._stop_requested():
            self._launch_trials()
        if self.plan.settings.detach or not self._active:  # with detach, the first pass has submitted every job
            return False
        futures = [future for active in self._active for future in active.jobs]
        if futures:
            wait(futures, POLL_SECONDS, FIRST_COMPLETED)
        else:  # Sessions may outlive their jobs
            sleep(POLL_SECONDS)
        if self._stop_requested() and not self.stopped:
            self.tree.announce(
                "Interrupted: running Sessions save their work and end. Press Ctrl-C again to kill them."
            )
            self.stop(INTERRUPTED)
        self._collect_finished()
        for active in self._active[:]:
            if not active.jobs and not active.trial.is_running:
                self._finish(active)
        for job in self.watchdog.find_hung({job for active in self._active for job in active.jobs.values()}):
            self.launcher.kill(job)
        if self.stopped:
            self._ask_to_stop()
        elif self.study and self.plan.prune:
            for active in [active for active in self._active if active.jobs]:
                self._retry_on_full_disk(partial(self._prune, active.trial, self.study))
        self.tree.update()
        return True

    def _launch_trials(self) -> None:
        """Start Trials up to the number that may run in parallel, and launch their jobs at once."""
        running = sum(bool(active.jobs) for active in self._active)
        free = self.plan.parallel - running
        left = len(self._unfinished) + self.plan.total - self._next_number
        if running and free < left and free * len(self.plan.seeds) < self.plan.stack:
            return  # the next ones will share a stack with those
        batch: list[Trial] = []
        while len(batch) < free and (trial := self._start_next()):
            batch.append(trial)
            self.tree.start(trial)
        self._active += [ActiveTrial(trial, {}) for trial in batch]
        self._launch(batch)

    def _launch(self, trials: Sequence[Trial], launched: Collection[tuple[int, int]] = ()) -> None:
        """Launch jobs of the remaining Sessions of active Trials, except for those that are in a job already."""
        jobs = pack_jobs(trials, self.plan.stack, self.plan.group, launched)
        active = {active.trial.number: active for active in self._active}
        for job, future in zip(jobs, self.launcher.submit(jobs) if jobs else (), strict=True):
            for number in job.trials:
                active[number].jobs[future] = job

    def _start_next(self) -> Trial | None:
        """Start an unfinished Trial, or one at the next point; return None if there is neither, or no disk space."""
        if not self._unfinished and self._next_number >= self.plan.total:
            return None
        started: list[Trial] = []

        def start() -> None:
            if self._unfinished:
                trial = self._unfinished[0]
            else:
                number, values = self.study.ask() if self.study else (self._next_number, {})
                assert number == self._next_number, "points are numbered without a gap"
                trial = self.plan.trial(number, self.plan.point(number, values))
            if self.study:
                self.study.describe(trial.number, study_attributes(trial))
            trial.start()
            started.append(trial)

        if not self._retry_on_full_disk(start):
            return None
        if self._unfinished:
            self._unfinished.pop(0)
        else:
            self._next_number += 1
        return started[0]

    def _collect_finished(self) -> None:
        """Mark Sessions of ended jobs as failed if they wrote no final state; while stopping they can be resumed."""
        ended = {future: job for active in self._active for future, job in active.jobs.items() if future.done()}
        for future, job in ended.items():
            reason = self.watchdog.reason(job) or self.launcher.error(future)
            trials = [active for active in self._active if active.jobs.pop(future, None)]
            for active in trials:
                active.ended_jobs.append((job, reason))
                if not self.stopped:
                    self._retry_on_full_disk(active.close_sessions)
            states = states_of(job.sessions)
            if not failed_on_full_disk(job.sessions):
                self._ended_states += states.values()
            as_asked = {"pending", "interrupted"} if self.stopped == INTERRUPTED else set()
            if reason and not {*ENDED, *as_asked}.issuperset(states.values()):
                more = f" and {plural(len(trials) - 1, 'more Trial')}" if len(trials) > 1 else ""
                self.tree.say(f"{trials[0].trial.directory.path}{more}: {reason}")

    def _finish(self, active: ActiveTrial) -> None:
        """Tell the study the outcome of a Trial after its last Session ended, and write its metrics."""
        from lab.analysis import analyze_trial

        self._active.remove(active)
        trial, study = active.trial, self.study
        if not self.stopped:
            self._retry_on_full_disk(active.close_sessions)  # again: a Session may have outlived its job
            if self._requeue_after_full_disk(trial):
                return
        outcome = read_outcome(trial, self.plan)
        if study and outcome.state != "running":
            self._retry_on_full_disk(partial(study.tell, trial.number, outcome))
        try:
            analyze_trial(trial.directory)
        except (LabError, OSError) as error:
            self.tree.announce(f"The metrics of {trial.directory.path} could not be made: {error}")
        self.tree.end(trial, outcome)
        ended, failed = len(self._ended_states), self._ended_states.count("failed")
        allowed = self.plan.settings.max_failure_rate
        if not self.stopped and ended >= MIN_ENDED and failed / ended > allowed:
            self.stop(f"{failed} of {plural(ended, 'Session')} failed, more than max_failure_rate={allowed}")

    def _prune(self, trial: Trial, study: Study) -> None:
        """Report a Trial at the rungs it has newly reached, and stop it if the pruner says so.

        A Trial is not pruned any more once one of its Sessions has ended.
        """
        from lab.analysis.objective import read_values_at

        rungs = self.plan.settings.rungs
        first = self._last_rung.get(trial.number, 0) + 1
        last = min(int(self.tree.fraction_done(trial) * rungs), rungs - 1)
        if last < first or trial.number in self._spared or {*trial.states().values()} - {"pending", "running"}:
            return
        self._last_rung[trial.number] = last
        directories, objective = [*trial.sessions().values()], self.plan.objective
        for rung, value in read_values_at(directories, objective, first, last, rungs).items():
            if study.report(trial.number, rung, value):
                trial.ask_to_stop("pruned", f"pruned at rung {rung} of {rungs}: {self.tree.format_values([value])}")
                return

    def stop(self, reason: str) -> None:
        """Start nothing more, and ask what runs to write everything and end."""
        self.stopped = reason
        self._ask_to_stop()
        self.launcher.stop()

    def _ask_to_stop(self) -> None:
        for active in self._active:
            with suppress(OSError):  # the disk may be full; the launcher asks as well
                active.trial.ask_to_stop("interrupted", f"the sweep was stopped: {self.stopped}")

    def _open_study(self, started: Sequence[Trial]) -> dict[int, Outcome]:
        """Open the study with the current outcome of each Trial; return the outcomes by number."""
        outcomes = {trial.number: read_outcome(trial, self.plan) for trial in started}
        if self.study:
            self.study.open(outcomes)
        return outcomes

    def _retry_on_full_disk(self, action: Callable[[], None]) -> bool:
        """Write something; while the disk is full, wait and try again. Return False if asked to stop meanwhile."""

        def recover() -> None:  # the action may have written half of its changes to the study
            self._open_study(self.plan.started())
            self._last_rung.clear()

        return self._disk_space.attempt(action, recover, self._stop_requested)

    def _requeue_after_full_disk(self, trial: Trial) -> bool:
        """Requeue a Trial whose Sessions failed because the disk was full, once there is space; False for others."""
        stop = self._stop_requested
        if (
            failed_on_full_disk(trial.sessions())
            and self._disk_space.wait(stop)
            and self._retry_on_full_disk(partial(mark_interrupted_by_full_disk, trial))
        ):
            self._unfinished.insert(0, trial)
            return True
        return False


def mark_interrupted_by_full_disk(trial: Trial) -> None:
    """Let the Sessions of a Trial that failed because the disk was full resume from their checkpoints."""
    for session in failed_on_full_disk(trial.sessions()):
        session.mark_interrupted()


def wait_for_leftovers(trials: Sequence[Trial]) -> None:
    """Wait until the Sessions that a killed controller launched have ended; a LabError if that takes too long."""
    deadline = monotonic() + LEFTOVER_SECONDS
    for trial in trials:
        while trial.is_running:
            if monotonic() > deadline:
                problem = f"{trial.directory.path} holds Sessions that another process still trains."
                raise LabError(f"{problem} Wait until they have ended, or stop that process.")
            sleep(POLL_SECONDS)


def read_outcome(trial: Trial, plan: SweepPlan) -> Outcome:
    """Read the outcome of a Trial from its files."""
    from lab.analysis.objective import values_at_rungs
    from lab.analysis.trial import read_trial

    ranked = trial.directory.number is not None and plan.settings.only_trial is None
    results = read_trial(trial.directory, as_planned=ranked)
    rungs = values_at_rungs(results, plan.objective, plan.settings.rungs) if plan.prune else {}
    state = "running" if trial.remaining() else results.state
    attributes = study_attributes(trial, state)
    if state != "completed":
        return Outcome(state, None, rungs, attributes)
    try:
        values = plan.objective.values(results)
    except LabError:  # a Session lacks a metric of the objective
        return Outcome("failed", None, rungs, attributes)
    for metric, ends in zip(plan.objective.metrics, plan.objective.intervals(results), strict=True):
        attributes[f"95 % interval of {metric}"] = ends
    return Outcome("completed", values, rungs, attributes)


def study_attributes(trial: Trial, state: str = "running") -> dict[str, Any]:
    """Return what a dashboard shows of a Trial, whose directory is relative to that of the sweep."""
    return {"directory": trial.directory.path.name, "state": state, "seeds": list(trial.seeds)}
