"""Holds on run directories, which tell other processes that somebody works there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import time
import weakref
from pathlib import Path
from typing import IO

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # what a file system without locks answers
LOCK_SECONDS = 1.0  # how long to wait for a lock: somebody may be looking whether it is held


_held: weakref.WeakSet[Lock] = weakref.WeakSet()  # by this process


class Lock:
    """A hold on a directory that ends with the process that took it, however that ends, and whatever it has forked.

    The file names the process.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._file: IO[bytes] | None = None

    def acquire(self, patience: float = LOCK_SECONDS) -> bool:
        """Take hold of the directory; false if another process has it, and has it still after so many seconds."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab")
        limit = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < limit:
                    time.sleep(0.05)
                    continue
                file.close()
                return False
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    file.close()
                    raise
            self._file = file
            _held.add(self)
            self._sign(file)
            return True

    def holder(self) -> str:
        """Name the process that has hold of the directory, as far as it is known: "process 7 on host a"."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return f"process {int(content['pid'])} on host {content['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    @staticmethod
    def _sign(file: IO[bytes]) -> None:
        with contextlib.suppress(OSError):  # a full disk; the hold is what counts
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
            file.flush()

    def release(self) -> None:
        """Let go of it."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
            with contextlib.suppress(OSError):  # at once, also where a process forked from this one has it open
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self.forget()

    def forget(self) -> None:
        """Close the file, without letting go of the directory where another process has the file open as well."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        _held.discard(self)

    def __del__(self) -> None:
        self.release()

    def is_held(self) -> bool | None:
        """Say whether some process has hold of the directory; null where the file system cannot tell."""
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


# A process forked from this one has its files open, and so would keep its locks when it outlives it.
os.register_at_fork(after_in_child=_forget_all)
