"""A job that trains Sessions again from their saved spec, with code of its own, in a process of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lab.common.interpolation import literal
from lab.common.text import quote
from lab.run.code.copy import CodeCopy
from lab.run.code.git import clean_environment
from lab.run.directory import RunDir
from lab.run.trackers import OFF, RERUN_ENV

QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null")  # as in conf/config.yaml


@dataclass(eq=False)
class SpecJob:
    """Sessions that differ only in the seed, trained as one stack by `python -m lab`.

    Attributes:
        spec: the spec of the Sessions without the seed, as plain data.
        out: the directory of the only Session, or the one that gets seed-0, seed-1, ...
        folder: gets spec.yaml, which the process reads.
        log: gets what the process prints; None for this terminal.
        status: the exit status, once the process has ended.
    """

    seeds: Sequence[int]
    spec: dict[str, Any]
    out: Path
    code: CodeCopy
    cwd: Path
    folder: Path
    log: Path | None
    status: int | None = None

    def sessions(self) -> list[RunDir]:
        """Return the directories of the Sessions."""
        return [RunDir(self.out)] if len(self.seeds) == 1 else [RunDir(self.out / f"seed-{s}") for s in self.seeds]

    def start(self, environment: dict[str, str]) -> subprocess.Popen[str]:
        """Start the process in a session of its own, as Ctrl-C is for this process to handle."""
        seed = self.seeds[0] if len(self.seeds) == 1 else list(self.seeds)
        self.folder.mkdir(parents=True)
        (self.folder / "spec.yaml").write_text(dump_spec({**self.spec, "seed": seed}), encoding="utf-8")
        config = ("--config-path", str(self.folder.absolute()), "--config-name", "spec")
        out = f"hydra.run.dir={quote(literal(str(self.out.absolute())))}"
        command = [sys.executable, "-m", "lab", *config, out, *QUIET]
        env = {**clean_environment(), **OFF, **RERUN_ENV, **self.code.env(str(self.cwd)), **environment}
        start = partial(subprocess.Popen, command, cwd=self.cwd, env=env, start_new_session=True, text=True)
        if self.log is None:
            return start()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            return start(stdout=log, stderr=subprocess.STDOUT)

    def last_line(self) -> str:
        """Return the last line in the log; an empty string without a log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log else []
        return lines[-1].removeprefix("Error: ") if lines else ""

    def problem(self) -> str:
        """Return why the process failed; an empty string if it did not."""
        return (self.last_line() or f"its process ended with {self.status}") if self.status else ""


def dump_spec(spec: dict[str, Any]) -> str:
    """Return YAML with every value quoted and tagged: readers differ in what a bare 1e3 is."""
    return yaml.safe_dump(literal(spec), default_style='"')
