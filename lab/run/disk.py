"""Waiting until a full disk has room again, so that a sweep goes on by itself."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep

from lab.run.directory import RunDir

FULL = (errno.ENOSPC, errno.EDQUOT)
SENTENCES = (*map(os.strerror, FULL), "database or disk is full")  # the last is SQLite's
PROBE = 2**18  # bytes that must find room before a sweep goes on
TICK = 0.25  # seconds between looks at whether it was asked to stop
SECONDS = 5.0  # between two tries, at first; each in a row takes twice as long
LONGEST = 300.0


class DiskSpace:
    """The disk that a sweep writes to."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Name the folder of the sweep, and what tells its user that it waits."""
        self.folder, self._say = folder, say
        self._seconds = SECONDS

    def attempt(self, action: Callable[[], None], recover: Callable[[], None], stop: Callable[[], bool]) -> bool:
        """Do what writes to the disk; if that is full, do it again as soon as there is room.

        Args:
            action: may be left in the middle, and done again after `recover`.
            recover: makes good what was left half done; it may write too.
            stop: says whether to wait no more.

        Returns:
            Whether it was done; false if it was to wait no more.
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
        """Wait until there is room; false if asked to stop before that."""
        self._say(f"The disk of {self.folder} is full: the sweep goes on as soon as there is room. Ctrl-C ends it.")
        while True:
            until = monotonic() + self._seconds
            while monotonic() < until:
                if stop():
                    return False
                sleep(TICK)
            self._seconds = min(2 * self._seconds, LONGEST)
            if self._has_room():
                self._say("There is room again: the sweep goes on.")
                return True

    def _has_room(self) -> bool:
        probe = self.folder / f".room.{uuid.uuid4().hex[:12]}.tmp"
        try:
            with probe.open("xb") as file:
                file.write(bytes(PROBE))
                os.fsync(file.fileno())
            return True
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Say whether a full disk, or a used up quota, is behind an error."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in FULL:
            return True
        if any(sentence in str(found) for sentence in SENTENCES):
            return True
        found = found.__cause__ or found.__context__
    return False


def failed_on_full_disk(sessions: Mapping[int, RunDir]) -> list[RunDir]:
    """Return the Sessions that failed for nothing but a full disk, and so can go on from their checkpoints."""
    found = []
    for session in sessions.values():
        status = session.find_status()
        if status and status["state"] == "failed" and status.get("lost"):
            last = (str(status["error"]).strip().splitlines() or [""])[-1]
            if any(sentence in last for sentence in SENTENCES):
                found.append(session)
    return found
