from __future__ import annotations

import errno
import fcntl
import json
import platform
from pathlib import Path

import pytest

from lab.common.text import flatten
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, find_level, find_sessions
from lab.run.files import read_json, write_json
from lab.run.schemas import ENDED
from lab.run.table import Table


def test_tables_give_back_the_same_bits(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv", ["frame", "value", "note"])
    table.add({"frame": 1, "value": 0.1 + 0.2}, {"frame": 2, "value": None, "note": "a,b"})
    table.close()
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines == ["frame,value,note", "1,0.30000000000000004,", '2,,"a,b"']
    assert float(lines[1].split(",")[1]) == 0.1 + 0.2


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": 2}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": 2}}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"does not exist: is .* a run directory"):
        RunDir(tmp_path).read_status()
    (tmp_path / "status.json").write_text('{"state": ')
    with pytest.raises(LabError, match="cannot be read"):
        read_json(tmp_path / "status.json")


def test_a_directory_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path), RunDir(tmp_path)
    assert first.lock.is_held() is False
    first.acquire()
    assert second.lock.is_held() is True
    with pytest.raises(LabError, match=r"is in use: process \d+ on host .* trains a Session there"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_sessions_are_found_at_every_level_in_order(tmp_path: Path) -> None:
    for number in (10, 9):
        for seed in (11, 2):
            RunDir(tmp_path / f"trial-{number:03}" / f"seed-{seed}").write_status("running", 0, 10)
    (tmp_path / "trial-009" / "seed-3").mkdir()
    write_json(tmp_path / ".code" / "seed-1" / "status.json", {})
    names = ["trial-009/seed-2", "trial-009/seed-11", "trial-010/seed-2", "trial-010/seed-11"]
    assert [str(session.path.relative_to(tmp_path)) for session in find_sessions(tmp_path)] == names
    assert [session.path.name for session in find_sessions(tmp_path / "trial-009")] == ["seed-2", "seed-11"]
    assert [session.path for session in find_sessions(tmp_path / names[0])] == [tmp_path / names[0]]


def test_a_session_whose_process_is_gone_counts_as_interrupted(tmp_path: Path) -> None:
    directory = RunDir(tmp_path)
    directory.acquire()
    directory.write_status("running", 10, 100)
    assert directory.read_status()["state"] == "running"
    assert not directory.is_abandoned()
    directory.release()
    assert directory.read_status()["state"] == "interrupted"
    assert directory.is_abandoned()
    directory.acquire()  # an interrupted Session may be begun again


@pytest.mark.parametrize("state", ENDED)
def test_a_session_that_ended_is_not_begun_again(tmp_path: Path, state: str) -> None:
    directory = RunDir(tmp_path)
    directory.write_status(state, 10, 100)
    with pytest.raises(LabError, match=rf"already holds a Session \({state} at frame 10\)"):
        directory.acquire()
    assert directory.lock.is_held() is False


@pytest.mark.parametrize(("host", "state"), [(platform.node(), "interrupted"), ("another", "running")])
def test_without_locks_the_process_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, state: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    directory = RunDir(tmp_path)
    directory.acquire()
    directory.write_status("running", 10, 100)
    assert directory.read_status()["state"] == "running"
    gone = {**read_json(directory.status), "pid": 2**22 + 1, "host": host}
    write_json(directory.status, gone)
    assert directory.read_status()["state"] == state, "of a process elsewhere nothing is known"


def test_replacing_moves_what_is_the_sessions_and_leaves_the_rest(tmp_path: Path) -> None:
    directory = RunDir(tmp_path)
    for number in (1, 2):
        directory.write_status("failed", 1, 2)
        directory.ask_to_stop("pruned", "why")
        for name in ("events.out.tfevents.1", "notes.txt", "metrics.csv", "checkpoint/best.pt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"{number}")
        assert directory.move_results_aside() == tmp_path / f"replaced-{number}"
        assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "replaced-1", "replaced-2"} - {
            f"replaced-{number + 1}"
        }
        assert (tmp_path / f"replaced-{number}" / "checkpoint" / "best.pt").read_text() == f"{number}"
    assert directory.read_stop_request() is None
    assert directory.move_results_aside() is None


def test_what_a_directory_holds(tmp_path: Path) -> None:
    sweep = SweepDir(tmp_path)
    write_json(sweep.sweep, {"kind": "experiment"})
    assert find_level(tmp_path) == "experiment", "one that was begun and has no Trial yet"
    session = sweep.trial(1234).session(7)
    session.write_status("completed", 1, 1)
    assert [find_level(path) for path in (tmp_path, session.path.parent, session.path)] == [
        "experiment",
        "trial",
        "session",
    ]
    assert sweep.trials()[0].number == 1234
    assert sweep.trials()[0].seeds() == [7]
    assert sweep.trial(3).path.name == "trial-003"


def test_a_table_that_grows_is_never_seen_with_a_torn_row(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv", ["a", "b"])
    assert (tmp_path / "table.csv").read_text() == "a,b\n"
    for row in range(5000):
        table.add({"a": row, "b": row / 7})
        text = (tmp_path / "table.csv").read_text() if row % 100 == 0 else "\n"
        assert text.endswith("\n")
    table.close()
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 5001


def test_the_leaves_of_a_spec() -> None:
    assert flatten({"a": 1, "b": {"c": [1], "d": {}}}) == {"a": 1, "b.c": [1], "b.d": {}}


def test_a_session_of_another_host_runs_as_long_as_it_says_so(tmp_path: Path) -> None:
    session = RunDir(tmp_path)
    session.write_status("running", 10, 100)
    assert session.read_status()["state"] == "interrupted", "of this host, as nobody holds the directory"
    far = {**read_json(session.status), "host": "elsewhere"}
    write_json(session.status, far)
    assert session.read_status()["state"] == "running"
    write_json(session.status, {**far, "updated": "2020-01-01T00:00:00+00:00"})
    assert session.read_status()["state"] == "interrupted"
