from __future__ import annotations

from pathlib import Path

import pytest

from lab import provenance
from lab.run_dir import RunDir, write_json
from tests.helpers import git


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that the code is run from, as if this package stood nowhere else."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "elsewhere" / "provenance.py"))
    return folder


def collect(folder: Path) -> provenance.Provenance:
    return provenance.collect(["python", "-m", "lab", "a b"], "cpu", 1, [0, 1], folder / "run")


def commit(folder: Path) -> str:
    (folder / "a.py").write_text("one\n")
    (folder / "gone.py").write_text("two\n")
    (folder / ".gitignore").write_text("ignored\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return git(folder, "rev-parse", "HEAD")


def test_a_clean_checkout(checkout: Path) -> None:
    sha = commit(checkout)
    found = collect(checkout)
    git_facts = {"sha": sha, "branch": "trunk", "uncommitted": False, "left_out": [], "within": ".", "note": None}
    assert found.facts["git"] == git_facts
    assert found.patch == b""
    assert found.facts["command"] == "python -m lab 'a b'"
    assert found.facts["packages"]["torch"]
    assert found.facts["cpu"]["cores"] >= 1
    assert found.facts["stack"] == [0, 1]


def test_the_patch_brings_back_the_working_tree(checkout: Path, tmp_path: Path) -> None:
    commit(checkout)
    (checkout / "a.py").write_text("changed\n")
    (checkout / "gone.py").unlink()
    (checkout / "staged.py").write_text("staged\n")
    git(checkout, "add", "staged.py")
    (checkout / "new folder").mkdir()
    (checkout / "new folder" / "ünïcode 'x'.py").write_text("untracked\n")
    (checkout / "binary").write_bytes(bytes(range(256)))
    (checkout / "ignored").write_text("no\n")
    (checkout / "run").mkdir()
    (checkout / "run" / "episodes.csv").write_text("its own output\n")
    before = git(checkout, "status", "--porcelain")
    for setting in ("diff.noprefix=true", "diff.context=0", "color.ui=always", "diff.renames=copies"):
        git(checkout, "config", *setting.split("="))
    found = collect(checkout)
    assert found.facts["git"]["uncommitted"] is True
    assert git(checkout, "status", "--porcelain") == before, "looking changes nothing"

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(clone))
    (tmp_path / "x.patch").write_bytes(found.patch)
    git(clone, "apply", str(tmp_path / "x.patch"))
    names = sorted(
        str(path.relative_to(clone)) for path in clone.rglob("*") if path.is_file() and ".git/" not in str(path)
    )
    assert names == sorted([".gitignore", "a.py", "binary", "new folder/ünïcode 'x'.py", "staged.py"])
    for name in names:
        assert (clone / name).read_bytes() == (checkout / name).read_bytes()


def test_untracked_files_too_large_for_a_patch_are_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(checkout)
    monkeypatch.setattr(provenance, "UNTRACKED_BUDGET", 100)
    (checkout / "small").write_text("x" * 60 + "\n")
    (checkout / "large").write_text("x" * 500)
    found = collect(checkout)
    assert found.facts["git"]["left_out"] == ["large"]
    assert b"small" in found.patch


def test_what_a_pipeline_writes_is_no_code(checkout: Path) -> None:
    (checkout / "published").mkdir()
    (checkout / "published" / "trial.json").write_text("{}\n")
    commit(checkout)
    (checkout / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  a:\n    cmd: a\n    outs:\n    - path: published/trial.json\n    - path: run [1]\n"
    )
    (checkout / "published" / "trial.json").write_text('{"return": 1}\n')
    (checkout / "run [1]").mkdir()
    (checkout / "run [1]" / "x").write_text("x\n")
    assert collect(checkout).patch == b""
    (checkout / "published" / "mine.py").write_text("mine\n")
    assert b"mine.py" in collect(checkout).patch


def test_links_are_stored_and_checkouts_within_are_named(checkout: Path, tmp_path: Path) -> None:
    commit(checkout)
    (checkout / "link").symlink_to(tmp_path)
    (checkout / "broken").symlink_to("nowhere")
    (checkout / "inner").mkdir()
    git(checkout / "inner", "init", "-q")
    (checkout / "inner" / "mine.py").write_text("mine\n")
    found = collect(checkout)
    assert b"b/link" in found.patch and b"b/broken" in found.patch
    assert found.facts["git"]["left_out"] == ["inner/"]


def test_results_that_git_does_not_ignore_are_no_code(checkout: Path) -> None:
    commit(checkout)
    for folder in ("runs/one", "runs/stack/seed-0", "runs/sweep/trial-000/seed-0"):
        RunDir(checkout / folder).claim()
        RunDir(checkout / folder).write_status("running", 0, 10)
        (checkout / folder / "last.pt").write_bytes(b"x")
    write_json(checkout / "runs/stack/trial.json", {})
    (checkout / "status.json").write_text("mine\n")
    found = collect(checkout)
    assert found.patch.count(b"diff --git") == 1
    assert b"b/status.json" in found.patch, "what lies at the top of a checkout is code"


def test_what_a_hook_of_git_is_told_is_not_heeded(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = commit(checkout)
    monkeypatch.setenv("GIT_INDEX_FILE", str(checkout / "none"))
    monkeypatch.setenv("GIT_DIR", str(checkout / "none"))
    found = collect(checkout)
    assert (found.facts["git"]["sha"], found.patch) == (sha, b"")


def test_a_file_changed_in_the_second_of_its_commit_is_seen(checkout: Path) -> None:
    for _ in range(3):  # git knows by its index's time that it must look into it
        commit(checkout)
        (checkout / "a.py").write_text("two\n")
        assert b"+two" in collect(checkout).patch
        git(checkout, "commit", "-qam", "two")


def test_a_checkout_without_a_commit(checkout: Path) -> None:
    (checkout / "a.py").write_text("one\n")
    found = collect(checkout)
    assert found.facts["git"]["sha"] is None
    assert "no commit" in found.facts["git"]["note"]
    assert b"+one" in found.patch


def test_a_directory_that_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = collect(tmp_path)
    assert found.facts["git"]["sha"] is None
    assert "git checkout" in found.facts["git"]["note"]
    assert found.patch == b""


def test_a_machine_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in collect(tmp_path).facts["git"]["note"]
