"""A stack: Sessions trained in lockstep by one process. This is the training loop of all algorithms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
import torch

from lab.common.signals import uninterrupted
from lab.env.guard import pop_notices
from lab.env.vector import Spaces, rng_warnings
from lab.run import checkpoint
from lab.run.directory import RunDir
from lab.run.files import write_text
from lab.run.provenance import Provenance
from lab.spec import Spec
from lab.training.display import Display
from lab.training.evaluate import Evaluation
from lab.training.interval import Interval
from lab.training.record import ENDLESS_STEPS, HEARTBEAT_SECONDS, Record, describe_failure
from lab.training.state import StackState


class Stack(StackState):
    """Sessions that differ only in their seed, or in numbers with a decimal point."""

    def __init__(self, specs: list[Spec], directories: list[RunDir], spaces: Spaces) -> None:
        super().__init__(specs, directories, spaces)
        self.seconds = dict.fromkeys(("collect", "learn", "evaluate", "write", "compile"), 0.0)
        self.consistent = True  # whether no learning step was interrupted, so that the state can be saved
        self.lost = False  # whether only files failed
        self.actions: torch.Tensor | None = None  # of the last horizon
        self.logged_frame, self.logged_time, self.heartbeat_time = 0, 0.0, 0.0

    def train(
        self,
        provenance: Provenance,
        stop: Callable[[], bool] = lambda: False,
        states: list[dict[str, Any]] | None = None,
        compositions: list[dict[str, str]] | None = None,
        show: bool = True,
        notes: Sequence[Sequence[str]] = (),
    ) -> list[Record]:
        """Train until the frames are done or `stop` returns True, and return the record of each Session.

        Args:
            provenance: of this process.
            stop: called after each horizon.
            states: the checkpoints that Sessions were restored from; None if they start.
            compositions: how each spec was composed, as texts by file name.
            show: whether to show progress on the terminal.
            notes: warnings for the user, by Session.
        """
        self.stop = stop
        if self.agent.algorithm.compiler:
            self.agent.algorithm.compiler.show = show
        for directory, state in zip(self.directories, states or [], strict=False):
            checkpoint.roll_back(directory, state)
        metrics, count = self.agent.algorithm.metrics, len(self.specs)
        saved: list[Any] = [state["record"] for state in states] if states else [None] * count
        self.records = [
            Record(spec, directory, provenance, metrics, self.frame, state, warnings, count)
            for spec, directory, state, warnings in zip(
                self.specs, self.directories, saved, notes or [()] * count, strict=True
            )
        ]
        for record in self.records:
            for warning in rng_warnings(self.spec.env):
                record.warn(warning)
            if self.agent.algorithm.replay:
                record.log(self.agent.algorithm.replay.description)
        for directory, files in zip(self.directories, compositions or [], strict=False):
            for name, text in files.items():
                write_text(directory.hydra / name, text)
        try:
            with Display(self.specs, show, self.frame) as self.display:
                self.display.print_warnings(dict.fromkeys(text for record in self.records for text in record.warnings))
                self.loop()
            done = self.frame >= self.spec.frames and not self.unfinished_interval
            ending, reason = "completed" if done else "interrupted", None
        except KeyboardInterrupt:  # in the middle of a learning step, so there is no state to continue from
            ending, reason, self.consistent = "interrupted", None, False
        except Exception as error:
            ending, reason = "failed", describe_failure(error, self.directories[0])
            self.lost = isinstance(error, OSError)  # of the disk: errors of environments are caught elsewhere
        with uninterrupted():
            self.end(ending, reason)
        return self.records

    def loop(self) -> None:
        """Collect, learn, evaluate, log and save until the frames are done or `stop` asks for it."""
        self.logged_time = self.saved_time = self.heartbeat_time = perf_counter()
        self.logged_frame = self.frame
        if self.unfinished_interval is None:  # a Session may have been killed before it wrote that it was done
            logged = [s for s in self.collector.alive if self.records[s].row_frame == self.frame]
            self.finish_reached(self.find_reached(logged))
        while self.collector.alive and not self.stop():
            if self.unfinished_interval is None:
                if self.frame >= self.spec.frames:
                    break
                self.unfinished_interval = self.collect_and_learn()
            self.finish_interval(self.unfinished_interval)
        self.finish_failed()

    def collect_and_learn(self) -> Interval:
        """Collect a horizon of steps and learn from it."""
        spec, algorithm = self.spec, self.agent.algorithm
        interval = self.interval_from(self.frame)
        logging = interval.is_due(spec.eval.every) or interval.is_due(spec.log.every)
        with self.timed("collect"):
            rollout = self.collector.collect(self.heartbeat)
        with self.timed("learn"):
            metrics = algorithm.learn(rollout, self.agent.streams, interval.fraction_done, diagnose=logging)
            self.averages.add(metrics)
            self.actions = rollout.action
            # The only time that the host waits for what was learned.
            steps, sums = torch.stack([metrics["steps"], algorithm.parameter_sums()]).tolist()
            self.optimizer_steps += torch.tensor(steps).long()
        self.heartbeat()
        self.log_notices()
        with self.timed("write"):
            for record, episodes in zip(self.records, self.collector.episodes, strict=True):
                if episodes and record.state == "running":
                    record.add_episodes(episodes)
        if interval.is_due(ENDLESS_STEPS * spec.env.num_envs):
            for s in self.collector.alive:
                if self.records[s].mean_return is None:
                    steps, limit = self.frame // spec.env.num_envs, self.envs[s].time_limit
                    self.display.print_warnings(self.records[s].warn_without_return(limit, steps, interval.last))
        for s in self.collector.alive[:]:
            if algorithm.problems and s in algorithm.problems:
                self.collector.fail(s, algorithm.problems[s])
            elif not math.isfinite(sums[s]):
                self.collector.fail(s, "A loss became NaN or infinite, and the parameters with it.")
        return interval

    def finish_interval(self, interval: Interval) -> None:
        """Evaluate, log and save what is due; if `stop` ends the evaluation, the interval stays unfinished."""
        spec = self.spec
        evaluating = interval.is_due(spec.eval.every)
        logging = evaluating or interval.is_due(spec.log.every)
        saving = interval.is_due(spec.checkpoint.every)
        reached = self.find_reached(self.collector.alive) if logging and not interval.last else {}
        evaluations: dict[int, np.ndarray] = {}
        if evaluating or (reached and spec.eval.every):
            with self.timed("evaluate"):
                evaluated = self.evaluate(self.collector.alive if evaluating else [*reached])
            if evaluated is None:
                return
            evaluations = evaluated
        self.unfinished_interval = None
        with self.timed("write"):
            if logging:
                self.log(evaluations)
            if spec.eval.every:
                returns = {s: float(episodes[0].mean()) for s, episodes in evaluations.items()}
            else:
                chosen = self.collector.alive if saving else [*reached]
                returns = {s: value for s in chosen if (value := self.records[s].mean_return) is not None}
            if returns:
                self.save_best(returns)
            if saving and not interval.ends_plan:
                self.renew_environments()
            minutes = spec.checkpoint.minutes
            old = minutes is not None and perf_counter() - self.saved_time >= 60 * minutes
            if saving or (self.restore_method != "reset" and old):
                self.save(self.collector.alive)
            if interval.ends_plan and not interval.last:  # after it was saved, as if it had been the end
                self.renew_environments()
        self.finish_failed()
        self.finish_reached(reached)
        if logging and not interval.last:
            self.finish_requested()

    def heartbeat(self) -> None:
        """Update the status files now and then, to show that training continues."""
        if perf_counter() - self.heartbeat_time >= HEARTBEAT_SECONDS:
            for s in self.collector.alive:
                self.records[s].heartbeat(self.frame)
            self.heartbeat_time = perf_counter()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time in this context to that of a phase."""
        compiler, start = self.agent.algorithm.compiler, perf_counter()
        before = compiler.seconds if compiler else 0.0
        yield
        compiling = compiler.seconds - before if compiler else 0.0
        self.seconds[phase] += perf_counter() - start - compiling
        self.seconds["compile"] += compiling

    def evaluate(self, sessions: list[int]) -> dict[int, np.ndarray] | None:
        """Return returns and lengths [2, episodes] of an evaluation by Session, or None if `stop` ended it."""
        # The environments are new in each evaluation, so that none depends on what they remember of an earlier one.
        evaluation = Evaluation(self.agent, {s: self.specs[s].env for s in sessions}, self.spec.eval)
        while evaluation.running and not self.stop():
            evaluation.step()
            self.heartbeat()
        evaluation.close()
        for s, reason in evaluation.failures.items():
            self.collector.fail(s, reason)
        return None if evaluation.running else evaluation.episodes

    def log(self, evaluations: dict[int, np.ndarray]) -> None:
        """Write a row of metrics and timings for every Session."""
        elapsed = perf_counter() - self.logged_time
        speed = (self.frame - self.logged_frame) / elapsed
        timing = {"seconds": elapsed, "frames_per_second": speed, **self.seconds}
        self.logged_frame, self.logged_time = self.frame, perf_counter()
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        columns = self.averages.pop()
        for s in self.collector.alive:
            record = self.records[s]
            row = {name: column[s] for name, column in columns.items()}
            record.add_row(self.frame, int(self.optimizer_steps[s]), row, evaluations.get(s), timing)
            record.add_histograms(self.agent, s, None if self.actions is None else self.actions[:, s])
            self.display.update(s, self.frame, record.mean_return, speed)

    def save_best(self, returns: Mapping[int, float]) -> None:
        """Save the agents whose return, by Session, is their best so far."""
        for s, reached in returns.items():
            if reached >= self.records[s].best:
                self.records[s].best = reached
                self.write_best(s)

    def finish_failed(self) -> None:
        """Finish the records of the Sessions that failed."""
        for s, (frame, reason) in self.collector.failures.items():
            if self.records[s].state == "running":
                self.records[s].finish("failed", frame, reason)

    def find_reached(self, sessions: list[int]) -> dict[int, str]:
        """Return how the returns compare with `stop_at` of those among some Sessions that have reached it."""
        reasons = {s: self.records[s].find_success() for s in sessions}
        return {s: reason for s, reason in reasons.items() if reason}

    def finish_reached(self, reached: Mapping[int, str]) -> None:
        """Save and finish Sessions as completed, for the given reasons."""
        for s, reason in reached.items():
            if s in self.collector.alive:
                self.save_at_end(s, done=True)
                self.records[s].finish("completed", self.frame, stopped=reason)
                self.collector.drop(s)

    def finish_requested(self) -> None:
        """Save and finish the Sessions that were asked to stop in their run directories."""
        for s in self.collector.alive[:]:
            request = self.directories[s].read_stop_request()
            if request:
                self.save_at_end(s)
                state, reason = request
                self.records[s].finish(state, self.frame, reason)
                self.collector.drop(s)

    def save_at_end(self, s: int, done: bool = False) -> None:
        """Save one Session that ends."""
        # Environments that are reset at each checkpoint can be restored only from a checkpoint that was due.
        if self.restore_method != "reset" or done or self.frame >= self.spec.frames:
            self.save([s])
        if self.records[s].best == float("-inf"):
            self.write_best(s)

    def end(self, state: str, reason: str | None) -> None:
        """Finish the records of all running Sessions with a state, and close the environments."""
        for s, record in enumerate(self.records):
            if record.state == "running":
                final, error = state, reason
                try:
                    if state != "failed" and self.consistent:
                        self.save_at_end(s)
                except Exception as problem:
                    final, error = "failed", describe_failure(problem, self.directories[s])
                    self.lost = isinstance(problem, OSError)
                record.finish(final, self.frame, error, self.lost)
        for env in self.envs:
            env.close()
        self.log_notices()

    def log_notices(self) -> None:
        """Write what environments did that changes no result into the logs, each notice once."""
        for text in pop_notices():
            for record in self.records:
                if text not in record.warnings:
                    record.warn(text)
