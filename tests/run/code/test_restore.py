"""Bringing back all repositories of a Session's code, with what was not committed in each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import write_json
from tests.helpers import git
from tests.run.code.helpers import commit_files, use_packages, write
from tests.run.code.test_snapshot import checkout, collect, commit  # noqa: F401 - a fixture among them


@pytest.fixture
def session(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:  # noqa: F811
    """A Session with code in lab's checkout, a submodule of that, a repository of the user's own, and in none."""
    library, project, loose = tmp_path / "library", tmp_path / "project", tmp_path / "loose"
    commit_files(library, {"library.py": "1\n"})
    commit_files(project, {"src/mine/__init__.py": "1\n", "data/levels.csv": "1\n"})
    write(loose, {"single.py": "1\n", "notes.txt": "1\n"})
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "library")
    commit(checkout)
    write(checkout, {"a.py": "changed\n", "library/library.py": "changed\n", "library/new.py": "new\n"})
    write(project, {"src/mine/__init__.py": "changed\n", "src/mine/new.py": "new\n"})
    use_packages(monkeypatch, project / "src" / "mine", loose / "single.py")
    directory = RunDir(tmp_path / "session")
    code = collect(checkout)
    write_json(directory.provenance, {"directory": str(project / "data"), **code.to_dict()})
    for name, patch in code.patches().items():
        (directory.path / name).write_bytes(patch)
    return directory


def test_all_repositories_are_restored(session: RunDir, checkout: Path, tmp_path: Path) -> None:  # noqa: F811
    code = CodeSnapshot.of_session(session)
    assert code.differences() == []
    git(checkout, "commit", "-qm", "moved on", "--", "a.py")
    git(tmp_path / "project", "commit", "-qam", "moved on")
    shutil.rmtree(tmp_path / "loose")
    assert [sentence.partition(":")[0] for sentence in code.differences()] == ["lab", "project"]
    with code.restore() as there:
        lab, project, loose = there.path, there.trees[1].path, there.trees[3].path
        assert (lab / "a.py").read_text() == "changed\n"
        assert (lab / "library" / "library.py").read_text() == "changed\n"
        assert (lab / "library" / "new.py").read_text() == "new\n"
        assert (project / "src" / "mine" / "__init__.py").read_text() == "changed\n"
        assert (project / "src" / "mine" / "new.py").read_text() == "new\n"
        assert (loose / "single.py").read_text() == "1\n"
        cwd = code.working_directory(there, tmp_path / "project" / "data")
        assert cwd == project / "data"
        assert there.env(str(cwd))["PYTHONPATH"].split(":")[:4] == [
            str(lab),
            str(project / "src"),
            str(loose),
            str(cwd),
        ]
        assert code.working_directory(there, tmp_path) == tmp_path
    assert not lab.exists()
    for folder in (checkout, checkout / "library", tmp_path / "project"):
        assert len(git(folder, "worktree", "list").splitlines()) == 1


def test_a_missing_repository_is_named(session: RunDir, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "project" / ".git")
    with (
        pytest.raises(LabError, match=r"of project cannot be restored: .*project is no checkout of it; code=here"),
        CodeSnapshot.of_session(session).restore(),
    ):
        pass


def test_a_missing_commit_is_named(session: RunDir, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "project" / ".git")
    git(tmp_path / "project", "init", "-q")
    with (
        pytest.raises(LabError, match=r"Commit \w{40} is not in .*project: get it, as with"),
        CodeSnapshot.of_session(session).restore(),
    ):
        pass


def test_a_missing_patch_is_named(session: RunDir) -> None:
    (session.path / "uncommitted.project.patch").unlink()
    with pytest.raises(LabError, match=r"uncommitted.project.patch is missing: it held .* of project; code=here"):
        CodeSnapshot.of_session(session)
