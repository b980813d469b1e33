"""Compiled functions, kept on disk: all processes of a machine load what one of them has compiled."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab.run.files import write_text
from lab.run.lock import Lock

LOCK_SECONDS = 600.0  # to wait for a process that compiles the same function
ROOMS = ("algo", "common", "memory", "net")  # whose code decides what is traced

Run = Callable[[list[Tensor]], list[Tensor]]
Traced = tuple[torch.fx.GraphModule, Any]


def folder() -> Path:
    """Return the directory of compiled functions; it may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lab" / "compiled"


def load(trace: Callable[[], Traced], examples: list[Tensor], settings: Any) -> tuple[Run, Any]:
    """Return a compiled function of a list of tensors, and the structure of its result.

    Args:
        trace: returns the function as a graph, and the structure of its result as plain data.
        examples: inputs of it.
        settings: plain data that determines the graph, beside the code of lab and `examples`; None if nothing does.
    """
    known = None if settings is None else folder() / f"{_digest(_code(), settings, _describe(examples))}.json"
    if known and known.exists():
        entry = json.loads(known.read_text())
        path = folder() / entry["library"] / "library.pt2"
        if path.exists():
            return _open(path), entry["structure"]
    graph, structure = trace()
    name = _digest(graph.code, [_constant(graph, node) for node in graph.graph.nodes], _describe(examples))
    path = folder() / name / "library.pt2"
    if not path.exists():
        lock = Lock(path.parent)
        lock.acquire(LOCK_SECONDS)
        try:
            if not path.exists():
                _compile(graph, examples, path)
        finally:
            lock.release()
    if known:
        write_text(known, json.dumps({"library": name, "structure": structure}))
    return _open(path), structure


def _compile(graph: torch.fx.GraphModule, examples: list[Tensor], path: Path) -> None:
    aside = path.with_name(f"{os.getpid()}.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, tuple(examples), strict=False)
        torch._inductor.aoti_compile_and_package(program, package_path=str(aside))
    aside.replace(path)


def _open(path: Path) -> Run:
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
