"""Where a result came from: code, packages, machine and command."""

from __future__ import annotations

import functools
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lab.run.code.snapshot import CodeSnapshot
from lab.run.status import utc_now
from lab.run.trust import user_name

CONFIG_DIR = ("--config-dir", "-cd")  # Hydra's options for the folder of the user's own config groups


@dataclass
class Provenance:
    """What `provenance.json` and the patches beside it hold.

    Attributes:
        facts: plain data.
        code: the state of the code.
    """

    facts: dict[str, Any]
    code: CodeSnapshot


def collect(command: list[str], device: str, threads: int, stack: list[int], outputs: Path) -> Provenance:
    """Look at the code, the packages and the machine.

    Args:
        command: the words of the command line.
        device: where the Session computes.
        threads: threads that it may use.
        stack: seeds of the Sessions that are trained in lockstep.
        outputs: the run directory, which is not part of the code although it may lie beside it.
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
    found = []
    for word, following in zip(command, [*command[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        named = value if equals else following
        if option in CONFIG_DIR and named and Path(named).is_dir():
            found.append(Path(named))
    return found


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
