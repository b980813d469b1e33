"""Where a result came from: code, packages, machine and command."""

from __future__ import annotations

import functools
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

import yaml

from lab.run_dir import now, read_json, read_yaml

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for a tree with nothing in it
UNTRACKED_BUDGET = 20 * 2**20  # bytes of untracked files that a patch may hold; those beyond it are named, not stored
PIPELINE = "dvc.lock"  # what DVC keeps of the pipeline that it ran, at the root of a checkout
GIT_LOCAL = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE",
)  # as `git rev-parse --local-env-vars` lists them, but for settings  # fmt: skip
MOST_NAMES = 100  # names of files left out that are listed
FROZEN = (".provenance.json", ".uncommitted.patch")  # what a frozen copy of the code knows of it, beside the package


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
    git, patch = describe_code(outputs)
    facts = {
        "start": now(),
        "end": None,
        "command": shlex.join(command),
        "directory": str(Path.cwd()),
        "git": git,
        **machine(device),
        "host": platform.node(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "device": device,
        "threads": threads,
        "stack": stack,
    }
    return Provenance(facts, patch)


def machine(device: str) -> dict[str, Any]:
    """Return what numbers may depend on besides the code: versions, CPU, and the GPU where a device is one."""
    return {
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count()},
        "gpu": _gpu(device),
    }


@functools.cache
def packages() -> dict[str, str]:
    """Return the version of each installed distribution by its name."""
    found = {str(dist.metadata["Name"]).lower(): dist for dist in metadata.distributions() if dist.metadata["Name"]}
    return {found[name].metadata["Name"]: found[name].version for name in sorted(found)}


def package() -> Path:
    """Return the directory of the package that runs."""
    return Path(__file__).resolve().parent


def is_frozen() -> bool:
    """Say whether the package that runs lies in a frozen copy."""
    return (package().parent / FROZEN[0]).exists()


def describe_code(outputs: Path) -> tuple[dict[str, Any], bytes]:
    """Return what git knows of the code, and the patch; those of when it was frozen, if it was."""
    if is_frozen():
        facts, patch = (package().parent / name for name in FROZEN)
        return read_json(facts), patch.read_bytes()
    return _git(outputs)


def _git(outputs: Path) -> tuple[dict[str, Any], bytes]:
    """Describe the checkout that the code is run from, and what in it is not committed."""
    absent: dict[str, Any] = {"sha": None, "branch": None, "uncommitted": None, "left_out": [], "within": None}
    if shutil.which("git") is None:
        return {**absent, "note": "git is not installed, so the code has no SHA"}, b""
    root = checkout()
    if root is None:
        return {**absent, "note": "neither the code nor the working directory is in a git checkout"}, b""
    try:
        head = ask_git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False).decode().strip()
        branch = ask_git(root, "symbolic-ref", "--short", "--quiet", "HEAD", check=False).decode().strip()
        patch, left_out = _uncommitted(root, head or EMPTY_TREE, outputs)
    except (subprocess.CalledProcessError, OSError) as error:
        return {**absent, "note": f"git could not be asked: {error}"}, b""
    return {
        "sha": head or None,
        "branch": branch or None,
        "uncommitted": bool(patch),
        "left_out": left_out,
        "within": str(Path.cwd().relative_to(root)) if Path.cwd().is_relative_to(root) else None,
        "note": None if head else "the checkout has no commit yet",
    }, patch


def checkout() -> Path | None:
    """Return the root of the checkout that tracks this package, or else of the one around the working directory."""
    return checkout_of_package() or _toplevel(Path.cwd())


def checkout_of_package() -> Path | None:
    """Return the root of the checkout that tracks this package, if one does."""
    try:
        ask_git(package(), "ls-files", "--error-unmatch", "__init__.py")
    except (subprocess.CalledProcessError, OSError):
        return None
    return _toplevel(package())


def _toplevel(folder: Path) -> Path | None:
    try:
        return Path(os.fsdecode(ask_git(folder, "rev-parse", "--show-toplevel").strip(b"\n")))
    except (subprocess.CalledProcessError, OSError):
        return None


def _uncommitted(root: Path, base: str, outputs: Path) -> tuple[bytes, list[str]]:
    """Return the patch from a commit to the working tree, untracked files included, and the files too large for it."""
    # What a pipeline writes while it runs is no code: its later stages have the code that its first one had.
    written = ["--", ".", *(f":(exclude,literal,top){name}" for name in _written_by_pipeline(root))]
    listed = ask_git(root, "ls-files", "--others", "--exclude-standard", "-z", *written).split(b"\0")
    results = {outputs.resolve(), *(root / os.fsdecode(name) for name in _run_directories(listed))}
    sizes = {}
    untracked, left_out, budget = [], [], UNTRACKED_BUDGET
    for name in filter(None, listed):
        path = root / os.fsdecode(name)
        if name.endswith(b"/"):  # a checkout of its own, of which git stores nothing
            left_out.append(os.fsdecode(name))
        elif (path.is_symlink() or path.is_file()) and results.isdisjoint(path.parents):
            sizes[name] = path.lstat().st_size
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
        original = root / os.fsdecode(ask_git(root, "rev-parse", "--git-path", "index").strip(b"\n"))
        if original.exists():
            shutil.copy2(original, index)  # by its time git knows which files it must look into
        env = {"GIT_INDEX_FILE": str(index)}
        if untracked:
            names = b"\0".join(untracked)
            literal = ("--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            ask_git(root, *literal, stdin=names, env=env)
        # As `git apply` takes it, whatever somebody's settings are.
        form = ("--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--unified=3", "--submodule=short")
        words = ("diff", *form, "--src-prefix=a/", "--dst-prefix=b/", base, *written)
        return ask_git(root, *words, env=env), left_out


def _run_directories(names: list[bytes]) -> set[bytes]:
    """Return the run directories among untracked files, whose results are no code."""
    known = set(names)
    folders = {name.rpartition(b"/")[0] for name in names if name.endswith(b"/.lock")}
    found = {folder for folder in folders for file in (b"status.json", b"sweep.json") if folder + b"/" + file in known}
    stacks = {folder.rpartition(b"/")[0] for folder in found if folder.rpartition(b"/")[2].startswith(b"seed-")}
    return (found | stacks) - {b""}


def _written_by_pipeline(root: Path) -> list[str]:
    """Return the paths below a checkout that its DVC pipeline writes, as far as it has run."""
    if not (root / PIPELINE).exists():
        return []
    try:
        lock = read_yaml(root / PIPELINE)
        stages = lock.get("stages", {}).values()
    except (yaml.YAMLError, AttributeError):  # as after a merge that is not finished
        return [PIPELINE]
    return [PIPELINE, *(out["path"] for stage in stages for out in stage.get("outs", ()))]


def ask_git(
    folder: Path, *words: str, check: bool = True, stdin: bytes | None = None, env: dict[str, str] | None = None
) -> bytes:
    """Run git in a folder and return what it prints."""
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        check=check,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**without_git(), **(env or {})},
    )
    return done.stdout


def without_git() -> dict[str, str]:
    """Return the environment without what a hook of git is told, which would lead to another checkout or index."""
    return {name: value for name, value in os.environ.items() if name not in GIT_LOCAL}


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

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None


def command_line() -> list[str]:
    """Return the words of this process's command line, `python -m lab` included."""
    return list(getattr(sys, "orig_argv", sys.argv))
