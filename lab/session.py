"""A Session: one training run of one algorithm on one environment with one set of hyperparameters and one seed.

Several can be trained in lockstep, as a stack; each leaves the run directory that it would have left alone.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter

import numpy as np
import torch
import yaml

from lab.agent import Agent, save
from lab.collect import Collector, Evaluation
from lab.device import prepare
from lab.display import Display
from lab.env.vector import Environments, Spaces
from lab.errors import LabError
from lab.interruption import stop_signals
from lab.provenance import collect as collect_provenance
from lab.provenance import command_line
from lab.record import Averages, Record
from lab.run_dir import RunDir, write_text
from lab.spec import Spec, differences


def train(
    specs: list[Spec],
    directories: list[RunDir],
    spaces: Spaces,
    compositions: list[dict[str, str]] | None = None,
    show: bool = True,
) -> list[Record]:
    """Train Sessions that differ in seeds, or in numbers with a decimal point, in lockstep.

    Args:
        specs: one for each Session.
        directories: where each of them writes.
        spaces: what `lab.env.vector.probe` found.
        compositions: how each spec was composed, texts by the names of their files.
        show: whether to show progress on the terminal.

    Returns:
        The record of each: how it ended, at which frame, and why.

    Raises:
        LabError: the Sessions cannot be trained, or not together; nothing was written then.
    """
    return Stack(specs, directories, spaces).train(compositions, show)


class Stack:
    """Sessions trained in lockstep by one process."""

    def __init__(self, specs: list[Spec], directories: list[RunDir], spaces: Spaces) -> None:
        self.spec, self.specs, self.directories = specs[0], specs, directories
        self.device = prepare(self.spec.device, self.spec.threads)
        self.agent = Agent(specs, spaces, self.device)
        self.envs = [
            Environments(spec.env, spec.env.num_envs, streams.environments)
            for spec, streams in zip(specs, self.agent.streams, strict=True)
        ]
        self.eval_envs: dict[int, Environments] = {}
        self.collector = Collector(self.agent, self.envs)
        self.optimiser_steps = torch.zeros(len(specs), dtype=torch.int64)
        self.averages = Averages()
        self.seconds = dict.fromkeys(("collect", "learn", "evaluate", "write"), 0.0)
        self.consistent, self.cut = True, False  # whether learning stands between two steps; an evaluation was cut
        self.logged_frame, self.logged_time = 0, 0.0

    def train(self, compositions: list[dict[str, str]] | None = None, show: bool = True) -> list[Record]:
        """Train, and return the record of each Session."""
        claim(self.directories, self.specs)
        provenance = collect_provenance(
            command_line(),
            str(self.device),
            self.spec.threads,
            [spec.seed for spec in self.specs],
            self.directories[0].path,
        )
        self.records = [
            Record(spec, directory, provenance, self.agent.algorithm.METRICS)
            for spec, directory in zip(self.specs, self.directories, strict=True)
        ]
        for directory, files in zip(self.directories, compositions or [], strict=False):
            for name, text in files.items():
                write_text(directory.hydra / name, text)
        try:
            with Display(self.specs, show) as self.display, stop_signals() as self.stop:
                self.loop()
            ending = "interrupted" if self.frame < self.spec.frames or self.cut else "completed"
            reason = None
        except KeyboardInterrupt:
            # In the middle of a step of learning, so that what there is now would be no state to go on from.
            ending, reason, self.consistent = "interrupted", None, False
        except Exception as error:
            ending, reason = "failed", explain(error, self.directories[0])
        self.end(ending, reason)
        return self.records

    @property
    def frame(self) -> int:
        """Frames that each Session has done."""
        return self.collector.frame

    def loop(self) -> None:
        """Collect a horizon of steps, learn from it, log, evaluate, save; again until the frames are done."""
        spec, algorithm = self.spec, self.agent.algorithm
        self.logged_time = perf_counter()
        while self.frame < spec.frames and self.collector.alive and not self.stop():
            before = self.frame
            frame = before + algorithm.horizon * spec.env.num_envs
            last = frame >= spec.frames

            def due(every: int, before: int = before, frame: int = frame, last: bool = last) -> bool:
                return every > 0 and (last or frame // every > before // every)

            evaluating = due(spec.eval.every)
            logging = evaluating or due(spec.log.every)
            with self.timed("collect"):
                rollout = self.collector.collect()
            with self.timed("learn"):
                metrics = algorithm.learn(rollout, self.agent.streams, before / spec.frames, diagnose=logging)
                self.averages.add(metrics)
                self.optimiser_steps += metrics["steps"].cpu().long()
                self.fail_if_wrong()
            figures: dict[int, np.ndarray] = {}
            if evaluating:
                with self.timed("evaluate"):
                    figures = self.evaluate()
            with self.timed("write"):
                for s, record in enumerate(self.records):
                    if record.state == "running":
                        record.add_episodes(self.collector.episodes[s])
                if logging:
                    self.log(figures, rollout.action)
                if due(spec.checkpoint.every):
                    self.save("last")
                if evaluating or (spec.eval.every == 0 and due(spec.checkpoint.every)):
                    self.save_best(figures)
            self.end_failed()
            if logging and not last:
                self.end_asked()
        self.end_failed()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time that a phase takes to its sum."""
        start = perf_counter()
        yield
        self.seconds[phase] += perf_counter() - start

    def fail_if_wrong(self) -> None:
        """Fail the Sessions whose learning went wrong; their last checkpoint is from before."""
        algorithm = self.agent.algorithm
        finite = torch.isfinite(algorithm.parameters.values).all(1).tolist()
        for s in self.collector.alive[:]:
            if s in algorithm.problems:
                self.collector.fail(s, algorithm.problems[s])
            elif not finite[s]:
                self.collector.fail(s, "A loss became NaN or infinite, and the parameters with it.")

    def evaluate(self) -> dict[int, np.ndarray]:
        """Return what evaluation gave in every Session that goes on; nothing if asked to stop before its end."""
        for s in self.collector.alive[:]:
            if s not in self.eval_envs:
                episodes, streams = self.spec.eval.episodes, self.agent.streams[s]
                try:
                    self.eval_envs[s] = Environments(self.specs[s].env, episodes, streams.evaluation)
                except Exception:
                    self.collector.fail(s, traceback.format_exc())
        evaluation = Evaluation(self.agent, {s: self.eval_envs[s] for s in self.collector.alive}, self.spec.eval)
        while evaluation.going and not self.stop():
            evaluation.step()
        for s, reason in evaluation.failures.items():
            self.collector.fail(s, reason)
        self.cut = bool(evaluation.going)
        return {} if self.cut else evaluation.figures

    def log(self, figures: dict[int, np.ndarray], actions: torch.Tensor) -> None:
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
            record.add_row(self.frame, int(self.optimiser_steps[s]), row, figures.get(s), timing)
            if record.wants_histograms:
                record.add_histograms(self.agent, s, actions[:, s].cpu().numpy(), self.frame)
            self.display.update(s, self.frame, record.mean_return, timing["frames_per_second"])

    def save_best(self, figures: dict[int, np.ndarray]) -> None:
        """Save the agents that did at least as well as ever: in evaluation, or without it in training."""
        for s in self.collector.alive:
            record = self.records[s]
            reached = float(figures[s][0].mean()) if s in figures else record.mean_return
            if reached is not None and reached >= record.best and (s in figures or self.spec.eval.every == 0):
                record.best = reached
                self.save("best", [s])

    def save(self, which: str, sessions: list[int] | None = None) -> None:
        """Write a checkpoint of the given Sessions, or of all that go on."""
        for s in self.collector.alive if sessions is None else sessions:
            steps = int(self.optimiser_steps[s])
            state = {"frame": self.frame, "optimiser_steps": steps, **self.agent.state(s)}
            state["rewards"] = self.collector.scales[s].state() if self.collector.scales else None
            save(self.directories[s].checkpoint(which), state)

    def end_failed(self) -> None:
        """Close the records of Sessions that failed; the others go on."""
        for s, reason in self.collector.failures.items():
            if self.records[s].state == "running":
                self.records[s].finish("failed", self.frame, reason)

    def end_asked(self) -> None:
        """End the Sessions whose directories ask for it, with everything written; the others go on."""
        for s in self.collector.alive[:]:
            request = self.directories[s].stop_request()
            if request:
                self.save("last", [s])
                if self.records[s].best == float("-inf"):
                    self.save("best", [s])
                state, reason = request
                self.records[s].finish(state, self.frame, reason)
                self.collector.leave_out(s)

    def end(self, ending: str, reason: str | None) -> None:
        """Close the records of Sessions that went on to the end, whatever it was, and every environment."""
        for s, record in enumerate(self.records):
            if record.state == "running":
                state, error = ending, reason
                try:
                    if ending != "failed" and self.consistent:
                        self.save("last", [s])
                        if record.best == float("-inf"):
                            self.save("best", [s])
                except Exception as problem:
                    state, error = "failed", explain(problem, self.directories[s])
                record.finish(state, self.frame, error)
        for env in (*self.envs, *self.eval_envs.values()):
            with suppress(Exception):  # a broken environment may fail to close, which changes no result
                env.close()


def claim(directories: list[RunDir], specs: list[Spec]) -> None:
    """Claim every directory, or none; what an interrupted Session of the same spec left there is removed.

    Raises:
        LabError: one of them holds a Session that ended, that is running, or that has another spec.
    """
    claimed: list[RunDir] = []
    try:
        for directory, spec in zip(directories, specs, strict=True):
            directory.claim()
            claimed.append(directory)
            refuse_other(directory, spec)
    except LabError:
        for directory in claimed:
            directory.release()
        raise
    for directory in directories:
        directory.clear()


def refuse_other(directory: RunDir, spec: Spec) -> None:
    """Raise LabError if the directory holds a Session of another spec."""
    if directory.spec.exists():
        found = yaml.safe_load(directory.spec.read_text(encoding="utf-8"))
        changed = differences(found, spec.to_dict())
        if changed:
            raise LabError(
                f"{directory.path} holds a Session of another spec: {'; '.join(changed)}."
                " Choose another directory, or remove this one first."
            )


def explain(error: BaseException, directory: RunDir) -> str:
    """Return the text for status.json: the sentence of a known mistake, or else the traceback."""
    if isinstance(error, LabError):
        return str(error)
    text = "".join(traceback.format_exception(error))
    if isinstance(error, OSError):
        advice = " Free some space and run the command again." if error.errno == errno.ENOSPC else ""
        text += f"{error.filename or directory.path} cannot be written: {error.strerror}.{advice}"
    return text
