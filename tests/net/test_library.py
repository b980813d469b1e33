"""Compiled functions on disk. Except in one test, compiling is replaced by writing a text."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from lab import errors
from lab.errors import LabError
from lab.net import library
from tests.helpers import ROOT

EXAMPLES = [torch.ones(1, 4), torch.full((1, 4), 2.0)]


def traced(function: Callable[..., Any], inputs: list[torch.Tensor] = EXAMPLES) -> Callable[[], library.Traced]:
    return lambda: (make_fx(function, tracing_mode="fake")(*inputs), inputs, {"result": 0})


def add(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [x.add_(y).clone()]


def multiply(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [x * y]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Write what is compiled as text, in a cache of its own, and collect where to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[Path] = []

    def compile_(graph: torch.fx.GraphModule, examples: list[torch.Tensor], path: Path) -> library.Run:
        path.write_text(graph.code)
        made.append(path)
        return read(path)

    def read(path: Path) -> Any:
        if b"forward" not in path.read_bytes():
            raise RuntimeError("not a library")
        return lambda inputs: [path]

    monkeypatch.setattr(library, "_compile", compile_)
    monkeypatch.setattr(library, "_read", read)
    return made


def test_a_function_is_compiled_once(compiled: list[Path]) -> None:
    calls = []

    def trace() -> library.Traced:
        calls.append(1)
        return traced(add)()

    for settings in (["add"], ["add"], ["other"], None):
        run, layout = library.load(trace, EXAMPLES, settings)
        assert run([]) == compiled
        assert layout == {"result": 0}
    assert len(calls) == 3, "not where its settings are known"
    library.load(traced(multiply), EXAMPLES, ["multiply"])
    assert len(compiled) == 2


def test_a_function_is_compiled_for_its_shapes_and_threads(compiled: list[Path]) -> None:
    library.load(traced(add), EXAMPLES, ["add"])
    longer = [torch.ones(1, 5), torch.ones(1, 5)]
    library.load(traced(add, longer), longer, ["add"])
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        library.load(traced(add), EXAMPLES, ["add"])
    finally:
        torch.set_num_threads(threads)
    assert len(set(compiled)) == 3


def test_numbers_in_a_graph_are_part_of_it(compiled: list[Path]) -> None:
    def shift(number: float) -> Callable[..., Any]:
        return lambda x, y: [x + y + torch.tensor([number, 0, 0, 0])]

    for number in (1.0, 2.0):
        library.load(traced(shift(number)), EXAMPLES, None)
    assert len(set(compiled)) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"library": 3}', b'{"library": "other", "layout": 0}', b"\xff"])
def test_damaged_files_are_made_again(compiled: list[Path], damage: bytes) -> None:
    library.load(traced(add), EXAMPLES, ["add"])
    (known,) = library.folder().glob("*.json")
    whole = known.read_bytes()
    known.write_bytes(damage)
    library.load(traced(add), EXAMPLES, ["add"])
    assert known.read_bytes() == whole
    assert len(compiled) == 1
    compiled[0].write_bytes(damage)
    run, _ = library.load(traced(add), EXAMPLES, ["add"])
    assert run([]) == compiled[:1]
    assert len(compiled) == 2


def test_a_cache_that_cannot_be_written(
    compiled: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(errors, "_warned", set())
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(library, "_own_folder", lambda: tmp_path / "own")
    for _ in range(2):
        library.load(traced(add), EXAMPLES, ["add"])
    assert len(compiled) == 1
    assert compiled[0].is_relative_to(tmp_path / "own")
    assert capsys.readouterr().err == (
        f"Note: Compiled functions cannot be kept in {tmp_path}/file/lab/compiled (Not a directory): each process"
        " compiles its own. Set XDG_CACHE_HOME to a directory that can be written.\n"
    )


def test_a_full_disk(compiled: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(library, "write_text", full)
    library.load(traced(add), EXAMPLES, ["add"])
    assert len(compiled) == 1, "what is compiled is there"
    monkeypatch.setattr(library, "_compile", full)
    with pytest.raises(LabError, match=r"can be written neither to .*No space left on device.*compile=false"):
        library.load(traced(multiply), EXAMPLES, ["multiply"])


def compile_slowly(graph: torch.fx.GraphModule, examples: list[torch.Tensor], path: Path) -> library.Run:
    with (path.parent / "compiled").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(1)
    path.write_text("library")
    return lambda inputs: inputs


def in_another_process(cache: str, start: float) -> None:
    os.environ["XDG_CACHE_HOME"] = cache
    library._compile = compile_slowly  # type: ignore[assignment]
    library._read = lambda path: lambda inputs: inputs  # type: ignore[assignment]
    time.sleep(max(0.0, start - time.time()))
    library.load(traced(add), EXAMPLES, ["add"])


def test_processes_wait_for_the_one_that_compiles(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = time.time() + 0.5
    processes = [context.Process(target=in_another_process, args=(str(tmp_path), start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (once,) = tmp_path.rglob("compiled/*/compiled")
    assert len(once.read_text().splitlines()) == 1


COMPILE = """
import sys
import torch
from lab.net import library
from tests.net.test_library import EXAMPLES, add, traced
run, _ = library.load(traced(add), EXAMPLES, ["add"])
print(run([torch.ones(1, 4), torch.full((1, 4), 2.0)])[0].tolist(), "torch._inductor" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.law
def test_a_library_is_compiled_loaded_and_mended(tmp_path: Path) -> None:
    def output() -> str:
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path / "aside")}
        command = [sys.executable, "-c", COMPILE]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True).stdout

    (tmp_path / "aside").mkdir()
    assert output() == "[[3.0, 3.0, 3.0, 3.0]] True\n"
    (path,) = tmp_path.rglob(library.LIBRARY)
    assert sorted(file.name for file in path.parent.iterdir()) == [".lock", library.LIBRARY]
    left = [
        file for file in (tmp_path / "aside").rglob("*") if file.is_file() and "precompiled_headers" not in file.parts
    ]
    assert not left, "only the headers that torch has compiled for all functions"
    assert output() == "[[3.0, 3.0, 3.0, 3.0]] False\n"
    path.write_bytes(path.read_bytes()[:1000])
    assert output() == "[[3.0, 3.0, 3.0, 3.0]] True\n"


def test_a_compiler_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("C++ compile error\nCommand: g++ ...")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", broken)
    with pytest.raises(LabError, match=r"failed \(RuntimeError: C\+\+ compile error\). Is the C\+\+ compiler"):
        library.load(traced(add), EXAMPLES, ["add"])
    assert not list(tmp_path.rglob("*.pt2"))
