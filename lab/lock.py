"""Holds on run directories, which tell other processes that somebody works there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from pathlib import Path
from typing import IO

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # what a file system without locks answers
LOCK_SECONDS = 1.0  # how long to wait for a lock: somebody may be looking whether it is held


class Lock:
    """A hold on a directory that ends with the process that took it, however that ends."""

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
            return True

    def release(self) -> None:
        """Let go of it."""
        if self._file:
            with contextlib.suppress(OSError):  # at once, also where a process forked from this one has it open
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.release()

    def held(self) -> bool | None:
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
