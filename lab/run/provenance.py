"""Where a result came from: code, packages, machine and command."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.run.code.snapshot import CodeSnapshot
from lab.run.status import utc_now
from lab.run.trust import user_name

CONFIG_DIR = ("--config-dir", "-cd")  # Hydra's options for a folder of the user's own config groups


@dataclass
class Provenance:
    """The content of provenance.json, and the code, of which it holds a description and the files beside it patches."""

    facts: dict[str, Any]
    code: CodeSnapshot


def collect(command: list[str], device: str, threads: int, stack: list[int], outputs: Path) -> Provenance:
    """Collect the provenance of Sessions that this process trains.

    Args:
        command: the command line.
        device: where the Sessions compute.
        threads: that they may use.
        stack: their seeds.
        outputs: the run directory, which is not code although it may lie beside it.
    """
    code = CodeSnapshot.take(outputs, config_dirs(command))
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
    versions = {str(dist.metadata["Name"]): dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
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
