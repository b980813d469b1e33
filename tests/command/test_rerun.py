"""Running again what a run directory holds, with its own code, through the command line."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from lab.analysis.runs import read_runs
from lab.command import rerun
from lab.errors import LabError
from lab.run.code import snapshot
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir, find_sessions
from lab.run.files import read_json, write_json
from tests import synthetic
from tests.helpers import clone, git, lab, result, start_lab, train, wait_for

SMALL = ("algo=a2c", "frames=1000", "log.every=250", "eval.every=500", "eval.episodes=2", "log.tensorboard=false",
         "algo.horizon=16")  # fmt: skip
MINE = '''
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
class Mine(CartPoleEnv):
    """Somebody's own environment, which git does not know yet."""
gymnasium.register("Mine-v0", Mine, max_episode_steps=40)
'''
MY_ENV = ("env=gymnasium", "env.id=mine:Mine-v0", "name=mine")


@pytest.mark.law
def test_law_1_a_session_of_a_dirty_tree_is_the_same_after_head_has_moved_on(tmp_path: Path) -> None:
    folder = tmp_path / "a clone"
    there = clone(folder)
    changed = folder / "lab" / "algo" / "a2c.py"
    changed.write_text(changed.read_text() + "\n# A change that is not committed.\n")
    (folder / "mine.py").write_text(MINE)
    (folder / ".env").write_text("KEY=1\n")
    (folder / "film.mp4").write_bytes(bytes(range(256)))
    git(folder, "add", "film.mp4")
    done = lab(*SMALL, "env=gymnasium", "env.id=mine:Mine-v0", "name=mine", "hydra.run.dir=session", **there)
    assert done.returncode == 0, done.stderr
    secret, film = ".env (its name looks like that of a secret)", "film.mp4 (neither code nor config)"
    assert f"Warning: Left out of uncommitted.patch: {secret}." in done.stderr, "and no film, which no code needs"
    assert f"Left out of uncommitted.patch: {secret}, {film}." in RunDir(folder / "session").log.read_text()
    assert b"film.mp4" not in RunDir(folder / "session").patch.read_bytes()
    session = Path(shutil.move(folder / "session", tmp_path))  # which the next commit would take in
    before = {path: path.read_bytes() for path in session.rglob("*") if path.is_file()}
    changed.write_text("raise RuntimeError('the code of now')\n")
    (folder / "mine.py").unlink()
    git(folder, "commit", "--quiet", "--all", "--message", "moved on")
    done = lab("rerun", str(session), "out=again, 'é' [x]=1", **there)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 Session is the same to the last bit" in done.stdout
    assert f"Not stored, and so not there: {secret}, {film}" in done.stdout
    again = RunDir(folder / "again, 'é' [x]=1")
    assert result(again) == result(RunDir(session))
    assert again.patch.read_bytes() == RunDir(session).patch.read_bytes()
    assert read_json(again.path / "rerun.json")["identical"] is True
    assert {path: path.read_bytes() for path in session.rglob("*") if path.is_file()} == before, "it is only read"
    assert len(git(folder, "worktree", "list").splitlines()) == 1, "what was brought back is gone"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A Session of a commit of a small checkout, in which this code seems to stand."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "a.py").write_text("one\n")
    (folder / "lab").mkdir()
    (folder / "lab" / "__init__.py").write_text("")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(snapshot, "root_of_lab", lambda: folder)
    directory = train(tmp_path, "frames=256", "algo.horizon=16", "eval.every=0")[0]
    facts = read_json(directory.provenance)
    facts["git"] |= {"sha": git(folder, "rev-parse", "HEAD"), "uncommitted": True, "roots": ["."]}
    facts["repositories"] = []
    write_json(directory.provenance, facts)
    directory.patch.write_text("--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-two\n+three\n")
    return directory


def test_what_differs_is_said_with_the_frame_and_by_how_much(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = trained.episodes.read_text().splitlines()
    frame, _, length = rows[5].split(",")
    rows[5] = f"{frame},1000.0,{length}"
    trained.episodes.write_text("\n".join(rows) + "\n")
    trained.update_status(tables={})  # as if it had been written so
    provenance = read_json(trained.provenance)
    provenance["packages"] |= {"numpy": "1.0.0", "gone": "1.0", "lost": "1.0"}
    write_json(trained.provenance, provenance)
    trained.checkpoint("last").unlink()
    trained.patch.unlink()  # which the current code does without
    with pytest.raises(SystemExit) as end:
        rerun.main([str(trained.path), f"out={tmp_path}/again", "tolerance=0.5", "code=here"])
    assert end.value.code == 1
    shown = capsys.readouterr().out
    assert "numpy was 1.0.0 and is " in shown
    assert "gone was" not in shown and "2 packages that decide no numbers have other versions or are absent" in shown
    assert "0 of 1 Session is the same to the last bit" in shown
    comparison = read_json(tmp_path / "again" / "rerun.json")
    (verdict,) = comparison["sessions"]
    assert verdict["files"] == {"episodes": False, "metrics": True, "weights": None}
    assert verdict["diverges_at"] == int(frame)
    assert verdict["return"]["difference"] == pytest.approx((float(length) - 1000.0) / (len(rows) - 1))
    assert comparison["differs"]["numpy"][0] == "1.0.0"
    assert comparison["differs"]["gone"] == ["1.0", None]


def test_what_is_killed_is_known_as_a_rerun(trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object) -> None:
        shutil.copytree(trained.path, tmp_path / "again", dirs_exist_ok=True)
        raise SystemExit

    monkeypatch.setattr(rerun, "run", killed)
    monkeypatch.chdir(trained.path.parent)
    with pytest.raises(SystemExit):
        rerun.main([trained.path.name, f"out={tmp_path}/again", "code=here"])
    assert [run.rerun_of for run in read_runs(tmp_path / "again")] == [trained.path.name]
    monkeypatch.chdir("/")
    assert [run.rerun_of for run in read_runs(tmp_path / "again")] == [str(trained.path).lstrip("/")]


def test_a_spec_that_its_code_refuses_is_told_in_a_sentence(
    trained: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = trained.spec.read_text().rpartition("# checksum")[0]
    trained.spec.write_text(text.replace("CartPole-v1", "yours:Yours-v0"))
    with pytest.raises(LabError, match="The code refuses to run the spec of a2c_cartpole"):
        rerun.main([str(trained.path), f"out={tmp_path}/again", "code=here"])
    errors = capfd.readouterr().err
    assert "env.id=yours:Yours-v0 needs the module 'yours', which is not installed" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "again").exists()


def test_it_goes_into_a_directory_of_the_name_of_the_sweep(trained: RunDir, tmp_path: Path) -> None:
    date = r"/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d"
    assert re.fullmatch(f"outputs/a2c_cartpole{date}", str(rerun.default_out(trained.path, trained)))
    sweep = synthetic.experiment(tmp_path / "sweep", trials=1, seeds=1, rows=4)
    write_json(sweep.sweep, {**read_json(sweep.sweep), "name": "a2c-ppo_cartpole"})
    session = sweep.trial(0).session(0)
    assert re.fullmatch(f"outputs/a2c-ppo_cartpole{date}", str(rerun.default_out(sweep.path, session)))


def no_commit(directory: RunDir) -> None:
    write_git(directory, sha="0" * 40)


def not_known(directory: RunDir) -> None:
    write_git(directory, uncommitted=None, note="git is not installed")
    content = read_json(directory.provenance)
    write_json(directory.provenance, {**content, "code": {"lab": "another"}})


def no_patch(directory: RunDir) -> None:
    directory.patch.unlink()


def nothing_completed(directory: RunDir) -> None:
    write_json(directory.status, {**read_json(directory.status), "state": "failed"})


def write_git(directory: RunDir, **facts: Any) -> None:
    content = read_json(directory.provenance)
    write_json(directory.provenance, {**content, "git": {**content["git"], **facts}})


@pytest.mark.parametrize(
    ("spoil", "arguments", "sentence"),
    [
        (None, [], "the patch does not apply to commit"),
        (no_commit, [], f"Commit {'0' * 40} is not in"),
        (
            not_known,
            [],
            "The code of lab is not known: git is not installed, and what is here now is other code; code=here",
        ),
        (no_patch, [], "uncommitted.patch is missing: it held the uncommitted changes to commit"),
        (nothing_completed, [], "has completed, so there is nothing to compare a run with"),
        (None, ["out={session}"], "is not empty, and nothing is ever overwritten"),
        (None, ["out={session}/again"], "which is only read"),
        (None, ["code=mine"], "code=mine is not allowed: code must be one of here, recorded"),
        (None, ["tolerance=-1"], "tolerance=-1 is not allowed"),
        (None, ["slots=0"], "slots=0 is not allowed"),
        (None, ["outt=x"], "Did you mean 'out'?"),
    ],
)
def test_what_cannot_be_run_again_is_told_in_a_sentence(
    trained: RunDir, tmp_path: Path, spoil: Any, arguments: list[str], sentence: str
) -> None:
    if spoil:
        spoil(trained)
    before = sorted(tmp_path.rglob("*"))
    out = [] if any("out" in word for word in arguments) else [f"out={tmp_path}/again"]
    with pytest.raises(LabError, match=re.escape(sentence)):
        rerun.main([str(trained.path), *out, *(word.format(session=trained.path) for word in arguments)])
    # git itself keeps an empty folder for worktrees.
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "worktrees"] == before
    assert len(git(tmp_path / "checkout", "worktree", "list").splitlines()) == 1


def test_code_that_was_never_committed_is_brought_back_from_its_patch_alone(trained: RunDir) -> None:
    write_git(trained, sha=None)
    trained.patch.write_text(
        "--- /dev/null\n+++ b/a.py\n@@ -0,0 +1 @@\n+three\n--- /dev/null\n+++ b/lab/__init__.py\n@@ -0,0 +1 @@\n+#\n"
    )
    with CodeSnapshot.of_session(trained).restore() as code:
        assert (code.path / "a.py").read_text() == "three\n"
    assert not code.path.exists()


@pytest.mark.slow
@pytest.mark.law
def test_law_1_an_experiment_and_its_ranking_are_the_same_again(tmp_path: Path) -> None:
    there = clone(tmp_path / "clone")
    done = lab("-m", *SMALL, "env=cartpole", "algo.lr=1e-2,1e-3", "seed=0,1,2", "hydra.sweep.dir=sweep", **there)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "clone" / "sweep"
    failed = RunDir(sweep / "trial-001" / "seed-2")
    write_json(failed.status, {**read_json(failed.status), "state": "failed"})
    assert lab("report", str(sweep), **there).returncode == 0
    done = lab("rerun", "sweep", "out=again", **there)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial-001/seed-2 is not run again: it is failed" in done.stdout
    assert "5 of 5 Sessions are the same to the last bit" in done.stdout
    again = tmp_path / "clone" / "again"
    names = [str(session.path.relative_to(again)) for session in find_sessions(again)]
    assert names == ["trial-000/seed-0", "trial-000/seed-1", "trial-000/seed-2", "trial-001/seed-0", "trial-001/seed-1"]
    ranking = [json.loads((folder / "experiment.json").read_text())["ranking"] for folder in (sweep, again)]
    assert ranking[0] == ranking[1]
    assert len(ranking[0]) == 1
    # Of a Trial alone, and with other code.
    trial = sweep / "trial-000"
    changed = tmp_path / "clone" / "lab" / "algo" / "on_policy.py"
    before = changed.read_text()
    changed.write_text(before.replace("torch.as_tensor(self.value_coef)", "1.5 * torch.as_tensor(self.value_coef)"))
    assert changed.read_text() != before
    done = lab("rerun", str(trial), "out=other", "code=here", **there)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 3 Sessions are the same" in done.stdout
    verdicts = read_json(tmp_path / "clone" / "other" / "rerun.json")["sessions"]
    assert all(0 < verdict["diverges_at"] <= 1024 for verdict in verdicts)
    assert lab("rerun", str(trial), "out=near", "code=here", "tolerance=500", **there).returncode == 0


@pytest.mark.slow
def test_ctrl_c_ends_it_and_leaves_no_worktree(tmp_path: Path) -> None:
    there = clone(tmp_path / "clone")
    slow = ("env=gymnasium", "env.id=tests.envs:Slow-v0", "name=slow")
    assert lab(*SMALL, *slow, "hydra.run.dir=session", **there).returncode == 0
    spec = tmp_path / "clone" / "session" / "spec.yaml"
    text = spec.read_text().rpartition("# checksum")[0]
    spec.write_text(text.replace("frames: 1000", "frames: 100000"))
    process = start_lab("rerun", "session", "out=again", cwd=tmp_path / "clone")
    again = RunDir(tmp_path / "clone" / "again")
    wait_for(lambda: again.metrics.exists() and again.metrics.read_text().count("\n") > 1, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "nothing was compared" in output
    assert again.read_status()["state"] == "interrupted"
    assert len(git(tmp_path / "clone", "worktree", "list").splitlines()) == 1


@pytest.mark.slow
@pytest.mark.law
def test_law_1_the_users_own_repository_is_brought_back_too(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "mine.py").write_text(MINE)
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "mine")
    (project / "src" / "mine.py").write_text(MINE.replace("=40", "=30"))
    there = clone(tmp_path / "clone")
    there["env"]["PYTHONPATH"] += f":{project / 'src'}"
    there |= {"cwd": project, "fresh": True}  # a process that imports nothing from the repository of these tests
    done = lab(*SMALL, *MY_ENV, "hydra.run.dir=../session", **there)
    assert done.returncode == 0, done.stderr
    (project / "src" / "mine.py").write_text("raise RuntimeError('the code of now')\n")
    git(project, "commit", "--quiet", "--all", "--message", "moved on")
    done = lab("rerun", "../session", "out=../again", **there)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Code: commit \w{12}, commit \w{12} of project and what was not committed\n", done.stdout)
    assert "  project: it was commit" in done.stdout
    assert "1 of 1 Session is the same to the last bit" in done.stdout
    assert (
        read_json(tmp_path / "again" / "provenance.json")["code"]
        == read_json(tmp_path / "session" / "provenance.json")["code"]
    )
