"""Asking git: what it prints, or a sentence that says why it does not answer and what to do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for a tree with nothing in it
SECONDS = 60.0  # after which git counts as hanging
GIT_LOCAL = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE",
)  # as `git rev-parse --local-env-vars` lists them, but for settings  # fmt: skip
QUIETLY = {
    "LC_ALL": "C",  # its reasons are read below
    "GIT_OPTIONAL_LOCKS": "0",  # asking changes nothing
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",  # a partial clone is not completed for this
}
LONGEST = 64 * 1024  # bytes of file names in one command line


class GitError(Exception):
    """Why git does not answer, as a sentence without its full stop."""


class NoRepositoryError(GitError):
    """The folder is in no git repository."""


def ask_git(folder: Path, *words: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> bytes:
    """Run git in a folder and return what it prints.

    Raises:
        NoRepositoryError: the folder is in no git repository.
        GitError: git is not installed, hangs or fails.
    """
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            check=False,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**without_git(), **QUIETLY, **(env or {})},
            timeout=SECONDS,
        )
    except FileNotFoundError as error:
        if folder.is_dir():
            raise GitError("git is not installed") from error
        raise NoRepositoryError(f"{folder} does not exist") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git did not answer within {SECONDS:.0f} seconds: see `git -C {folder} status`") from error
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}") from error
    if done.returncode:
        raise _explained(folder, done.stderr.decode(errors="replace"))
    return done.stdout


def has(folder: Path, *words: str) -> bool:
    """Say whether git succeeds."""
    try:
        ask_git(folder, *words)
    except GitError:
        return False
    return True


def without_git() -> dict[str, str]:
    """Return the environment without what a hook of git is told, which would lead to another checkout or index."""
    return {name: value for name, value in os.environ.items() if name not in GIT_LOCAL}


def split(printed: bytes) -> list[str]:
    """Return the names that git prints with -z."""
    return [os.fsdecode(name) for name in printed.split(b"\0") if name]


def toplevel(folder: Path) -> Path:
    """Return the root of the checkout around a folder.

    Raises:
        NoRepositoryError: there is none.
        GitError: git does not say.
    """
    return Path(os.fsdecode(ask_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")))


def batches(names: Sequence[str]) -> list[list[str]]:
    """Split names so that each part fits on a command line."""
    parts: list[list[str]] = []
    size = LONGEST
    for name in names:
        size += len(os.fsencode(name)) + 1
        if size > LONGEST:
            parts.append([])
            size = len(os.fsencode(name)) + 1
        parts[-1].append(name)
    return parts


def _explained(folder: Path, printed: str) -> GitError:
    lines = [line for line in printed.strip().splitlines() if line] or ["it does not say why"]
    reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
    reason = reason.removeprefix("fatal: ").removeprefix("error: ")
    if "dubious ownership" in printed:
        return GitError(
            f"git refuses a checkout of another owner ({reason});"
            f" to allow it: git config --global --add safe.directory {_around(folder) or folder}"
        )
    if "not a git repository" in printed:
        around = _around(folder)
        if around is None or os.environ.get("GIT_CEILING_DIRECTORIES"):
            return NoRepositoryError(f"{folder} is in no git repository")
        return GitError(f"git takes {around / '.git'} for no repository, as when its HEAD is damaged ({reason})")
    if re.search(r"\bindex (file|entry|uses)|bad signature", reason):
        return GitError(f"the index of git is damaged ({reason}); to make it again: rm .git/index && git reset")
    return GitError(f"git fails ({reason}): see `git -C {folder} status`")


def _around(folder: Path) -> Path | None:
    return next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
