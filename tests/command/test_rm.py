"""`rm` and `tag`: what is removed, and above all what is not."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.command import rm, tag
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir
from lab.run.files import write_json
from lab.run.lock import Lock
from lab.run.removal import remove
from lab.run.tags import read_tags
from tests import synthetic
from tests.helpers import git, lab, specs


def make_session(path: Path, state: str = "completed") -> Path:
    spec = specs("algo=a2c", "env=cartpole")[0].to_dict()
    synthetic.session(RunDir(path), spec, state, 100.0, 4, np.random.default_rng(0))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make up outputs: a completed Session, a failed one, and an Experiment."""
    outputs = tmp_path_factory.mktemp("removal") / "outputs"
    make_session(outputs / "a2c_cartpole/2026-01-02/03-04-05")
    make_session(outputs / "a2c_cartpole/2026-01-03/03-04-05", "failed")
    synthetic.experiment(outputs / "search", 2, seeds=2, rows=4)
    return outputs


@pytest.fixture
def outputs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "outputs")
    return Path("outputs")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_command_removes_what_meets_conditions_and_its_empty_folder(outputs: Path) -> None:
    before = files(outputs)
    done = lab("rm", "outputs", "state=failed", cwd=outputs.absolute().parent)
    assert done.returncode == 2 and "1 run with 1 Session" in done.stderr and "add --yes" in done.stderr
    assert files(outputs) == before
    done = lab("rm", "outputs", "state=failed", "--yes", cwd=outputs.absolute().parent)
    assert done.returncode == 0 and "a2c_cartpole/2026-01-03/03-04-05" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Removed 1 run with 1 Session, ")
    assert files(outputs) == {name for name in before if not name.startswith("a2c_cartpole/2026-01-03")}


def test_it_asks(outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, left in (("n\n", True), ("y\n", False)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        rm.main([str(outputs / "search")])
        assert (outputs / "search").exists() is left
    assert capsys.readouterr().out.count("Remove 1 run with 4 Sessions") == 2


def refused(*arguments: str) -> str:
    with pytest.raises(LabError, match=r".") as error:
        rm.main([*arguments, "--yes"])
    return str(error.value)


def test_what_must_stay_stays(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(outputs / "search")
    (outputs / "a2c_cartpole/2026-01-02/03-04-05/notes.txt").touch()
    (tmp_path / "folder").mkdir()
    before = files(outputs)
    assert "is a link to" in refused("link")
    assert "is part of" in refused(str(outputs / "search/trial-000"))
    assert "is part of" in refused(str(outputs / "search/trial-000/seed-0"))
    assert "is not a run directory" in refused("folder")
    assert "is not a run directory" in refused(str(outputs))
    assert "holds what Lab did not write: notes.txt" in refused(str(outputs / "a2c_cartpole/2026-01-02/03-04-05"))
    assert "nothing is removed" in refused(str(outputs / "search"), "link")
    assert files(outputs) == before


def test_what_has_a_tag_stays_also_inside(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tag.main([str(outputs / "search/trial-001/seed-0"), "paper"])
    assert "has the tag paper in trial-001/seed-0" in refused(str(outputs / "search"))
    rm.main([str(outputs), "algo=a2c", "--yes"])
    printed = capsys.readouterr().out
    assert "Kept: outputs/search has the tag paper" in printed and "Removed 2 runs" in printed
    assert [path.name for path in outputs.iterdir()] == ["search"]


def test_what_runs_stays(outputs: Path) -> None:
    lock = Lock(outputs / "search")
    assert lock.acquire()
    assert "is running" in refused(str(outputs / "search"))
    lock.release()
    session = RunDir(outputs / "a2c_cartpole/2026-01-02/03-04-05")
    assert session.lock.acquire()
    session.write_status("running", 0, 100)
    assert "is running" in refused(str(session.path))
    session.lock.release()


def test_what_others_started_from_stays(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = outputs / "a2c_cartpole/2026-01-03/03-04-05"
    with (child / "spec.yaml").open("a") as spec:
        spec.write(f"init_from: {{file: {outputs / 'search/trial-000/seed-1/best.pt'}, weights: abc}}\n")
    assert f"holds the weights that {child} started from" in refused(str(outputs / "search"))
    write_json(child / "rerun.json", {"of": "another"})
    rm.main([str(outputs / "search"), "--yes"])
    assert not (outputs / "search").exists()


def test_what_git_or_dvc_track_stays(outputs: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "outputs/search/sweep.json")
    assert "is tracked by git" in refused(str(outputs / "search"))
    (tmp_path / "dvc.lock").write_text("stages:\n  train:\n    outs:\n    - path: outputs/a2c_cartpole\n")
    assert "is tracked by DVC" in refused(str(outputs / "a2c_cartpole/2026-01-02/03-04-05"))


def test_nothing_outside_is_removed(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (outputs / "search/report.html").symlink_to(tmp_path / "outside/file")
    (outputs / "search/trial-007").symlink_to(tmp_path / "outside")
    rm.main([str(outputs / "search"), "--yes"])
    assert not (outputs / "search").exists() and (tmp_path / "outside/file").exists()


def test_files_of_others_in_folders_of_a_run_stay(outputs: Path) -> None:
    session = outputs / "a2c_cartpole/2026-01-02/03-04-05"
    for name in ("checkpoint/replay/0-9.pt", "checkpoint/last.pt", ".hydra/config.yaml", "replaced-1/session.log"):
        (session / name).parent.mkdir(parents=True, exist_ok=True)
        (session / name).touch()
    for name in ("checkpoint/mine.pt", "checkpoint/replay/notes", ".hydra/.git", "replaced-1/checkpoint/best.txt"):
        (session / name).parent.mkdir(exist_ok=True)
        (session / name).touch()
        assert f"holds what Lab did not write: {name}" in refused(str(session))
        (session / name).unlink()
    rm.main([str(session), "--yes"])
    assert not session.exists()


def test_the_working_directory_stays_and_any_path_names_a_run(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = (outputs / "a2c_cartpole/2026-01-02").absolute()
    (folder / "03-04-05/checkpoint").mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    rm.main(["03-04-05/checkpoint/..", "--yes"])
    assert folder.exists() and not [*folder.iterdir()] and Path.cwd() == folder


def test_a_trial_stays_whose_sessions_start(outputs: Path) -> None:
    trial = make_session(outputs / "alone/seed-0").parent
    lock = Lock(trial / "seed-0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.run.removal.find_obstacle", lambda path: None)  # as it was before the Session started
        assert lock.acquire()
        with pytest.raises(LabError, match=r"alone/seed-0 is in use by process"):
            remove(trial)
        lock.release()
    assert (trial / "seed-0/spec.yaml").exists() and not Lock(trial).is_held()
    remove(trial)
    assert not trial.exists()


def test_tags_are_added_shown_and_removed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = outputs / "search"
    done = lab("tag", "outputs/search", "paper", "v1.0", cwd=outputs.absolute().parent)
    assert done.returncode == 0 and done.stdout == "outputs/search: paper v1.0\n"
    tag.main([str(search), "remove=v1.0", "best"])
    tag.main([str(search)])
    assert capsys.readouterr().out.splitlines()[-1] == f"{search}: best paper"
    with pytest.raises(LabError, match=r"has no tag 'papr': it has best, paper\. Did you mean 'paper'\?"):
        tag.main([str(search), "remove=papr"])
    with pytest.raises(LabError, match="cannot be a tag"):
        tag.main([str(search), "two words"])
    with pytest.raises(LabError, match="is not a run directory"):
        tag.main([str(outputs), "paper"])
    tag.main([str(search), "remove=best,paper"])
    assert read_tags(search) == [] and not SweepDir(search).path.joinpath("tags.json").exists()


def test_an_offline_run_that_was_not_sent_stays(outputs: Path) -> None:
    run = outputs / "a2c_cartpole/2026-01-02/03-04-05"
    offline = run / "wandb" / "offline-run-20260102_030405-abc"
    offline.mkdir(parents=True)
    with pytest.raises(LabError, match=f"was not sent: `wandb sync {offline}` sends it, or remove that folder first"):
        remove(run)
    assert offline.exists()
    (offline / "run-abc.wandb.synced").touch()
    remove(run)
    assert not run.exists()
