"""A full disk: a sweep waits until there is space again, and continues by itself."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from lab.run.directory import RunDir

FULL = (errno.ENOSPC, errno.EDQUOT)
MESSAGES = (*map(os.strerror, FULL), "database or disk is full")  # the last is SQLite's
PROBE_BYTES = 2**18  # that must fit before a sweep continues
POLL_SECONDS = 0.25  # between checks whether it was asked to stop
SECONDS = 5.0  # between the first two tries; doubled after each
MOST_SECONDS = 300.0


class DiskSpace:
    """Retries what writes below a folder while its disk is full; `announce` prints a sentence for the user."""

    def __init__(self, folder: Path, announce: Callable[[str], None]) -> None:
        self.folder, self._announce = folder, announce
        self._seconds = SECONDS

    def attempt(self, action: Callable[[], None], recover: Callable[[], None], stop: Callable[[], bool]) -> bool:
        """Run an action that writes to the disk, again and again while the disk is full.

        Args:
            action: may fail halfway, and is then run again after `recover`.
            recover: repairs what the action left unfinished; it may write too.
            stop: returns whether to wait no longer.

        Returns:
            Whether the action succeeded; False if it was asked to stop.
        """
        steps = [action]
        while steps:
            try:
                steps[-1]()
                steps.pop()
            except Exception as error:
                if not is_disk_full(error):
                    raise
                if not self.wait(stop):
                    return False
                steps = [action, recover]
        self._seconds = SECONDS
        return True

    def wait(self, stop: Callable[[], bool]) -> bool:
        """Wait until there is space; return False if asked to stop before."""
        self._announce(f"The disk of {self.folder} is full: the sweep goes on when there is space. Ctrl-C ends it.")
        while True:
            until = monotonic() + self._seconds
            while monotonic() < until:
                if stop():
                    return False
                sleep(POLL_SECONDS)
            self._seconds = min(2 * self._seconds, MOST_SECONDS)
            if self._has_space():
                self._announce("There is space again: the sweep goes on.")
                return True

    def _has_space(self) -> bool:
        probe = self.folder / f".room.{uuid.uuid4().hex[:12]}.tmp"
        try:
            with probe.open("xb") as file:
                file.write(bytes(PROBE_BYTES))
                os.fsync(file.fileno())
            return True
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether a full disk or an exhausted quota caused an error."""
    if error is None:
        return False
    full = isinstance(error, OSError) and error.errno in FULL
    return full or _names_full_disk(str(error)) or is_disk_full(error.__cause__ or error.__context__)


def failed_on_full_disk(sessions: Mapping[Any, RunDir]) -> list[RunDir]:
    """Return the Sessions that failed only because the disk was full, and can resume from their checkpoints."""

    def is_one(session: RunDir) -> bool:
        status = session.find_status()
        if not status or status["state"] != "failed" or not status.get("lost"):
            return False
        return _names_full_disk((str(status["error"]).strip().splitlines() or [""])[-1])

    return [session for session in sessions.values() if is_one(session)]


def _names_full_disk(message: str) -> bool:
    return any(one in message for one in MESSAGES)
