from __future__ import annotations

import errno
import fcntl
import platform
from pathlib import Path

import pytest

from lab.run.directory import RunDir
from lab.run.files import read_json, write_json


def test_a_session_whose_process_is_gone_counts_as_interrupted(tmp_path: Path) -> None:
    directory = RunDir(tmp_path)
    directory.acquire()
    directory.write_status("running", 10, 100)
    assert directory.read_status()["state"] == "running"
    assert not directory.is_abandoned()
    directory.release()
    assert directory.read_status()["state"] == "interrupted"
    assert directory.is_abandoned()
    directory.acquire()  # an interrupted Session may be started again


@pytest.mark.parametrize(("host", "state"), [(platform.node(), "interrupted"), ("another", "running")])
def test_without_locks_the_process_number_counts(
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


def test_a_session_of_another_host_runs_while_it_updates_its_status(tmp_path: Path) -> None:
    session = RunDir(tmp_path)
    session.write_status("running", 10, 100)
    assert session.read_status()["state"] == "interrupted", "of this host, as nobody holds the directory"
    far = {**read_json(session.status), "host": "elsewhere"}
    write_json(session.status, far)
    assert session.read_status()["state"] == "running"
    write_json(session.status, {**far, "updated": "2020-01-01T00:00:00+00:00"})
    assert session.read_status()["state"] == "interrupted"
