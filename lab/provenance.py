"""Where a result came from: code, packages, machine and command."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lab.run_dir import now

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for a tree with nothing in it
UNTRACKED_BUDGET = 20 * 2**20  # bytes of untracked files that a patch may hold; those beyond it are named, not stored
MOST_NAMES = 100  # names of files left out that are listed


@dataclass
class Provenance:
    """What `provenance.json` and `uncommitted.patch` hold.

    Attributes:
        facts: plain data.
        patch: what the working tree had that the commit has not, for `git apply`; empty if nothing.
    """

    facts: dict[str, Any]
    patch: bytes


def collect(command: list[str], device: str, threads: int, stack: list[int], outputs: Path) -> Provenance:
    """Look at the code, the packages and the machine.

    Args:
        command: the words of the command line.
        device: where the Session computes.
        threads: threads that it may use.
        stack: seeds of the Sessions that are trained in lockstep.
        outputs: the run directory, which is not part of the code although it may lie beside it.
    """
    git, patch = _git(outputs)
    facts = {
        "start": now(),
        "end": None,
        "command": shlex.join(command),
        "directory": str(Path.cwd()),
        "git": git,
        "python": platform.python_version(),
        "packages": {dist.metadata["Name"]: dist.version for dist in _distributions()},
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count()},
        "gpu": _gpu(device),
        "device": device,
        "threads": threads,
        "stack": stack,
    }
    return Provenance(facts, patch)


def _distributions() -> list[metadata.Distribution]:
    found = {str(dist.metadata["Name"]).lower(): dist for dist in metadata.distributions() if dist.metadata["Name"]}
    return [found[name] for name in sorted(found)]


def _git(outputs: Path) -> tuple[dict[str, Any], bytes]:
    """Describe the checkout that the code is run from, and what in it is not committed."""
    absent: dict[str, Any] = {"sha": None, "branch": None, "uncommitted": None, "left_out": []}
    if shutil.which("git") is None:
        return {**absent, "note": "git is not installed, so the code has no SHA"}, b""
    root = _checkout()
    if root is None:
        return {**absent, "note": "neither the code nor the working directory is in a git checkout"}, b""
    try:
        head = _run(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False).decode().strip()
        branch = _run(root, "symbolic-ref", "--short", "--quiet", "HEAD", check=False).decode().strip()
        patch, left_out = _uncommitted(root, head or EMPTY_TREE, outputs)
    except (subprocess.CalledProcessError, OSError) as error:
        return {**absent, "note": f"git could not be asked: {error}"}, b""
    return {
        "sha": head or None,
        "branch": branch or None,
        "uncommitted": bool(patch),
        "left_out": left_out,
        "note": None if head else "the checkout has no commit yet",
    }, patch


def _checkout() -> Path | None:
    """Return the root of the checkout that tracks this package, or else of the one around the working directory."""
    package = Path(__file__).resolve().parent
    for folder, tracked in ((package, "__init__.py"), (Path.cwd(), ".")):
        try:
            if tracked == "__init__.py":
                _run(folder, "ls-files", "--error-unmatch", tracked)
            return Path(os.fsdecode(_run(folder, "rev-parse", "--show-toplevel").strip(b"\n")))
        except (subprocess.CalledProcessError, OSError):
            continue
    return None


def _uncommitted(root: Path, base: str, outputs: Path) -> tuple[bytes, list[str]]:
    """Return the patch from a commit to the working tree, untracked files included, and the files too large for it."""
    listed = _run(root, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0")
    sizes = {}
    for name in filter(None, listed):
        path = root / os.fsdecode(name)
        if path.is_file() and outputs.resolve() not in path.parents:
            sizes[name] = path.stat().st_size
    untracked, left_out, budget = [], [], UNTRACKED_BUDGET
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        budget -= sizes[name]
        if budget >= 0:
            untracked.append(name)
        else:
            left_out.append(os.fsdecode(name))
    if len(left_out) > MOST_NAMES:
        left_out[MOST_NAMES:] = [f"and {len(left_out) - MOST_NAMES} more"]
    with tempfile.TemporaryDirectory() as folder:
        # A copy of the index, in which untracked files are marked as meant to be added: the checkout's stays as it is.
        index = Path(folder) / "index"
        original = root / os.fsdecode(_run(root, "rev-parse", "--git-path", "index").strip(b"\n"))
        if original.exists():
            shutil.copy(original, index)
        env = {"GIT_INDEX_FILE": str(index)}
        if untracked:
            names = b"\0".join(untracked)
            literal = ("--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            _run(root, *literal, stdin=names, env=env)
        return _run(root, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", base, env=env), left_out


def _run(
    folder: Path, *words: str, check: bool = True, stdin: bytes | None = None, env: dict[str, str] | None = None
) -> bytes:
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        check=check,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**os.environ, **(env or {})},
    )
    return done.stdout


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device)


def command_line() -> list[str]:
    """Return the words of this process's command line, `python -m lab` included."""
    return list(getattr(sys, "orig_argv", sys.argv))
