"""Locks: who holds one is known, and no forked process keeps it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from lab.command.resume import main as resume
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.lock import Lock
from tests.helpers import train


def test_a_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    lock, other = Lock(tmp_path), Lock(tmp_path)
    assert lock.acquire()
    assert not other.acquire(0)
    assert other.is_held()
    assert other.holder() == f"process {os.getpid()} on host {platform.node()}"
    lock.release()
    assert not other.is_held()
    assert other.holder() == "another process"


def test_a_forked_process_does_not_keep_a_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    assert lock.acquire()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        file, lock._file = lock._file, None  # as when this process is killed: closed, but not unlocked
        assert file
        file.close()
        patience = time.monotonic() + 10  # for the child to begin
        while Lock(tmp_path).is_held():
            assert time.monotonic() < patience
            time.sleep(0.01)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_forked_process_does_not_release_a_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    assert lock.acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert Lock(tmp_path).is_held()
    lock.release()


def test_a_process_that_an_environment_leaves_behind_does_not_keep_the_session(tmp_path: Path) -> None:
    overrides = ("env=gymnasium", "env.id=tests.rogue_process:Leaves-v0", "name=leaves", "env.restore=pickle")
    directory = train(tmp_path, *overrides, "frames=300", "eval.every=0")[0]
    assert directory.read_status()["state"] == "completed"
    assert not directory.lock.is_held()


def test_resume_names_the_process_that_trains(tmp_path: Path) -> None:
    directory = RunDir(tmp_path)
    directory.acquire()
    directory.write_status("running", 0, 10)
    with pytest.raises(LabError, match=rf"is in use: process {os.getpid()} on host .* trains a Session there"):
        resume([str(tmp_path)])
    directory.release()
