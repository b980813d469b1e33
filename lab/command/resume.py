"""`python -m lab resume DIR`: go on with what was interrupted."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.command.extension import extend_session, extend_trial, refuse_experiment, split_frames
from lab.command.options import command
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level, find_sessions
from lab.run.exported import describe_missing
from lab.run.files import write_atomically
from lab.run.trust import warn_of_foreign_code
from lab.spec import load

NOTES = """resume runs code that the directory holds or names: its own command, the modules of its spec, pickled
environments. It warns if another user or another host made the directory, as far as that can be known: resume only what
you trust.

Completed Sessions are kept, interrupted ones go on from their checkpoints, running tasks of a cluster are adopted.

With frames=N, a Session or a Trial goes on to N frames, also if it has completed: the frames that were planned before
go as they were planned, and schedules are over N frames from there on. The spec says so in extended_from."""


@command(
    "the run directory of a Session, a Trial or an Experiment that was interrupted, or is to be extended",
    overrides="what changes: frames=400_000 (go on for more frames); for a Trial or an Experiment, seed=0,1,2,3 (more"
    " seeds), search.n_trials=50 (more points), retry=true (failed Sessions again), plan=true (only print what would"
    " run)",
    notes=NOTES,
)
def main(path: Path, overrides: list[str]) -> None:
    """Resume what a run directory holds.

    Raises:
        LabError: there is nothing to resume.
    """
    level, trial = find_level(path), TrialDir(path.absolute())
    around = SweepDir(trial.path.parent if TrialDir(path).number is None else path.parent)  # as it was named
    warn_of_foreign_code(path, "resume")
    frames, overrides = split_frames(overrides)
    if level == "experiment" and frames:
        refuse_experiment(path, frames)
    if SweepDir(path).multirun.exists():
        if frames:
            extend_trial(trial, frames, swept=True)
        return continue_sweep(SweepDir(path), overrides)
    if level == "trial" and trial.number is not None and around.multirun.exists():
        if frames:
            extend_trial(trial, frames, swept=True)
        return continue_sweep(around, [*overrides, f"only_trial={trial.number}"])
    exported = [session for session in find_sessions(path) if session.exported.exists()]
    if exported:
        raise LabError(describe_missing(exported[0], exported[0].checkpoint("last")))
    if level == "experiment":
        raise LabError(f"{SweepDir(path).multirun} is missing: it says how the sweep was started.")
    if overrides and level == "session":
        raise LabError(
            f"resume: {overrides[0]!r} is not allowed: {path} holds a Session, which keeps the config that it was"
            " started with, except for frames, as in `resume SESSION frames=400_000`. More seeds are for a Trial, as in"
            " `resume TRIAL seed=0,1,2,3`."
        )
    if overrides:  # trained by a single job, it becomes a Trial of a sweep
        started = trial.session(trial.seeds()[0]).hydra / "hydra.yaml"
        extension = extend_trial(trial, frames, swept=False) if frames else []
        return continue_sweep(SweepDir(path), [*overrides, *extension], started)
    if frames and level == "session":
        extend_session(RunDir(path), frames)
    elif frames:
        extend_trial(trial, frames, swept=False)
    resume_sessions([RunDir(path)] if level == "session" else [trial.session(seed) for seed in trial.seeds()])


def continue_sweep(directory: SweepDir, overrides: list[str], started: Path | None = None) -> None:
    """Give the command line of a sweep again, with overrides; `started` as in `resume_command`."""
    from lab.command import train
    from lab.sweep.checks import OTHER_DIRECTORY
    from lab.sweep.sweep import resume_command

    sys.argv = [sys.argv[0], *resume_command(directory, overrides, started)]
    try:
        train.main()
    except LabError as error:
        advice = "`resume` keeps the settings that it was started with: train others in a new directory."
        raise LabError(str(error).replace(OTHER_DIRECTORY, advice)) from error


def resume_sessions(directories: list[RunDir]) -> None:
    """Train the Sessions that were interrupted or lost, as the stack that they were."""
    from lab.launch.job import resume

    statuses = {directory: directory.read_status() for directory in directories}
    for directory, status in statuses.items():
        if status["state"] == "running":
            raise LabError(f"{directory.path} is in use: {directory.lock.holder()} trains a Session there.")
    remaining = [one for one, status in statuses.items() if status["state"] == "interrupted" or status.get("lost")]
    if not remaining:
        states = ", ".join(sorted({status["state"] for status in statuses.values()}))
        raise LabError(f"There is nothing to resume in {directories[0].path}: its Sessions are {states}.")
    before = {one: one.status.read_bytes() if one.status.exists() else None for one in remaining}
    try:
        for directory in remaining:
            directory.refuse_links()
            directory.mark_interrupted()
        exit_status = resume([load(directory.spec) for directory in remaining], remaining)
    except (LabError, KeyboardInterrupt):  # training did not start
        for directory, content in before.items():
            if content is None:
                directory.status.unlink(missing_ok=True)
            else:
                write_atomically(directory.status, content)
        raise
    if exit_status:
        sys.exit(exit_status)
