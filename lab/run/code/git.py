"""Running git: its output, or a sentence that says why it fails and what to do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

SECONDS = 60.0  # after which git counts as hanging
LOCAL_VARIABLES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE",
)  # as `git rev-parse --local-env-vars` lists them, without settings  # fmt: skip
SETTINGS = {
    "LC_ALL": "C",  # its messages are parsed below
    "GIT_OPTIONAL_LOCKS": "0",  # reading changes nothing
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",  # in a partial clone
}


class GitError(Exception):
    """Why git fails, as a sentence without its full stop."""


class NoRepositoryError(GitError):
    """The folder is in no git repository."""


def run_git(folder: Path, *arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> bytes:
    """Run git in a folder and return what it prints.

    Raises:
        NoRepositoryError: the folder is in no git repository.
        GitError: git is not installed, hangs or fails.
    """
    try:
        process = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            check=False,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**clean_environment(), **SETTINGS, **(env or {})},
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
    if process.returncode:
        raise _explain(folder, process.stderr.decode(errors="replace"))
    return process.stdout


def succeeds(folder: Path, *arguments: str) -> bool:
    """Return whether git succeeds."""
    try:
        run_git(folder, *arguments)
    except GitError:
        return False
    return True


def clean_environment() -> dict[str, str]:
    """Return the environment without the variables of a git hook, which point to another checkout or index."""
    return {name: value for name, value in os.environ.items() if name not in LOCAL_VARIABLES}


def list_names(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
    """Return the names that git prints, with -z among its arguments."""
    return [os.fsdecode(name) for name in run_git(folder, *arguments, env=env).split(b"\0") if name]


def find_root(folder: Path) -> Path:
    """Return the root of the checkout around a folder.

    Raises:
        NoRepositoryError: there is none.
        GitError: git fails.
    """
    return Path(os.fsdecode(run_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")))


def read_head(root: Path) -> tuple[str | None, str | None]:
    """Return the commit and the branch that are checked out; None for either that does not exist.

    Raises:
        GitError: git fails.
    """
    try:
        sha = run_git(root, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    except GitError as error:
        try:
            run_git(root, "log", "-1", "--format=%H", "--no-show-signature")
        except GitError as reason:
            if "does not have any commits yet" not in str(reason):
                raise reason from error
        sha = ""
    try:
        branch = run_git(root, "symbolic-ref", "--short", "--quiet", "HEAD").decode().strip()
    except GitError:
        branch = ""
    return sha or None, branch or None


def find_tracking_root(file: Path) -> Path | None:
    """Return the root of the repository that tracks a file; None if the repository around it does not.

    Raises:
        GitError: there is no repository, or git fails.
    """
    root = find_root(file.parent)
    try:
        tracked = bool(list_names(file.parent, "--literal-pathspecs", "ls-files", "-z", "--", file.name))
    except GitError:  # the index is damaged
        if not succeeds(file.parent, "cat-file", "-e", f"HEAD:./{file.name}"):
            raise
        tracked = True
    return root if tracked else None


def _explain(folder: Path, stderr: str) -> GitError:
    lines = [line for line in stderr.strip().splitlines() if line] or ["it does not say why"]
    reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
    reason = reason.removeprefix("fatal: ").removeprefix("error: ")
    around = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
    if "dubious ownership" in stderr:
        return GitError(
            f"git refuses a checkout of another owner ({reason});"
            f" to allow it: git config --global --add safe.directory {around or folder}"
        )
    if "not a git repository" in stderr:
        if around is None or os.environ.get("GIT_CEILING_DIRECTORIES"):
            return NoRepositoryError(f"{folder} is in no git repository")
        return GitError(f"git takes {around / '.git'} for no repository, as when its HEAD is damaged ({reason})")
    if re.search(r"\bindex (file|entry|uses)|bad signature", reason):
        return GitError(f"the index of git is damaged ({reason}); to make it again: rm .git/index && git reset")
    return GitError(f"git fails ({reason}): see `git -C {folder} status`")
