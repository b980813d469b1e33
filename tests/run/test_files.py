from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.files import read_json, write_json
from lab.run.table import Table


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": 2}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": 2}}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"does not exist: is .* a run directory"):
        RunDir(tmp_path).read_status()
    (tmp_path / "status.json").write_text('{"state": ')
    with pytest.raises(LabError, match="cannot be read"):
        read_json(tmp_path / "status.json")


def test_reading_a_table_gives_the_same_bits(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv", ["frame", "value", "note"])
    table.add({"frame": 1, "value": 0.1 + 0.2}, {"frame": 2, "value": None, "note": "a,b"})
    table.close()
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines == ["frame,value,note", "1,0.30000000000000004,", '2,,"a,b"']
    assert float(lines[1].split(",")[1]) == 0.1 + 0.2


def test_a_reader_never_sees_a_partial_row(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv", ["a", "b"])
    assert (tmp_path / "table.csv").read_text() == "a,b\n"
    for row in range(5000):
        table.add({"a": row, "b": row / 7})
        text = (tmp_path / "table.csv").read_text() if row % 100 == 0 else "\n"
        assert text.endswith("\n")
    table.close()
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 5001
