"""Locks on run directories, which tell other processes that a directory is in use."""

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

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # errors of a file system without locks
LOCK_SECONDS = 1.0  # to wait for a lock: another process may be testing it

_held: weakref.WeakSet[Lock] = weakref.WeakSet()  # by this process


class Lock:
    """A lock on a directory that ends with its process, however that ends and whatever it forked.

    The file names the process.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._file: IO[bytes] | None = None

    def acquire(self, patience: float = LOCK_SECONDS) -> bool:
        """Lock the directory; return False if another process still has it after `patience` seconds."""
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
            break
        self._file = file
        _held.add(self)
        with contextlib.suppress(OSError):  # a full disk; the lock is what counts
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
            file.flush()
        return True

    def holder(self) -> str:
        """Return the process that holds the lock, as in "process 7 on host a", as far as it is known."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return f"process {int(content['pid'])} on host {content['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def release(self) -> None:
        """Unlock the directory."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
            with contextlib.suppress(OSError):  # closing is not enough where a forked process has it open
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self.forget()

    def announce(self, pid: int) -> None:
        """Name the process of this host that is about to acquire the lock."""
        with contextlib.suppress(OSError):
            self.path.write_text(json.dumps({"pid": pid, "host": platform.node()}), encoding="utf-8")

    def is_awaited(self) -> bool:
        """Return whether the process that holds the lock, or was named by `announce`, runs on this host."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["host"] != platform.node():
                return False
            os.kill(int(content["pid"]), 0)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def forget(self) -> None:
        """Close the file without unlocking the directory for other processes that have it open."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        _held.discard(self)

    def __del__(self) -> None:
        self.release()

    def is_held(self) -> bool | None:
        """Return whether any process holds the lock; None where the file system cannot tell."""
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


# A forked process would keep the locks of its parent when it outlives it.
os.register_at_fork(after_in_child=_forget_all)
