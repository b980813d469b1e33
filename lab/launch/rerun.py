"""Training Sessions again from their saved specs, with code of their own, in processes of this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.common.interpolation import literal
from lab.common.text import quote
from lab.run.code.copy import CodeCopy
from lab.run.code.git import clean_environment
from lab.run.directory import RunDir

POLL_SECONDS = 0.2  # between two looks at the processes
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null")  # as conf/config.yaml has it


@dataclass
class Job:
    """Sessions that differ in nothing but the seed, trained again as one stack.

    Attributes:
        seeds: of the Sessions.
        spec: the one that they share but for the seed, as plain data.
        out: where the Sessions go: the directory of the only one, or the one that holds seed-0, seed-1, ...
        code: what to run.
        cwd: where to run it from.
        folder: gets the spec as the job reads it.
        log: what it prints goes there; null for this terminal.
        status: exit status, once it has ended.
    """

    seeds: Sequence[int]
    spec: dict[str, Any]
    out: Path
    code: CodeCopy
    cwd: Path
    folder: Path
    log: Path | None = None
    status: int | None = field(default=None, init=False)

    def sessions(self) -> list[RunDir]:
        """Return the directories that it writes."""
        return [RunDir(self.out)] if len(self.seeds) == 1 else [RunDir(self.out / f"seed-{s}") for s in self.seeds]

    def start(self) -> subprocess.Popen[bytes]:
        """Start its process, which is no part of this one's group: Ctrl-C is for this one to hand on."""
        spec = {**self.spec, "seed": self.seeds[0] if len(self.seeds) == 1 else list(self.seeds)}
        self.folder.mkdir(parents=True)
        (self.folder / "spec.yaml").write_text(yaml.dump(literal(spec), Dumper=Quoting), encoding="utf-8")
        config = ("--config-path", str(self.folder.absolute()), "--config-name", "spec")
        words = (f"hydra.run.dir={quote(literal(str(self.out.absolute())))}", *QUIET)
        env = {**clean_environment(), **self.code.env(str(self.cwd))}
        command = [sys.executable, "-m", "lab", *config, *words]
        if self.log is None:
            return subprocess.Popen(command, cwd=self.cwd, env=env, start_new_session=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.cwd, env=env, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
            )

    def complaint(self) -> str:
        """Return the last line that it printed, if that is known."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log else []
        return lines[-1].removeprefix("Error: ") if lines else ""


class Quoting(yaml.SafeDumper):
    """Writes YAML with every text in quotes: what is a text to one reader, as 1e3, is a number to another."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def run(jobs: Sequence[Job], slots: int) -> Generator[None, None, None]:
    """Run jobs, so many at the same time; yields now and then until all have ended.

    When this is left early, the jobs that run are asked to end with everything written, and waited for.
    """
    waiting = list(jobs)
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                job = waiting.pop(0)
                running.append((job, job.start()))
            yield
            time.sleep(POLL_SECONDS)
            for job, process in running:
                job.status = process.poll()
            running = [(job, process) for job, process in running if job.status is None]
    finally:
        for _, process in running:
            process.send_signal(signal.SIGINT)
        for _, process in running:
            process.wait()
