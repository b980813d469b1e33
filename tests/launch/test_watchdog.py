"""Finding jobs that hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.launch import watchdog
from lab.launch.watchdog import Watchdog
from lab.run.directory import RunDir
from lab.trial import Job


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watchdog, "monotonic", made)
    return made


def test_a_job_without_a_step_hangs_and_one_that_waits_does_not(tmp_path: Path, clock: Clock) -> None:
    sessions = [RunDir(tmp_path / name) for name in ("goes", "hangs", "waits", "ended")]
    jobs = [Job([], {(0, 0): session}) for session in sessions]
    for session in sessions[:2]:
        assert session.lock.acquire()
        session.write_status("running", 10, 1000)
    sessions[3].write_status("completed", 1000, 1000)
    watch = Watchdog(1.0)
    assert watch.find_hung(jobs) == []
    for frame in range(20, 140, 10):
        clock.time += 10
        sessions[0].write_status("running", frame, 1000)
        hung = watch.find_hung(jobs)
        assert hung == ([jobs[1]] if frame == 70 else []), "once, after a minute"
    assert watch.reason(jobs[1]) == "No step for 1 minutes at frame 10: it hung, so its process was killed."
    assert watch.reason(jobs[0]) is None


def test_without_a_limit_nothing_hangs(tmp_path: Path, clock: Clock) -> None:
    session = RunDir(tmp_path)
    assert session.lock.acquire()
    session.write_status("running", 10, 1000)
    watch = Watchdog(None)
    for _ in range(3):
        clock.time += 1e6
        assert watch.find_hung([Job([], {(0, 0): session})]) == []
