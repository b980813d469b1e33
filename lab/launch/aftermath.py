"""What is left to do where a process ended that trained, played or ran a sweep, and did not say how it ended."""

from __future__ import annotations

import logging
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError, describe_exit, visible
from lab.launch.supervise import ProcessEndedError
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.train.record import Ended, write_late


def conclude(end: ProcessEndedError) -> int:
    """Fail the Sessions that a process trained, show what there is of them, and return the exit status."""
    if sys.stdout.isatty():
        print("\x1b[?25h", end="")  # which live lines hide
    sessions = [RunDir(path) for path in dict.fromkeys(end.reports.get("session", ()))]
    failed = [session for session in sessions if fail(session, end)]
    sweeps = end.reports.get("sweep")
    if failed and not sweeps:
        from lab.launch import job

        with suppress(LabError):  # a spec that cannot be read here, as its code is not found
            return job.conclude([Ended.read(session) for session in sessions])
    where = f" To go on with the sweep: python -m lab resume {shlex.quote(sweeps[-1])}" if sweeps else ""
    print(visible(f"Error: {explain(end)}{where}"), file=sys.stderr)
    remove_empty(end)
    return 1


def explain(end: ProcessEndedError) -> str:
    """Say in a sentence how a process ended."""
    text = f"The process {describe_exit(end.code)}"
    if end.code < 0:
        return f"{text}."
    return f"{text} before its work was done: the environment, or code that it uses, ended it, as os._exit does."


def fail(session: RunDir, end: ProcessEndedError) -> bool:
    """Write that a Session failed with the process that trained it; false if it did not, or had not begun."""
    if not session.lock.acquire():
        return False
    try:
        status = read_json(session.status)
        if status["state"] != "running" or status["pid"] != end.pid:
            return False
        if not session.spec.exists():
            session.status.unlink()
            session.lock.path.unlink()
            return False
        # What kills a process is no fault of the Session: it can be resumed.
        frames, lost = (status["frame"], status["frames"]), end.code < 0
        session.write_status("failed", *frames, explain(end), status["return"], lost=lost)
        write_late(session, logging.ERROR, f"failed at frame {status['frame']}\n{explain(end)}")
    except LabError:  # nothing was begun
        return False
    finally:
        session.lock.release()
    return True


def remove_empty(end: ProcessEndedError) -> None:
    """Remove the directory that was made for a job, if there is nothing in it."""
    from lab.launch import job

    for path in end.reports.get("output", ()):
        job.remove_empty(Path(path), end.start)
