"""What remains to do when a supervised process ended without an exit status: its Sessions are marked as failed."""

from __future__ import annotations

import logging
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError, describe_exit, print_error
from lab.launch import job
from lab.launch.supervise import UnexpectedExitError
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.training.record import Outcome, append_to_log


def handle_unexpected_exit(end: UnexpectedExitError) -> int:
    """Mark the Sessions of a process as failed, print what there is of them, and return the exit status."""
    if sys.stdout.isatty():
        print("\x1b[?25h", end="")  # the cursor, which live lines hide
    sessions = [RunDir(path) for path in dict.fromkeys(end.messages.get("session", ()))]
    failed = [session for session in sessions if mark_failed(session, end)]
    sweeps = end.messages.get("sweep")
    if failed and not sweeps:
        with suppress(LabError):  # the code of the spec may not be importable here
            return job.finish([Outcome.read(session) for session in sessions])
    resume = f" To continue the sweep: python -m lab resume {shlex.quote(sweeps[-1])}" if sweeps else ""
    print_error(LabError(f"{describe(end)}{resume}"))
    for path in end.messages.get("output", ()):
        job.remove_if_empty(Path(path), end.start)
    return 1


def describe(end: UnexpectedExitError) -> str:
    """Return a sentence about how a process ended."""
    if end.code < 0:
        return f"The process {describe_exit(end.code)}."
    return (
        f"The process {describe_exit(end.code)} before its work was done: the environment, or code that it uses,"
        " ended it, as os._exit does."
    )


def mark_failed(session: RunDir, end: UnexpectedExitError) -> bool:
    """Mark a Session as failed if the process trained it; return whether it did."""
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
        # A killed process is no fault of the Session, which can be resumed then.
        session.write_status(
            "failed", status["frame"], status["frames"], describe(end), status["return"], lost=end.code < 0
        )
        append_to_log(session, logging.ERROR, f"failed at frame {status['frame']}\n{describe(end)}")
    except LabError:  # it had not started
        return False
    finally:
        session.lock.release()
    return True
