"""Directories of others stay as they are, and nothing is written or removed through links."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, find_level
from lab.run.files import read_json
from lab.run.guard import WRITING_SECONDS
from lab.training.stack import Stack
from tests import synthetic
from tests.helpers import go_on, result, specs

OVERRIDES = (
    "algo=dqn", "net.hidden=[8]", "frames=600", "log.every=100", "log.tensorboard=false", "eval.every=200",
    "eval.episodes=1", "checkpoint.every=200", "algo.learning_starts=100", "seed=3",
)  # fmt: skip


def train(folder: Path) -> str:
    """Train or resume the Session of these tests in a folder; return how it ended."""
    return go_on(specs(*OVERRIDES), [RunDir(folder)])[0]


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("whole") / "session"
    assert train(folder) == "completed"
    return RunDir(folder)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("interrupted") / "session"
    stop = (Stack, "save", 2, lambda: signal.raise_signal(signal.SIGTERM))
    assert go_on(specs(*OVERRIDES), [RunDir(folder)], stop) == ["interrupted"]
    return RunDir(folder)


def files(folder: Path) -> dict[str, object]:
    """Return all that is in a folder, links as where they lead to; locks left out."""
    if folder.is_file():
        return {"": folder.read_bytes()}
    contents_by_name: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.name != ".lock":
            content = str(path.readlink()) if path.is_symlink() else path.is_file() and path.read_bytes()
            contents_by_name[str(path.relative_to(folder))] = content
    return contents_by_name


def create(folder: Path, *names: str, content: str = "mine") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text(content)


def linked(folder: Path) -> None:
    folder.mkdir()
    (folder / "metrics.csv").symlink_to("nowhere")


def run_before(path: Path, *names: str, content: str = "mine\n") -> None:
    """Make files that are older than this process."""
    create(path, *names, content=content)
    for name in names:
        os.utime(path / name, (0, 0))


FOREIGN: dict[str, Callable[[Path], object]] = {
    "notes": lambda path: create(path, "notes.txt"),
    "hidden file": lambda path: create(path, ".env"),
    "table of this name": lambda path: create(path, "metrics.csv"),
    "models": lambda path: create(path, "checkpoint/last.pt", "checkpoint/mine.pt"),
    "events": lambda path: create(path, "events.out.tfevents.1"),
    "spec of something else": lambda path: create(path, "spec.yaml", content="openapi: 3\nseed: 1\n"),
    "status of something else": lambda path: create(path, "status.json", content='{"state": "completed"}'),
    "torn status of something else": lambda path: create(path, "status.json", content="{"),
    "torn status among files": lambda path: create(path, "status.json", ".lock", "mine.txt", content="{"),
    "repository": lambda path: create(path, ".git/config", "README.md"),
    "empty folder": lambda path: create(path, "data/"),
    "folder of a seed": lambda path: create(path, "seed-0/data.csv"),
    "run of another program of Hydra": lambda path: run_before(path, ".hydra/config.yaml", ".hydra/hydra.yaml"),
    "its sweep": lambda path: create(path, "multirun.yaml", "0/.hydra/config.yaml"),
    "link": linked,
    "log": lambda path: create(path, "train.log"),
    "file": lambda path: path.write_text("mine"),
    "page": lambda path: create(path, "report.html", "trial.json"),
    "database": lambda path: create(path, "study.db"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_with_foreign_files_is_refused_and_not_changed(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    FOREIGN[kind](folder)
    before = files(folder)
    for acquire in (train, lambda path: SweepDir(path).acquire()):
        with pytest.raises(LabError, match=r"is not empty and holds no (Session|sweep) .*: choose another|is a file"):
            acquire(folder)
        assert files(folder) == before
        assert kind == "file" or not (folder / ".lock").exists() or kind == "torn status among files"


VACANT: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.mkdir(),
    "locked once": lambda path: create(path, ".lock"),
    "status alone": lambda path: RunDir(path).write_status("interrupted", 0, 600),
    "torn status alone": lambda path: create(path, ".lock", "status.json", content=""),
    "record of Hydra": lambda path: run_before(
        path, ".hydra/hydra.yaml", content="hydra:\n  help:\n    app_name: lab\n"
    ),
    "record of Hydra of this process": lambda path: create(path, ".hydra/hydra.yaml", content="hydra:\n"),
    "log of Hydra": lambda path: create(path, "job.log"),
    "replaced": lambda path: create(path, "replaced-1/metrics.csv"),
    "half written": lambda path: create(path, ".status.json.0123456789ab.tmp"),
}


@pytest.mark.parametrize("kind", VACANT)
def test_a_folder_in_which_nothing_started_can_be_acquired(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    VACANT[kind](folder)
    directory = RunDir(folder)
    directory.acquire()
    directory.release()
    assert not list(folder.glob(".*.tmp"))


def test_the_folder_of_a_stack_or_a_sweep_can_be_acquired_again(interrupted: RunDir, tmp_path: Path) -> None:
    shutil.copytree(interrupted.path, tmp_path / "stack" / "seed-3")
    create(tmp_path / "stack", "notes.txt")
    SweepDir(tmp_path / "stack").acquire()
    SweepDir(synthetic.experiment(tmp_path / "sweep", trials=1, seeds=1, rows=3).path).acquire()
    with pytest.raises(LabError, match="is not empty and holds no Session"):
        train(tmp_path / "sweep")


def test_a_folder_with_foreign_seed_folders_is_no_trial(tmp_path: Path) -> None:
    create(tmp_path, "seed-0/data.csv", "card.md")
    with pytest.raises(LabError, match="is not a run directory"):
        find_level(tmp_path)


LINKS = ("episodes.csv", "metrics.csv", "timing.csv", "session.log", "status.json", "spec.yaml", "provenance.json",
         "checkpoint", "checkpoint/last.pt", "checkpoint/previous.pt", "checkpoint/best.pt", "checkpoint/replay",
         "a part of the replay memory", ".lock", ".hydra", "stop.json")  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_or_removed_through_a_link(interrupted: RunDir, tmp_path: Path, name: str) -> None:
    folder, elsewhere = shutil.copytree(interrupted.path, tmp_path / "session"), tmp_path / "elsewhere"
    path = next((folder / "checkpoint/replay").iterdir()) if "part" in name else folder / name
    if path.exists():
        path.rename(elsewhere)
    else:
        create(elsewhere, "theirs.txt")
    path.symlink_to(elsewhere)
    before = files(folder), files(elsewhere)
    with pytest.raises(LabError, match=f"is a link to {elsewhere}, and nothing is written through links"):
        train(folder)
    assert (files(folder), files(elsewhere)) == before


@pytest.mark.parametrize(
    "name", ["trial-000", "trial-000/point.json", "trial-000/seed-0", "sweep.json", "study.db", ".jobs", ".jobs/1.log"]
)
def test_a_sweep_with_a_link_is_refused(tmp_path: Path, name: str) -> None:
    folder, elsewhere = synthetic.experiment(tmp_path / "sweep", trials=1, seeds=1, rows=3).path, tmp_path / "elsewhere"
    create(elsewhere, "theirs.txt") if not (folder / name).exists() else (folder / name).rename(elsewhere)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(LabError, match="is a link to"):
        SweepDir(folder).acquire()


@pytest.mark.law
def test_law_1_hard_links_are_broken_before_writing(interrupted: RunDir, completed: RunDir, tmp_path: Path) -> None:
    folder, cache = tmp_path / "session", tmp_path / "cache"
    shutil.copytree(interrupted.path, cache)
    shutil.copytree(cache, folder, copy_function=os.link)
    before = files(cache)
    assert train(folder) == "completed"
    assert files(cache) == before
    assert result(RunDir(folder)) == result(completed)


def test_a_directory_may_be_reached_by_a_link(interrupted: RunDir, completed: RunDir, tmp_path: Path) -> None:
    shutil.copytree(interrupted.path, tmp_path / "scratch" / "session")
    (tmp_path / "outputs").symlink_to("scratch")
    (tmp_path / "mine").symlink_to("scratch/session")
    create(tmp_path / "scratch" / "session", "checkpoint/replay/mine.pt", "checkpoint/replay/7-mine.pt")
    assert train(tmp_path / "mine") == "completed"
    assert result(RunDir(tmp_path / "outputs" / "session")) == result(completed)
    replay = tmp_path / "scratch" / "session" / "checkpoint" / "replay"
    assert (replay / "mine.pt").read_text() == (replay / "7-mine.pt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "half a number"])
def test_a_completed_session_with_a_torn_status_is_not_started_again(
    completed: RunDir, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDir(shutil.copytree(completed.path, tmp_path / "session"))
    before, status = files(directory.path), directory.status.read_bytes()
    contents = {"empty": b"", "cut": status[:50], "half a number": status.replace(b"600", b"60")}
    directory.status.unlink() if damage == "missing" else directory.status.write_bytes(contents[damage])
    with pytest.raises(LabError, match=r"already holds a Session \(completed at frame 600\)"):
        train(directory.path)
    assert {**files(directory.path), "status.json": ""} == {**before, "status.json": ""}
    assert "From the other files it is completed at frame 600" in capsys.readouterr().err
    again = read_json(directory.status)
    assert (again["state"], again["tables"]) == ("completed", read_json(completed.status)["tables"])


@pytest.mark.law
def test_law_1_an_interrupted_session_with_a_torn_status_resumes(
    interrupted: RunDir, completed: RunDir, tmp_path: Path
) -> None:
    directory = RunDir(shutil.copytree(interrupted.path, tmp_path / "session"))
    directory.status.write_text("{")
    assert train(directory.path) == "completed"
    assert result(directory) == result(completed)
    assert "status.json cannot be read" in directory.log.read_text()


def test_a_session_without_its_spec_is_not_resumed(interrupted: RunDir, tmp_path: Path) -> None:
    directory = RunDir(shutil.copytree(interrupted.path, tmp_path / "session"))
    before = files(directory.path)
    directory.spec.unlink()
    with pytest.raises(LabError, match=r"spec\.yaml is missing, so what Session is there is not known"):
        train(directory.path)
    assert {name for name in before if name != "spec.yaml"} == set(files(directory.path))


def test_half_written_files_of_killed_processes_are_removed(interrupted: RunDir, tmp_path: Path) -> None:
    directory = RunDir(shutil.copytree(interrupted.path, tmp_path / "session"))
    left = [".status.json.{}.tmp", "checkpoint/.last.pt.{}.tmp", "checkpoint/replay/.0-10.pt.{}.tmp"]
    left = [name.format("0123456789ab") for name in left]
    others = [".session.png.0123456789ab.tmp", ".mine.tmp", ".mine.0123.tmp"]
    create(directory.path, *left, *others, ".trial.json.0123456789ab.tmp")
    old = time.time() - 2 * WRITING_SECONDS
    os.utime(directory.path / ".trial.json.0123456789ab.tmp", (old, old))
    directory.acquire()
    assert {path.name for path in directory.path.rglob("*.tmp")} == set(others)
