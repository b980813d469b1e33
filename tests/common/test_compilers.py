from __future__ import annotations

from pathlib import Path

import pytest

from lab.common.compilers import find_compiler, require_compiler
from lab.errors import LabError


def program(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_compiler_that_cxx_names_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang, own = program(tmp_path / "clang++"), program(tmp_path / "own")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler() == clang
    first = program(tmp_path / "g++")
    assert find_compiler() == first
    for name in ("own", own):
        monkeypatch.setenv("CXX", name)
        assert find_compiler() == own
    monkeypatch.setenv("CXX", "absent")
    assert find_compiler() == first


def test_no_compiler_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "g++")
    assert find_compiler() is None
    with pytest.raises(LabError, match=r"compile=true is not possible here: no C\+\+ compiler .* compile=false"):
        require_compiler()
