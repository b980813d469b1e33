"""The command line in a child process of a Python program, which shows what it prints and learns how it ended.

The program's own state is left alone: its threads and random generators, its signals and working directory, Hydra's
globals and `sys.argv`. The child is the command that a user would type, so its results are the same, and its provenance
names a command that can be given again.
"""

from __future__ import annotations

import codecs
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from lab.common.text import quote
from lab.errors import LabError, visible
from lab.launch.supervise import CALLER

MULTIRUN = ("-m", "--multirun")
PRINTING = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info")  # and train nothing
POLL_SECONDS = 1.0  # between two looks at whether a process that prints nothing still runs


@dataclass
class Ended:
    """How the command line ended.

    Attributes:
        status: its exit status.
        messages: what it told by `notify_supervisor`, by kind.
        interrupted: whether this process received Ctrl-C meanwhile.
    """

    status: int
    messages: dict[str, list[Any]] = field(default_factory=dict)
    interrupted: bool = False

    def last(self, *kinds: str) -> str | None:
        """Return the last message of the first of some kinds that there was; None if there was none."""
        return next((str(self.messages[kind][-1]) for kind in kinds if kind in self.messages), None)


def train_arguments(
    overrides: Sequence[str], seeds: Sequence[int] | None, directory: str | os.PathLike[str] | None
) -> list[str]:
    """Return the arguments that train what `lab.train` is asked for.

    Raises:
        LabError: it is not a list of texts, or trains nothing.
    """
    if not isinstance(overrides, (list, tuple)) or not all(isinstance(line, str) for line in overrides):
        raise LabError(f'overrides={overrides!r} is not allowed: overrides is a list of texts, as ["algo=ppo"].')
    printing = next((line for line in overrides if line.partition("=")[0] in PRINTING), None)
    if printing or "plan=true" in overrides:
        raise LabError(f"{printing or 'plan=true'} trains nothing: give it on the command line, python -m lab.")
    lines = [line for line in overrides if line not in MULTIRUN]
    sweeps = len(lines) < len(overrides) or _sweeps(lines)
    if isinstance(seeds, (int, str)):
        raise LabError(f"seeds={seeds!r} is not allowed: seeds is a list of numbers, as [0, 1, 2, 3].")
    if seeds is not None:
        given = next((line for line in lines if line.lstrip("+").partition("=")[0] == "seed"), None)
        if given or not seeds:
            raise LabError(f"{given or 'seeds=[]'} is not allowed: give seeds=[0, 1] alone, one or more of them.")
        lines.append(f"seed={','.join(str(seed) for seed in seeds)}")
        sweeps = sweeps or len(seeds) > 1
    if directory is not None:
        lines.append(f"hydra.{'sweep' if sweeps else 'run'}.dir={quote(str(directory))}")
    return [*(["-m"] if sweeps else []), *lines]


def _sweeps(lines: Sequence[str]) -> bool:
    """Whether overrides have several values for a key, or choose a search; the command line explains mistakes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for line in lines:
        if line.startswith("-"):
            continue
        try:
            (override,) = OverridesParser.create().parse_overrides([line])
        except HydraException:
            continue
        is_search = override.key_or_group == "search" and override.value() is not None
        if override.is_sweep_override() or is_search or line == "hydra.mode=MULTIRUN":
            return True
    return False


def run_command_line(arguments: Sequence[str], show: bool = True) -> Ended:
    """Run `python -m lab` with arguments, and wait for its end.

    Ctrl-C is passed on, and everything is written before this returns. If this process ends, the child is asked to
    save its work and end.

    Args:
        arguments: of the command line.
        show: whether its output is shown as it comes: on the terminal of this process, or as lines on `sys.stdout`,
            which a notebook shows. Its warnings and errors always are.
    """
    reader, writer = os.pipe()
    on_terminal = _is_terminal(sys.stdout, 1) and _is_terminal(sys.stderr, 2)
    output = None if show and on_terminal else subprocess.PIPE if show else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if on_terminal else subprocess.PIPE,
            env=_environment(on_terminal) | {CALLER: f"{os.getpid()} {writer}"},
            pass_fds=(writer,),
            start_new_session=True,  # Ctrl-C reaches it through this process alone
        )
    finally:
        os.close(writer)
    with process, os.fdopen(reader, "rb", buffering=0) as messages:
        return _follow(process, messages)


def _follow(process: subprocess.Popen[bytes], messages: IO[bytes]) -> Ended:
    """Show what a process prints until it ends, and pass Ctrl-C on to it."""
    ended, received = Ended(-1), b""
    decode = {name: codecs.getincrementaldecoder("utf-8")("replace").decode for name in ("stdout", "stderr")}
    with selectors.DefaultSelector() as selector:
        selector.register(messages, selectors.EVENT_READ, "messages")
        for name in decode:
            if stream := getattr(process, name):
                selector.register(stream, selectors.EVENT_READ, name)
        while selector.get_map():
            try:
                ready = selector.select(POLL_SECONDS)
                if not ready and process.poll() is not None:  # a process that outlives it may hold its output
                    break
                for key, _ in ready:
                    content = os.read(key.fd, 65536)
                    if not content:
                        selector.unregister(key.fileobj)
                    if key.data == "messages":
                        received += content
                    else:
                        print(visible(decode[key.data](content)), end="", file=getattr(sys, key.data), flush=True)
            except KeyboardInterrupt:
                ended.interrupted = True
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)
    while True:
        try:
            ended.status = process.wait()
            break
        except KeyboardInterrupt:
            ended.interrupted = True
            process.send_signal(signal.SIGINT)
    for kind, message in map(json.loads, received.splitlines()):
        ended.messages.setdefault(kind, []).append(message)
    return ended


def _environment(on_terminal: bool) -> dict[str, str]:
    """Return the environment of the child: that of this process, without what a notebook sets for its own output."""
    of_notebook = () if on_terminal else ("FORCE_COLOR", "CLICOLOR_FORCE", "MPLBACKEND")
    return {name: value for name, value in os.environ.items() if name not in of_notebook}


def _is_terminal(stream: Any, number: int) -> bool:
    """Whether a stream is the terminal that a child inherits."""
    try:
        return bool(stream.isatty()) and stream.fileno() == number
    except (AttributeError, OSError, ValueError):  # as in a notebook
        return False
