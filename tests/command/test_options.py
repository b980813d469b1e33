"""Arguments of commands: directories, options, and the usage that is made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.command.options import command, option
from lab.common.validation import Count
from lab.errors import LabError


@dataclass
class Options:
    count: Count = option(3, "how many " * 30)
    out: str = option("", "where to", shown="out=DIR")
    fast: bool = option(False, "whether to hurry", shown="--fast")


@command("a directory", Options, "First.\n\nSecond.")
def one(path: Path, options: Options) -> None:
    calls.append((path, options))


@command("directories", Options, several=True)
def several(paths: list[Path], options: Options) -> None:
    calls.append((paths, options))


@command("a directory", overrides="changes")
def with_overrides(path: Path, overrides: list[str]) -> None:
    calls.append((path, overrides))


calls: list[Any] = []


def test_one_directory_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(LabError, match="takes one directory, and a and b are two"):
        one(["a", "b"])


def test_arguments_are_directories_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    calls.clear()
    one(["lr=1", "count=1e1", "--fast"])
    several(["out=a=b", "lr=1", "lrx"])
    with_overrides(["a", "+b=1", "~c"])
    assert calls == [
        (Path("lr=1"), Options(10, "", True)),
        ([Path("lr=1"), Path("lrx")], Options(3, "a=b", False)),
        (Path("a"), ["+b=1", "~c"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a", "cuont=1"], "cuont cannot be set: test_options has no key 'cuont'. Did you mean 'count'?"),
        (["a", "count=0"], "count=0 is not allowed: count must be a whole number, 1 or more"),
        (["a", "b"], "'b' is not understood: options are written key=value"),
        (["count=1"], "the run directory is missing: python -m lab test_options DIR count=1"),
    ],
)
def test_mistakes_are_sentences(arguments: list[str], sentence: str) -> None:
    with pytest.raises(LabError) as error:
        one(arguments)
    assert sentence in str(error.value)


def test_the_usage_is_made_from_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["a", "--help"]):
        one(arguments)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Usage: python -m lab test_options DIR [--fast] [key=value ...]"
        assert lines[2] == "  DIR      a directory"
        assert lines[3].startswith("  count=3  how many how many")
        assert lines[4].startswith("           many") or lines[4].startswith("           how")
        assert "  out=DIR  where to" in lines
        assert lines[-4:] == ["", "First.", "", "Second."]
        assert max(map(len, lines)) <= 120
