from __future__ import annotations

import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, acquire_directory, find_level, find_sessions
from lab.run.files import write_json
from lab.run.schemas import ENDED


def test_one_process_at_a_time_acquires_a_directory(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path), RunDir(tmp_path)
    assert first.lock.is_held() is False
    first.acquire()
    assert second.lock.is_held() is True
    with pytest.raises(LabError, match=r"is in use: process \d+ on host .* trains a Session there"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_each_of_many_processes_acquires_a_directory_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "date" / "12-30-00"
    with get_context("fork").Pool(4) as pool:
        acquired = pool.map(acquire_directory, [path] * 8, chunksize=1)
    assert sorted(acquired) == sorted([path, *(path.with_name(f"12-30-00-{number}") for number in range(2, 9))])
    (path / ".hydra").mkdir()
    (path / "job.log").touch()
    command = [sys.executable, "-c", f"from lab.run.directory import *; print(acquire_directory(Path({str(path)!r})))"]
    assert subprocess.check_output(command, text=True).strip() == str(path), "Hydra's own files are no run"
    (path / "status.json").touch()
    assert subprocess.check_output(command, text=True).strip() == f"{path}-2"


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


@pytest.mark.parametrize("state", ENDED)
def test_a_session_that_ended_is_not_started_again(tmp_path: Path, state: str) -> None:
    directory = RunDir(tmp_path)
    directory.write_status(state, 10, 100)
    with pytest.raises(LabError, match=rf"already holds a Session \({state} at frame 10\)"):
        directory.acquire()
    assert directory.lock.is_held() is False


def test_results_are_moved_aside_and_other_files_stay(tmp_path: Path) -> None:
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


def test_the_level_of_a_directory(tmp_path: Path) -> None:
    sweep = SweepDir(tmp_path)
    write_json(sweep.sweep, {"kind": "experiment"})
    assert find_level(tmp_path) == "experiment", "it was started and has no Trial yet"
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
