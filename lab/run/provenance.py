"""Where a result came from: code, packages, machine and command."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.code.packages import changed_since
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import read_json, write_atomically, write_sealed_json
from lab.run.guard import move_aside
from lab.run.schemas import PROVENANCE
from lab.run.status import utc_now
from lab.run.trust import user_name

# What is recorded of each process that resumes a Session.
RESUMED = ("restore", "start", "command", "user", "host", "device", "stack", "git", "repositories", "code")
CONFIG_DIR = ("--config-dir", "-cd")  # Hydra's options for a folder of the user's own config groups


@dataclass
class Provenance:
    """The content of provenance.json, and the code, of which it holds a description and the files beside it patches."""

    facts: dict[str, Any]
    code: CodeSnapshot

    def write(
        self, directory: RunDir, frame: int | None, notes: list[str], own: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """Write provenance.json, or add to it that this process resumes the Session at a frame.

        Args:
            directory: of the Session.
            frame: None to start.
            notes: a warning is added if the file is damaged.
            own: facts of this Session alone.

        Returns:
            Its content, and the packages whose code changed since the Session was started.
        """
        if frame is None:
            content, changed, stem = {**self.facts, **own}, [], "uncommitted"
        else:
            content = self._read(directory, frame, notes)
            changed = changed_since(directory, self.facts["code"])
            resumed = content.setdefault("resumed", [])
            resumed.append({"frame": frame, **{name: self.facts[name] for name in RESUMED}, **own})
            stem = f"uncommitted-{len(resumed)}"
        write_sealed_json(directory.provenance, content)
        if frame is None or changed:
            for name, patch in self.code.patches(stem).items():
                write_atomically(directory.path / name, patch, private=True)
        return content, changed

    def _read(self, directory: RunDir, frame: int, notes: list[str]) -> dict[str, Any]:
        """Return the content of provenance.json or, if it is damaged, the facts that are known now."""
        try:
            return read_json(directory.provenance, PROVENANCE)
        except LabError as error:
            move_aside(directory.path, re.compile(re.escape(directory.provenance.name)))
            notes.append(f"{error} What the Session was started with is not known any more.")
            note = f"provenance.json was damaged when the Session was resumed at frame {frame:,}"
            git = {**self.facts["git"], "sha": None, "branch": None, "uncommitted": None, "left_out": {}, "note": note}
            return {**self.facts, "git": git, "repositories": [], "code": {}}


def collect(
    command: list[str], device: str, threads: int, stack: list[int], outputs: Path, max_size: int | None = None
) -> Provenance:
    """Collect the provenance of Sessions that this process trains.

    Args:
        command: the command line.
        device: where the Sessions compute.
        threads: that they may use.
        stack: their seeds.
        outputs: the run directory, which is not code although it may lie beside it.
        max_size: of an uncommitted file that is kept, in bytes; None for exclusions.LARGEST_FILE.
    """
    code = CodeSnapshot.take(outputs, config_dirs(command), max_size)
    facts = {
        "start": utc_now(),
        "end": None,
        "command": shlex.join(command),
        "directory": str(Path.cwd()),
        **code.to_dict(),
        **machine(device),
        "user": user_name(),
        "host": platform.node(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "device": device,
        "threads": threads,
        "stack": stack,
    }
    return Provenance(facts, code)


def config_dirs(command: Sequence[str]) -> list[Path]:
    """Return the folders of the user's own config groups that a command line names."""
    folders = []
    for argument, following in pairwise([*command, ""]):
        option, equals, value = argument.partition("=")
        folder = value if equals else following
        if option in CONFIG_DIR and folder and Path(folder).is_dir():
            folders.append(Path(folder))
    return folders


def machine(device: str) -> dict[str, Any]:
    """Return what numbers may depend on besides the code: versions, CPU, and the GPU if the device is one."""
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device) if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count()},
        "gpu": gpu,
    }


@functools.cache
def packages() -> dict[str, str]:
    """Return the version of each installed distribution by its name."""
    described = [dist.metadata for dist in metadata.distributions()]  # parsed again at each access
    versions = {str(one["Name"]): str(one["Version"]) for one in described if one["Name"]}
    return dict(sorted(versions.items(), key=lambda pair: pair[0].lower()))


def _cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def command_line() -> list[str]:
    """Return the command line of this process, `python -m lab` included."""
    return list(getattr(sys, "orig_argv", sys.argv))
