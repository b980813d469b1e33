"""Compiled functions, kept on disk: all processes of a machine load what one of them has compiled."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab.common.signals import was_asked_to_stop
from lab.errors import LabError, summary, warn_once
from lab.run.files import write_text
from lab.run.lock import Lock

LIBRARY = "library.pt2"  # in a directory of its own
LOCK_SECONDS = 600.0  # to wait for a process that compiles the same function
ROOMS = ("algo", "common", "memory", "net")  # whose code decides what is traced

Run = Callable[[list[Tensor]], list[Tensor]]
Traced = tuple[torch.fx.GraphModule, list[Tensor], Any]  # a graph, examples of its inputs, and its layout


def folder() -> Path:
    """Return the directory of compiled functions; it may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lab" / "compiled"


@cache
def _own_folder() -> Path:
    """Return a directory that is removed when this process ends."""
    path = Path(tempfile.mkdtemp(prefix="lab-compiled-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def load(trace: Callable[[], Traced], examples: list[Tensor], settings: Any) -> tuple[Run, Any]:
    """Return a compiled function of a list of tensors, and its layout.

    Args:
        trace: returns the function as a graph, examples of its inputs, and its layout as plain data.
        examples: tensors that it may depend on.
        settings: plain data that determines the graph, beside the code of lab and `examples`; None if nothing does.

    Raises:
        LabError: no directory can be written.
    """
    trace = cache(trace)
    try:
        return _load(folder(), trace, examples, settings)
    except OSError as error:
        warn_once(
            f"Compiled functions cannot be kept in {folder()} ({error.strerror}): each process compiles its own. Set"
            " XDG_CACHE_HOME to a directory that can be written."
        )
    try:
        return _load(_own_folder(), trace, examples, settings)
    except OSError as error:
        raise LabError(
            f"Compiled functions can be written neither to {folder()} nor to {tempfile.gettempdir()} ({error}). Make"
            " room, set XDG_CACHE_HOME to another directory, or use compile=false."
        ) from error


def _load(place: Path, trace: Callable[[], Traced], examples: list[Tensor], settings: Any) -> tuple[Run, Any]:
    known = None if settings is None else place / f"{_digest(_code(), settings, _describe(examples))}.json"
    if known:
        with suppress(OSError, ValueError, LookupError, TypeError):  # absent, or damaged
            entry = json.loads(known.read_bytes())
            run = _open(place / entry["library"] / LIBRARY)
            if run:
                return run, entry["layout"]
    graph, inputs, layout = trace()
    name = _digest(graph.code, [_constant(graph, node) for node in graph.graph.nodes], _describe(inputs))
    path = place / name / LIBRARY
    run = _open(path)
    if run is None:
        lock = Lock(path.parent)
        lock.acquire(LOCK_SECONDS)
        try:
            run = _open(path) or _compile(graph, inputs, path)
        finally:
            lock.release()
    if known:
        with suppress(OSError):  # a full disk; the library is there
            write_text(known, json.dumps({"library": name, "layout": layout}))
    return run, layout


def _compile(graph: torch.fx.GraphModule, examples: list[Tensor], path: Path) -> Run:
    from torch._inductor.utils import fresh_cache

    aside = path.with_name(f"{os.getpid()}.pt2")
    try:
        with fresh_cache(), warnings.catch_warnings():  # leaves compiled headers alone in /tmp
            warnings.simplefilter("ignore")
            program = torch.export.export(graph, tuple(examples), strict=False)
            torch._inductor.aoti_compile_and_package(program, package_path=str(aside))
        aside.replace(path)
    except (OSError, LabError):
        raise
    except Exception as error:
        if was_asked_to_stop():  # Ctrl-C reaches the compiler too
            raise KeyboardInterrupt from error
        raise LabError(
            f"compile=true is not possible here: compiling failed ({summary(error)}). Is the C++ compiler whole? Use"
            " compile=false."
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return _read(path)


def _open(path: Path) -> Run | None:
    """Return a library that was compiled before; None if there is none, or it is damaged."""
    try:
        return _read(path) if path.exists() else None
    except RuntimeError:
        return None


def _read(path: Path) -> Run:
    # As torch._inductor.aoti_load_package, but without the imports that compiling takes, of some two seconds.
    run: Run = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1).boxed_run
    return run


def _describe(examples: list[Tensor]) -> Any:
    """Return what a compiled function depends on beside its graph."""
    layouts = [(tuple(t.shape), t.stride()[1:], str(t.dtype), str(t.device)) for t in examples]
    return torch.__version__, torch.get_num_threads(), _machine(), layouts


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _constant(graph: torch.fx.GraphModule, node: torch.fx.Node) -> Any:
    """Return the numbers of a tensor that is part of a graph; None for other nodes."""
    return getattr(graph, str(node.target)).tolist() if node.op == "get_attr" else None


@cache
def _machine() -> str:
    """Return the instructions that the machine has, as libraries use them all."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return torch.backends.cpu.get_cpu_capability() + flags


@cache
def _code() -> str:
    paths = [path for room in ROOMS for path in sorted((Path(__file__).parents[1] / room).glob("*.py"))]
    return _digest([path.read_bytes() for path in paths])
