"""Trackers beside TensorBoard: Weights & Biases and MLflow, each in a process that no Session waits for.

The process can be slow, hang or die without an effect on training: rows are handed to a thread, what goes wrong is one
warning, and at the end it is given FINISH_SECONDS.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.common.text import flatten
from lab.run.directory import RunDir
from lab.run.trackers import are_off, read_trackers
from lab.training.tags import tag

if TYPE_CHECKING:
    from lab.spec import Spec

TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
FINISH_SECONDS = 60.0  # that a tracker has to send what is left when the last Session of a process ends
END = b'{"do": "end", "run": ""}\n'  # the last message to a process
STOP_SECONDS = 15.0  # the same of a Session that was interrupted, as a cluster soon kills it


class Trackers:
    """Tells the trackers of one Session what it does."""

    def __init__(
        self, spec: Spec, directory: RunDir, facts: Mapping[str, Any], resumed: bool, warn: Callable[[str], None]
    ) -> None:
        """Start the run of a Session, or go on with it, in each tracker that its spec names.

        Args:
            spec: of the Session.
            directory: of the Session.
            facts: where it comes from.
            resumed: whether it goes on from a checkpoint.
            warn: gets what goes wrong, as sentences.
        """
        chosen = {} if are_off() else read_trackers(spec.log.trackers)
        self._workers = [_Worker.get(name) for name in chosen]
        self._env_metrics, self._warn = spec.env.metrics, warn
        self._run = str(directory.path.absolute())
        start = {
            **name_run(directory, spec.name, spec.seed),
            "tags": [spec.algo.name, spec.env.name],
            "config": flatten(spec.to_dict()) if chosen else {},
            "sha": facts.get("git", {}).get("sha"),
            "resumed": resumed,
        }
        for worker, arguments in zip(self._workers, chosen.values(), strict=True):
            worker.open(self._run, {**start, "arguments": arguments})

    def add_row(self, row: Mapping[str, Any], frames_per_second: float) -> None:
        """Send a row of metrics, under the names that TensorBoard has."""
        if not self._workers:
            return
        columns = {**row, "frames_per_second": frames_per_second}
        values = {
            tag(name, self._env_metrics): value
            for name, value in columns.items()
            if value is not None and name != "frame"
        }
        for worker in self._workers:
            worker.send({"do": "row", "run": self._run, "frame": row["frame"], "values": values})
        self._report()

    def finish(self, state: str) -> None:
        """Send how the Session ended; with the last Session of this process, wait until everything is sent."""
        for worker in self._workers:
            worker.close(self._run, state)
        self._report()

    def _report(self) -> None:
        for worker in self._workers:
            for problem in worker.messages(self._run):
                self._warn(problem)


def name_run(directory: RunDir, name: str, seed: int) -> dict[str, str | None]:
    """Return the name of a Session's run, and its group: the Trial or the Experiment that it is part of."""
    path = directory.path.absolute()
    if not re.fullmatch(r"seed-\d+", path.name):
        return {"name": f"{name} seed {seed}", "group": None, "job_type": None}
    trial = path.parent
    in_experiment = re.fullmatch(r"trial-\d+", trial.name)
    around = trial.parent if in_experiment else trial
    outputs = Path("outputs").absolute()
    group = around.relative_to(outputs) if around.is_relative_to(outputs) else Path(*around.parts[-3:])
    return {
        "name": f"{trial.name} seed {seed}" if in_experiment else f"{name} seed {seed}",
        "group": str(group).strip("/"),
        "job_type": trial.name if in_experiment else None,
    }


class _Worker:
    """A process that talks to one tracker for all Sessions of this process."""

    _started: dict[str, _Worker] = {}

    @classmethod
    def get(cls, name: str) -> _Worker:
        """Return the one of a tracker, which is started first if there is none."""
        if name not in cls._started:
            cls._started[name] = cls(name)
        return cls._started[name]

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: set[str] = set()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._problems: dict[str, deque[str]] = {}
        self._failure: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - what it prints, for when it ends early
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lab.training.tracker_worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the Session, which tells the tracker how it ended
            )
        except OSError as error:
            self._failure = str(error)
        else:
            self._threads = [threading.Thread(target=task, daemon=True) for task in (self._write, self._read)]
            for thread in self._threads:
                thread.start()

    def open(self, run: str, start: Mapping[str, Any]) -> None:
        """Start the run of a Session."""
        self._open.add(run)
        self._problems[run] = deque()
        if self._failure is not None:
            self._problems[run].append(self._describe(self._failure))
        self.send({"do": "start", "run": run, **start})

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, without waiting for anything."""
        if self._failure is None:
            self._lines.put(json.dumps(message, default=str) + "\n")

    def close(self, run: str, state: str) -> None:
        """End the run of a Session, and the process with the last one."""
        self.send({"do": "finish", "run": run, "state": state})
        self._open.discard(run)
        if self._open:
            return
        self._started.pop(self._name, None)
        self._lines.put(None)
        if self._process is None:
            return
        seconds = STOP_SECONDS if state == "interrupted" else FINISH_SECONDS
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            hint = " `wandb sync` sends what is missing from the folder wandb." if self._name == "wandb" else ""
            self._fail(f"it had not sent everything {seconds:g} seconds after the end.{hint}")
        _kill(self._process)
        for thread in self._threads:
            thread.join(5.0)
        self._errors.close()

    def messages(self, run: str) -> list[str]:
        """Return what went wrong with the run of a Session since the last call."""
        problems = self._problems.get(run, deque())
        return [problems.popleft() for _ in range(len(problems))]

    def _write(self) -> None:
        assert self._process and self._process.stdin
        try:
            while (line := self._lines.get()) is not None:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()
            self._process.stdin.write(END)  # an environment that was forked meanwhile keeps the pipe open
            self._process.stdin.close()
        except (OSError, ValueError):
            with suppress(OSError):
                self._process.stdin.close()

    def _read(self) -> None:
        assert self._process and self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                with suppress(ValueError, KeyError, TypeError):
                    message = json.loads(line)
                    self._problems[message["run"]].append(self._describe(message["problem"]))
        if self._process.wait():
            with suppress(OSError, ValueError):
                self._errors.seek(0)
                printed = self._errors.read().decode(errors="replace").strip().splitlines()
                self._fail(printed[-1] if printed else "its process ended")

    def _fail(self, reason: str) -> None:
        """Note for every Session why nothing more is sent."""
        if self._failure is None:
            self._failure = reason
            for problems in self._problems.values():
                problems.append(self._describe(reason))

    def _describe(self, reason: str) -> str:
        text = " ".join(reason.split())
        return f"{TITLES[self._name]} (log.trackers) lacks this Session or a part of it: {text.rstrip('.')}."


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started."""
    import psutil

    with suppress(psutil.Error):
        family = psutil.Process(process.pid)
        members = [*family.children(recursive=True), family]
        for member in members:
            with suppress(psutil.Error):
                member.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5.0)
