"""A full disk: a sweep waits for room, and goes on with the points that it would have had."""

from __future__ import annotations

import errno
import os
import sqlite3
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from lab.analysis.objective import Objective
from lab.experiment import Experiment
from lab.launch.watchdog import Watchdog
from lab.run import disk as room
from lab.run import files
from lab.run.directory import SweepDir
from lab.run.disk import DiskSpace, failed_on_full_disk, is_disk_full
from lab.sweep.overrides import SweepOverrides
from lab.sweep.plan import SweepPlan
from lab.sweep.study import Study
from lab.sweep.tree import Tree
from lab.trial import Job, Point
from tests import synthetic
from tests.helpers import specs

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SECONDS", 0.01)
    monkeypatch.setattr(room, "POLL_SECONDS", 0.005)


def test_a_full_disk_is_recognized_behind_other_errors() -> None:
    assert is_disk_full(FULL)
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(OSError(errno.EACCES, "no"))
    try:
        try:
            raise sqlite3.OperationalError("database or disk is full")
        except sqlite3.OperationalError as error:
            raise RuntimeError("the storage failed") from error
    except RuntimeError as error:
        assert is_disk_full(error)


def test_what_failed_on_a_full_disk_is_repaired_and_repeated(tmp_path: Path) -> None:
    calls: list[str] = []
    messages: list[str] = []

    def action() -> None:
        calls.append("action")
        if len(calls) < 4:
            raise FULL

    def recover() -> None:
        calls.append("recover")
        if len(calls) == 2:
            raise FULL

    assert DiskSpace(tmp_path, messages.append).attempt(action, recover, lambda: False)
    assert calls == ["action", "recover", "recover", "action"]
    assert [text.split(":")[0] for text in messages[::2]] == [f"The disk of {tmp_path} is full"] * 2
    assert not list(tmp_path.iterdir())


def test_waiting_for_space_can_be_stopped(tmp_path: Path) -> None:
    def full() -> None:
        raise FULL

    assert not DiskSpace(tmp_path, print).attempt(full, lambda: None, lambda: True)
    with pytest.raises(OSError, match="no"):
        DiskSpace(tmp_path, print).attempt(lambda: (_ for _ in ()).throw(OSError("no")), lambda: None, lambda: True)


class Launcher:
    """Makes up what Sessions leave; the first of Trial 1 fails once because the disk is full."""

    def __init__(self) -> None:
        self.launched: list[int] = []
        self.spec = specs("algo=a2c", "env=cartpole")[0].to_dict()

    def submit(self, jobs: list[Job]) -> list[Future[str | None]]:
        futures: list[Future[str | None]] = [Future() for _ in jobs]
        for job, future in zip(jobs, futures, strict=True):
            self.launched += job.trials
            for (trial, seed), directory in job.sessions.items():
                directory.path.mkdir(parents=True, exist_ok=True)
                if trial == 1 and self.launched.count(1) == 1:
                    directory.write_status("failed", 7, 10, f"x\n{FULL.strerror}", lost=True)
                else:
                    rng = np.random.default_rng((trial, seed))
                    synthetic.session(directory, {**self.spec, "seed": seed}, "completed", 100.0 + trial, 5, rng)
            future.set_result(None)
        return futures

    def adopt(self) -> list[Any]:
        return []

    def kill(self, job: Job) -> None: ...

    def stop(self) -> None: ...

    def error(self, future: Future[str | None]) -> str | None:
        return future.result()


class Always(Launcher):
    """Runs jobs of which none fails."""

    def submit(self, jobs: list[Job]) -> list[Future[str | None]]:
        self.launched.append(1)
        return super().submit(jobs)


def searched(folder: Path, launcher: Launcher) -> list[tuple[dict[str, float], list[float] | None]]:
    """Run a search of five Trials, and return their points and values."""
    folder.mkdir(exist_ok=True)

    class MadeUpPlan(SweepPlan):
        def point(self, number: int, suggested: dict[str, Any]) -> Point:
            return Point([f"algo.lr={suggested['algo.lr']}"], suggested)

    objective = Objective(("return",), ("maximize",), "mean")
    settings: Any = SimpleNamespace(
        search=True, retry=False, rungs=10, max_failure_rate=1.0, detach=False, only_trial=None
    )
    composer: Any = None
    plan = MadeUpPlan(SweepDir(folder), composer, settings, SweepOverrides([0]), objective, None, 5, prune=False)
    study = Study(
        ["maximize"],
        optuna.pruners.NopPruner(),
        lambda number: optuna.samplers.TPESampler(seed=number, n_startup_trials=2),
        {"algo.lr": FloatDistribution(1e-4, 1e-1, log=True)},
        path=folder / "study.db",
    )
    experiment = Experiment(plan, study, launcher, Tree("made up", 5, 1, 10, objective), Watchdog(None))
    experiment.open()
    experiment.run()
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db").trials
    return [(trial.params, trial.values) for trial in trials]


def test_a_search_continues_as_if_the_disk_had_not_been_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = searched(tmp_path / "whole", Always())
    original, ask, tell = files.write_atomically, Study.ask, Study.tell
    lacking = {"point.json", "ask", "tell"}

    def write(path: Path, content: bytes) -> None:
        if path.parent.name == "trial-002" and path.name in lacking:
            lacking.remove(path.name)
            raise FULL
        original(path, content)

    def once(name: str, method: Any) -> Any:
        def call(self: Study, *arguments: Any) -> Any:
            if name in lacking and len(self._study.trials) == 4:
                lacking.remove(name)
                if name == "ask":
                    method(self, *arguments)  # half of it is in the file by then
                raise RuntimeError("storage") from sqlite3.OperationalError("database or disk is full")
            return method(self, *arguments)

        return call

    monkeypatch.setattr(files, "write_atomically", write)
    monkeypatch.setattr(Study, "ask", once("ask", ask))
    monkeypatch.setattr(Study, "tell", once("tell", tell))
    launcher = Launcher()
    assert searched(tmp_path / "full", launcher) == expected
    assert not lacking
    assert launcher.launched == [0, 1, 1, 2, 3, 4]
    out = capsys.readouterr().out
    assert out.count("is full: the sweep goes on when there is space") == 4


def test_resuming_a_sweep_that_was_stopped_on_a_full_disk_runs_what_failed_for_it(tmp_path: Path) -> None:
    expected = searched(tmp_path, Always())
    session = SweepDir(tmp_path).trial(1).session(0)
    session.write_status("failed", 1, 10, str(FULL), lost=True)
    assert failed_on_full_disk({0: session})
    launcher = Always()
    assert searched(tmp_path, launcher) == expected
    assert session.read_status()["state"] == "completed"
