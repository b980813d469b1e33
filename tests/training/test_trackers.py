"""Trackers: they get what TensorBoard gets, go on when a Session is resumed, and never harm it."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.errors import LabError
from lab.run import trackers as known
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.training import tracker_worker, trackers
from lab.training.lockstep import check_spaces
from lab.training.stack import Stack
from tests.helpers import QUIET, go_on, result, specs, train_specs

FAKE = """
import json, os, time

def note(*what):
    with open(os.environ["FAKE_LOG"], "a") as file:
        print(json.dumps(what), file=file)

class Settings:
    def __init__(self, **values):
        pass

class Run:
    url = None
    def __init__(self, id):
        self.id, self.config, self.summary = id, self, self
    def update(self, values, allow_val_change=False):
        note("update", self.id, values)
    def log(self, values, step):
        note("log", self.id, step, values)
    def mark_preempting(self):
        note("preempting", self.id)
    def finish(self, exit_code):
        if os.environ["FAKE_DO"] == "hang":
            time.sleep(600)
        note("finish", self.id, exit_code)

def init(id, settings, **values):
    if os.environ["FAKE_DO"] == "raise":
        raise ValueError("no API key")
    if os.environ["FAKE_DO"] == "die":
        os._exit(7)
    note("init", id, values)
    return Run(id)
"""
TRACKED = ("algo=a2c", "env=cartpole", "frames=1000", *QUIET, "log.trackers={wandb: {project: mine, mode: offline}}")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module in the place of wandb, which writes what is asked of it to the file that is returned."""
    (tmp_path / "modules" / "wandb").mkdir(parents=True)
    (tmp_path / "modules" / "wandb" / "__init__.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_DO", "work")
    return tmp_path / "log"


def said(log: Path, what: str) -> list[Any]:
    return [message[1:] for message in map(json.loads, log.read_text().splitlines()) if message[0] == what]


def no_process_is_left() -> bool:
    return not [p for p in psutil.Process().children(recursive=True) if "lab.training.tracker_worker" in p.cmdline()]


def test_a_tracker_gets_what_tensorboard_gets_and_changes_no_number(fake: Path, tmp_path: Path) -> None:
    made = specs("seed=[0,1]", *TRACKED)
    directories = [RunDir(tmp_path / "outputs" / "t" / f"seed-{spec.seed}") for spec in made]
    go_on(made, directories)
    plain = train_specs(tmp_path / "plain", specs("seed=[0,1]", *TRACKED[:-1]))
    assert [result(each) for each in directories] == [result(each) for each in plain]
    started = dict(said(fake, "init"))
    assert {values["name"] for values in started.values()} == {"a2c_cartpole seed 0", "a2c_cartpole seed 1"}
    for values in started.values():
        assert (values["project"], values["mode"], values["resume"]) == ("mine", "offline", "allow")
        assert values["group"].endswith("outputs/t") and values["tags"] == ["a2c", "cartpole"]
    for directory in directories:
        identity = read_json(known.tracker_path(directory.path, "wandb"))["id"]
        config, summary = (values for one, values in said(fake, "update") if one == identity)
        assert config["algo.optimizer.lr"] == specs(*TRACKED)[0].algo.optimizer.lr and config["env.id"] == "CartPole-v1"
        rows = [(step, values) for one, step, values in said(fake, "log") if one == identity]
        lines = directory.metrics.read_text().splitlines()
        assert [step for step, _ in rows] == [int(line.split(",")[0]) for line in lines[1:]]
        assert {"rollout/ep_rew_mean", "train/policy_loss", "time/fps"} <= rows[-1][1].keys()
        assert rows[-1][1]["rollout/ep_rew_mean"] == pytest.approx(directory.read_status()["return"])
        assert summary["return"] == pytest.approx(directory.read_status()["return"])
        assert summary["state"] == "completed" and [identity, 0] in said(fake, "finish")
    assert no_process_is_left()


def test_a_resumed_session_goes_on_in_its_run(fake: Path, tmp_path: Path) -> None:
    made, directory = specs(*TRACKED, "frames=2000"), RunDir(tmp_path / "session")

    def interrupt() -> None:
        raise KeyboardInterrupt

    assert go_on(made, [directory], (Stack, "collect_and_learn", 5, interrupt)) == ["interrupted"]
    assert go_on(made, [directory]) == ["completed"]
    assert len({identity for identity, _ in said(fake, "init")}) == 1
    assert [code for _, code in said(fake, "finish")] == [130, 0] and len(said(fake, "preempting")) == 1


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("raise", "ValueError: no API key"),
        ("die", "its process ended"),
        ("hang", "it had not sent everything 0.5 seconds after the end"),
    ],
)
def test_a_tracker_that_fails_is_one_warning(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, problem: str
) -> None:
    monkeypatch.setenv("FAKE_DO", fault)
    if fault == "hang":
        monkeypatch.setattr(trackers, "FINISH_SECONDS", 0.5)
    directory = RunDir(tmp_path / "session")
    assert go_on(specs(*TRACKED), [directory]) == ["completed"]
    (line,) = [line for line in directory.log.read_text().splitlines() if "Weights & Biases" in line]
    assert "WARNING" in line and problem in line
    assert no_process_is_left()


def test_a_tracker_outlives_its_session_by_no_more_than_its_grace(fake: Path) -> None:
    from lab.training.trackers import _Worker

    worker = _Worker.get("wandb")
    worker.open("x", {"resumed": False})
    process = worker._process
    assert process
    start = time.monotonic()
    worker.close("x", "interrupted")
    assert process.poll() is not None and time.monotonic() - start < trackers.STOP_SECONDS


def test_a_process_that_was_forked_meanwhile_keeps_no_tracker(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "FINISH_SECONDS", 20.0)
    worker = trackers._Worker.get("wandb")
    worker.open("x", {"resumed": False})
    pid = os.fork()  # as of an environment
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        worker.close("x", "completed")
        assert not [problem for problem in worker.messages("x") if "had not sent everything" in problem]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_runs_of_a_process_that_was_killed_are_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    class Fake:
        def start(self, run: str, message: Any, known: Any) -> dict[str, Any]:
            asked.append(("start", known))
            return {"id": "1"}

        def row(self, run: str, frame: int, values: Any) -> None:
            asked.append(("row", frame))

        def finish(self, run: str, state: str, results: Any) -> None:
            asked.append(("finish", state))

    monkeypatch.setitem(tracker_worker.TRACKERS, "wandb", Fake)
    run = str(tmp_path)
    start = {"do": "start", "run": run, "resumed": True}
    lines = [json.dumps(start), json.dumps({"do": "row", "run": run, "frame": 5, "values": {}}), '{"do": "ro']
    for before in ({}, {"id": "1"}):
        asked.clear()
        tracker_worker.follow("wandb", io.StringIO("\n".join(lines)), problems := io.StringIO())
        assert asked == [("start", before), ("row", 5), ("finish", "interrupted")] and not problems.getvalue()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("[wandbb]", "Did you mean 'wandb'?"),
        ("{wandb: {projekt: x}}", "log.trackers.wandb.projekt cannot be set"),
        ("{wandb: {project: 3}}", "it must be a word"),
        ("{mlflow: {tags: x}}", "it must be a list of words"),
        ("{mlflow: x}", "write its arguments by name"),
    ],
)
def test_mistakes_are_sentences(value: str, sentence: str) -> None:
    with pytest.raises(LabError, match=r".") as error:
        specs("algo=a2c", f"log.trackers={value}")
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{wandb: {mode: ofline}}", "log.trackers.wandb.mode=ofline is not allowed: it must be one of online"),
        ("{wandb: {project: a/b}}", "log.trackers.wandb.project=a/b is not allowed"),
        ("{wandb: {tags: ['']}}", "log.trackers.wandb.tags= is not allowed"),
        ("{wandb: {dir: README.md/x}}", "log.trackers.wandb.dir=README.md/x is not allowed: README.md is a file."),
        ("{mlflow: {experiment: ''}}", "log.trackers.mlflow.experiment= is not allowed"),
        ("{mlflow: {tracking_uri: 'htp://x'}}", "log.trackers.mlflow.tracking_uri=htp://x is not allowed"),
        ("[mlflow]", "MLFLOW_TRACKING_URI=htps://y is not allowed"),
        ("[wandb]", "WANDB_MODE=of is not allowed"),
    ],
)
def test_what_a_tracker_would_refuse_is_refused_before_training(
    value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_is_installed", lambda package: True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htps://y")
    monkeypatch.setenv("WANDB_MODE", "of")
    (made,) = specs("algo=a2c", "env=cartpole", f"log.trackers={value}")
    with pytest.raises(LabError) as error:
        check_spaces([made])
    assert sentence in str(error.value)


def test_what_a_tracker_takes_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_is_installed", lambda package: True)
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    for uri in ("runs", "file:///tmp/x", "sqlite:///m.db", "postgresql+psycopg2://u@h/d", "databricks://profile"):
        known.require_usable({"wandb": {"tags": ["a b"]}, "mlflow": {"tracking_uri": uri}})


def test_trackers_are_a_name_names_or_a_mapping_to_arguments() -> None:
    for value in ("wandb", "[wandb]", "{wandb: null}", "{wandb: {}}"):
        assert known.read_trackers(specs("algo=a2c", f"log.trackers={value}")[0].log.trackers) == {"wandb": {}}


def test_a_tracker_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_is_installed", lambda package: False)
    made = specs("algo=a2c", "env=cartpole", "log.trackers=[mlflow]")
    with pytest.raises(LabError, match=r"pip install -e '\.\[mlflow\]'"):
        check_spaces(made)
    monkeypatch.setenv("LAB_TRACKERS", "off")  # as `rerun` sets it
    check_spaces(made)


@pytest.mark.slow
def test_mlflow_keeps_a_session_that_is_resumed_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setattr(trackers, "STOP_SECONDS", 120.0)  # it makes its database, beside other tests
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracked = (*TRACKED[:-1], "frames=4000", f"log.trackers={{mlflow: {{tracking_uri: '{store}', experiment: mine}}}}")
    directory = RunDir(tmp_path / "session")

    def interrupt() -> None:
        raise KeyboardInterrupt

    assert go_on(specs(*tracked), [directory], (Stack, "collect_and_learn", 8, interrupt)) == ["interrupted"]
    assert go_on(specs(*tracked), [directory]) == ["completed"]
    assert "log.trackers" not in directory.log.read_text()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("mine")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["env.id"] == "CartPole-v1"
    assert run.data.metrics["return"] == pytest.approx(directory.read_status()["return"])
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "time/episodes")]
    lines = directory.metrics.read_text().splitlines()
    assert steps == [int(line.split(",")[0]) for line in lines[1:]]


@pytest.mark.slow
def test_wandb_keeps_a_session_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    directory = RunDir(tmp_path / "session")
    assert go_on(specs(*TRACKED), [directory]) == ["completed"]
    assert "log.trackers" not in directory.log.read_text()
    identity = read_json(known.tracker_path(directory.path, "wandb"))["id"]
    (file,) = directory.path.glob(f"wandb/offline-run-*/run-{identity}.wandb")
    content = file.read_bytes()
    for part in (b"rollout/ep_rew_mean", b"algo.optimizer.lr", b"mine", b"a2c_cartpole seed 0"):
        assert part in content
    assert no_process_is_left()
