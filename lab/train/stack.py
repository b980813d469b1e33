"""A stack: Sessions trained in lockstep by one process, the training loop of all algorithms."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from lab.common.signals import uninterrupted
from lab.env.guard import pop_notices
from lab.env.vector import Environments, Spaces, detect_restore_method, rng_warnings
from lab.errors import explain_error
from lab.run import checkpoint
from lab.run.directory import RunDir
from lab.run.files import write_text
from lab.run.provenance import Provenance
from lab.spec import Spec
from lab.train.agent import Agent
from lab.train.collect import Collector, Evaluation
from lab.train.device import prepare
from lab.train.display import Display
from lab.train.record import BEAT_SECONDS, Averages, Record


@dataclass(frozen=True)
class Horizon:
    """The frames from one step of learning to the next.

    Attributes:
        before: frames done before it.
        frame: frames done after it.
        frames: frames of the Session.
    """

    before: int
    frame: int
    frames: int

    @property
    def last(self) -> bool:
        """Whether the Session is done after it."""
        return self.frame >= self.frames

    def due(self, every: int) -> bool:
        """Say whether what happens every so many frames, and at the end, is due after it; never if `every` is 0."""
        return every > 0 and (self.last or self.frame // every > self.before // every)


class Stack:
    """Sessions that differ in seeds, or in numbers with a decimal point, in lockstep.

    Attributes:
        pending: the horizon that is learned from, but not yet evaluated, logged and saved.
    """

    def __init__(self, specs: list[Spec], directories: list[RunDir], spaces: Spaces) -> None:
        self.spec, self.specs, self.directories = specs[0], specs, directories
        self.device = prepare(self.spec.device, self.spec.threads)
        self.agent = Agent(specs, spaces, self.device)
        self.agent.algorithm.allocate(self.spec.env.num_envs)
        self.restore_method = detect_restore_method(self.spec.env)
        self.envs = [
            Environments(spec.env, spec.env.num_envs, streams.environments, self.restore_method)
            for spec, streams in zip(specs, self.agent.streams, strict=True)
        ]
        self.collector = Collector(self.agent, self.envs)
        self.optimizer_steps = torch.zeros(len(specs), dtype=torch.int64)
        self.averages = Averages()
        self.seconds = dict.fromkeys(("collect", "learn", "evaluate", "write"), 0.0)
        self.consistent = True  # whether learning stands between two steps
        self.lost = False  # whether what failed were files alone
        self.told: set[str] = set()  # notices of environments
        self.pending: Horizon | None = None
        self.actions: torch.Tensor | None = None  # of the last horizon
        self.logged_frame, self.logged_time, self.saved_time, self.beat_time = 0, 0.0, 0.0, 0.0

    def train(
        self,
        provenance: Provenance,
        stop: Callable[[], bool] = lambda: False,
        states: list[dict[str, Any]] | None = None,
        compositions: list[dict[str, str]] | None = None,
        show: bool = True,
        notes: Sequence[Sequence[str]] = (),
    ) -> list[Record]:
        """Train, and return the record of each Session.

        Args:
            provenance: of this process.
            stop: says whether to end after the horizon in progress.
            states: the checkpoint that each Session goes on from, which was restored; null if they begin.
            compositions: how each spec was composed, texts by the names of their files.
            show: whether to show progress on the terminal.
            notes: what the log, the status and the terminal are to tell of each Session.
        """
        self.stop = stop
        for directory, state in zip(self.directories, states or [], strict=False):
            checkpoint.roll_back(directory, state)
        parts: list[dict[str, Any]] = states or [{"record": None}] * len(self.specs)
        metrics, none = self.agent.algorithm.metrics, [()] * len(self.specs)
        self.records = [
            Record(spec, directory, provenance, metrics, self.frame, state["record"], told)
            for spec, directory, state, told in zip(self.specs, self.directories, parts, notes or none, strict=True)
        ]
        for record in self.records:
            for warning in rng_warnings(self.spec.env):
                record.warn(warning)
            if self.agent.algorithm.replay:
                record.note(self.agent.algorithm.replay.description)
        for directory, files in zip(self.directories, compositions or [], strict=False):
            for name, text in files.items():
                write_text(directory.hydra / name, text)
        try:
            with Display(self.specs, show, self.frame) as self.display:
                self.display.warn(dict.fromkeys(text for record in self.records for text in record.warnings))
                self.loop()
            done = self.frame >= self.spec.frames and not self.pending
            ending, reason = "completed" if done else "interrupted", None
        except KeyboardInterrupt:
            # In the middle of a step of learning, so that what there is now would be no state to go on from.
            ending, reason, self.consistent = "interrupted", None, False
        except Exception as error:
            ending, reason = "failed", explain(error, self.directories[0])
            self.lost = isinstance(error, OSError)  # of the disk, as what environments raise is caught elsewhere
        with uninterrupted():
            self.end(ending, reason)
        return self.records

    @property
    def frame(self) -> int:
        """Frames that each Session has done."""
        return self.collector.frame

    def loop(self) -> None:
        """Collect a horizon of steps, learn from it, log, evaluate, save; again until the frames are done."""
        self.logged_time = self.saved_time = self.beat_time = perf_counter()
        self.logged_frame = self.frame
        while self.collector.alive and not self.stop():
            if self.pending is None:
                if self.frame >= self.spec.frames:
                    break
                self.pending = self.advance()
            self.conclude(self.pending)
        self.end_failed()

    def advance(self) -> Horizon:
        """Collect a horizon of steps and learn from it."""
        spec, algorithm = self.spec, self.agent.algorithm
        frame = self.frame + algorithm.horizon * spec.env.num_envs
        horizon = Horizon(self.frame, frame, spec.frames)
        logging = horizon.due(spec.eval.every) or horizon.due(spec.log.every)
        with self.timed("collect"):
            rollout = self.collector.collect(self.beat)
        with self.timed("learn"):
            progress = horizon.before / spec.frames
            metrics = algorithm.learn(rollout, self.agent.streams, progress, diagnose=logging)
            self.averages.add(metrics)
            self.optimizer_steps += metrics["steps"].cpu().long()
            self.actions = rollout.action
        self.beat()
        self.tell()
        with self.timed("write"):
            for s, record in enumerate(self.records):
                if record.state == "running":
                    record.add_episodes(self.collector.episodes[s])
        self.fail_if_wrong()
        return horizon

    def conclude(self, horizon: Horizon) -> None:
        """Evaluate, log and save, as far as it is due after a horizon; it stays pending if asked to stop meanwhile."""
        spec = self.spec
        evaluating = horizon.due(spec.eval.every)
        logging = evaluating or horizon.due(spec.log.every)
        saving = horizon.due(spec.checkpoint.every)
        figures: dict[int, np.ndarray] = {}
        if evaluating:
            with self.timed("evaluate"):
                evaluated = self.evaluate()
            if evaluated is None:
                return
            figures = evaluated
        self.pending = None
        with self.timed("write"):
            if logging:
                self.log(figures)
            if evaluating or (spec.eval.every == 0 and saving):
                self.save_best(figures)
            if saving and self.restore_method == "reset" and not horizon.last:
                for s in self.collector.alive[:]:
                    self.collector.begin_episodes(s)
            if saving or (self.restore_method != "reset" and self.minutes_passed()):
                self.save(self.collector.alive)
        self.end_failed()
        if logging and not horizon.last:
            self.end_asked()

    def beat(self) -> None:
        """Say in the status files that steps are taken, now and then."""
        if perf_counter() - self.beat_time >= BEAT_SECONDS:
            for s in self.collector.alive:
                self.records[s].beat(self.frame)
            self.beat_time = perf_counter()

    def minutes_passed(self) -> bool:
        """Say whether the last checkpoint is old enough for another one, whatever the frame."""
        every = self.spec.checkpoint.minutes
        return every is not None and perf_counter() - self.saved_time >= 60 * every

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time that a phase takes to its sum."""
        start = perf_counter()
        yield
        self.seconds[phase] += perf_counter() - start

    def fail_if_wrong(self) -> None:
        """Fail the Sessions whose learning went wrong; their last checkpoint is from before."""
        algorithm = self.agent.algorithm
        finite = algorithm.finite()
        for s in self.collector.alive[:]:
            if algorithm.problems and s in algorithm.problems:
                self.collector.fail(s, algorithm.problems[s])
            elif not finite[s]:
                self.collector.fail(s, "A loss became NaN or infinite, and the parameters with it.")

    def evaluate(self) -> dict[int, np.ndarray] | None:
        """Return what evaluation gave in every Session that goes on; null if asked to stop before its end."""
        before = [streams.evaluation.bit_generator.state for streams in self.agent.streams]
        # Made for each evaluation, so that none depends on what the environments remember of an earlier one.
        envs: dict[int, Environments] = {}
        for s in self.collector.alive[:]:
            try:
                envs[s] = Environments(self.specs[s].env, self.spec.eval.episodes, self.agent.streams[s].evaluation)
            except Exception as error:
                self.collector.fail(s, explain_error(error))
        evaluation = Evaluation(self.agent, envs, self.spec.eval)
        while evaluation.going and not self.stop():
            evaluation.step()
            self.beat()
        for env in envs.values():
            env.close()
        for s, reason in evaluation.failures.items():
            self.collector.fail(s, reason)
        if not evaluation.going:
            return evaluation.figures
        for streams, state in zip(self.agent.streams, before, strict=True):  # it is to be done all over
            streams.evaluation.bit_generator.state = state
        return None

    def log(self, figures: dict[int, np.ndarray]) -> None:
        """Write a row for every Session that goes on."""
        elapsed = perf_counter() - self.logged_time
        timing = {
            "seconds": elapsed,
            "frames_per_second": (self.frame - self.logged_frame) / elapsed,
            **self.seconds,
        }
        self.logged_frame, self.logged_time = self.frame, perf_counter()
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        columns = self.averages.take()
        for s in self.collector.alive:
            record = self.records[s]
            row = {name: column[s] for name, column in columns.items()}
            record.add_row(self.frame, int(self.optimizer_steps[s]), row, figures.get(s), timing)
            if record.wants_histograms:
                actions = None if self.actions is None else self.actions[:, s].cpu().numpy()
                record.add_histograms(self.agent, s, actions, self.frame)
            self.display.update(s, self.frame, record.mean_return, timing["frames_per_second"])

    def save_best(self, figures: dict[int, np.ndarray]) -> None:
        """Save the agents that did at least as well as ever: in evaluation, or without it in training."""
        for s in self.collector.alive:
            record = self.records[s]
            reached = float(figures[s][0].mean()) if s in figures else record.mean_return
            if reached is not None and reached >= record.best and (s in figures or self.spec.eval.every == 0):
                record.best = reached
                self.write_best(s)

    def agent_state(self, s: int) -> dict[str, Any]:
        """Return what one Session has learned, and when."""
        return {"frame": self.frame, "optimizer_steps": int(self.optimizer_steps[s]), **self.agent.state(s)}

    def write_best(self, s: int) -> None:
        """Write the agent of one Session as its best so far."""
        checkpoint.write(self.directories[s].checkpoint("best"), self.agent_state(s))

    def save(self, sessions: list[int]) -> None:
        """Write checkpoints from which Sessions can go on."""
        replay = self.agent.algorithm.replay
        for s in sessions:
            state = self.agent_state(s) | {
                "pending": self.pending.before if self.pending else None,
                "collector": self.collector.state(s),
                "averages": self.averages.state(s),
                "replay": replay.save(s, self.directories[s].replay, checkpoint.write) if replay else None,
                "record": self.records[s].sync(),
            }
            checkpoint.write_generation(self.directories[s], state)
            if replay:
                replay.remove_unused_files(s, self.directories[s].replay)
        self.saved_time = perf_counter()

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Go on from the checkpoints of all Sessions, which are at the same point; nothing is written.

        Raises:
            LabError: a checkpoint does not fit the Session as its spec and the code make it now.
        """
        for s, state in enumerate(states):
            self.agent.restore(s, state)
        for s, state in enumerate(states):
            self.optimizer_steps[s] = state["optimizer_steps"]
            self.collector.restore(s, state["collector"])
            if self.agent.algorithm.replay:
                self.agent.algorithm.replay.restore(s, state["replay"], self.directories[s].replay, checkpoint.read)
        if states:
            self.collector.frame = states[0]["frame"]
            self.averages.restore([state["averages"] for state in states], self.device)
            before = states[0]["pending"]
            self.pending = None if before is None else Horizon(before, self.frame, self.spec.frames)

    def end_failed(self) -> None:
        """Close the records of Sessions that failed; the others go on."""
        for s, (frame, reason) in self.collector.failures.items():
            if self.records[s].state == "running":
                self.records[s].finish("failed", frame, reason)

    def end_asked(self) -> None:
        """End the Sessions whose directories ask for it, with everything written; the others go on."""
        for s in self.collector.alive[:]:
            request = self.directories[s].read_stop_request()
            if request:
                self.save_at_end(s)
                state, reason = request
                self.records[s].finish(state, self.frame, reason)
                self.collector.leave_out(s)

    def save_at_end(self, s: int) -> None:
        """Save a Session that ends, as its state is now."""
        # Between two checkpoints, environments that are reset at each cannot be brought back: it goes on from the last.
        if self.restore_method != "reset" or self.frame >= self.spec.frames:
            self.save([s])
        if self.records[s].best == float("-inf"):
            self.write_best(s)

    def end(self, ending: str, reason: str | None) -> None:
        """Close the records of Sessions that went on to the end, whatever it was, and every environment."""
        for s, record in enumerate(self.records):
            if record.state == "running":
                state, error = ending, reason
                try:
                    if ending != "failed" and self.consistent:
                        self.save_at_end(s)
                except Exception as problem:
                    state, error = "failed", explain(problem, self.directories[s])
                    self.lost = isinstance(problem, OSError)
                record.finish(state, self.frame, error, self.lost)
        for env in self.envs:
            env.close()
        self.tell()

    def tell(self) -> None:
        """Write into the logs what environments did that changes no result, each once."""
        for text in pop_notices():
            if text not in self.told:
                self.told.add(text)
                for record in self.records:
                    record.warn(text)


def explain(error: BaseException, directory: RunDir) -> str:
    """Return the text for status.json: the sentence of a known mistake, or else the traceback."""
    text = explain_error(error)
    if isinstance(error, OSError):
        advice = " Free some space, and resume from the last checkpoint." if error.errno == errno.ENOSPC else ""
        text += f"{error.filename or directory.path} cannot be written: {error.strerror}.{advice}"
    return text
