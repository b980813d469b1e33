"""`python -m lab resume DIR`: go on with what was interrupted."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.files import write_atomically
from lab.run.trust import warn_of_foreign_code
from lab.spec import load

USAGE = """Usage: python -m lab resume DIR [key=value ...]

  DIR          the run directory of a Session, a Trial or an Experiment that was interrupted
  key=value    for a sweep: what is to be different now, as in seed=0,1,2,3 (more seeds),
               search.n_trials=50 (more points), retry=true (failed Sessions again), plan=true (only say what would run)

resume runs code that the directory holds or names: its own command, the modules of its spec, pickled environments. It
says so if another user or another host made it, as far as that can be known: resume only what you trust.

What completed is kept; what was interrupted goes on from its checkpoint, and tasks of a cluster are found again."""


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: there is nothing to go on with in the directory.
    """
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    path = Path(words[0])
    kind = find_level(path)
    warn_of_foreign_code(path, "resume")
    if SweepDir(path).multirun.exists():
        resume_sweep(SweepDir(path), words[1:])
        return
    if kind == "experiment":
        raise LabError(f"{SweepDir(path).multirun} is missing: it says how the sweep was begun.")
    if words[1:]:
        raise LabError(f"resume: {words[1]!r} is not allowed: a Session goes on as it was begun.")
    trial = TrialDir(path)
    resume_sessions([RunDir(path)] if kind == "session" else [trial.session(seed) for seed in trial.seeds()])


def resume_sweep(directory: SweepDir, words: list[str]) -> None:
    """Give the command of a sweep again, in the same directory."""
    from lab.command import train
    from lab.sweep.sweep import resume_command

    sys.argv = [sys.argv[0], *resume_command(directory, words)]
    train.main()


def resume_sessions(directories: list[RunDir]) -> None:
    """Train the Sessions that were interrupted or lost, as the stack that they were."""
    from lab.launch.job import resume

    statuses = {directory: directory.read_status() for directory in directories}
    for directory, status in statuses.items():
        if status["state"] == "running":
            raise LabError(f"{directory.path} is in use: {directory.lock.holder()} trains a Session there.")
    left = [one for one, status in statuses.items() if status["state"] == "interrupted" or status.get("lost")]
    if not left:
        states = ", ".join(sorted({directory.read_status()["state"] for directory in directories}))
        raise LabError(f"There is nothing to go on with in {directories[0].path}: what it holds is {states}.")
    before = {directory: directory.status.read_bytes() if directory.status.exists() else None for directory in left}
    try:
        for directory in left:
            directory.refuse_links()
            directory.mark_interrupted()
        code = resume([load(directory.spec) for directory in left], left)
    except (LabError, KeyboardInterrupt):  # they were not begun
        for directory, content in before.items():
            if content is None:
                directory.status.unlink(missing_ok=True)
            else:
                write_atomically(directory.status, content)
        raise
    if code:
        sys.exit(code)
