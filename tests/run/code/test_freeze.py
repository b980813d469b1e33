from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.code import exclusions, packages
from lab.run.code.copy import CodeCopy
from lab.run.code.snapshot import CodeSnapshot
from tests.helpers import ROOT, git
from tests.run.code.helpers import commit_files, use_lab_in, use_packages, write

ROOMS = (ROOT / "lab" / "common", ROOT / "lab" / "run")  # what describes the code, and what that needs
PARTS = ("errors.py", *(str(path.relative_to(ROOT / "lab")) for room in ROOMS for path in room.rglob("*.py")))
NAME = "a, 'check=out' [ü]"
PROBE = """
import lab, mine, tests.envs
print(lab.__file__, lab.__version__, mine.WORD, __file__, tests.envs.WORD, sep="\\n")
"""


def package(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy what of this package describes the code into another place, as if it were run from there."""
    write(root, {"lab/__init__.py": "__version__ = 'old'\n", "conf/config.yaml": "a: 1\n"})
    for name in PARTS:
        (root / "lab" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "lab" / name, root / "lab" / name)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    use_lab_in(root, monkeypatch)
    return root


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = package(tmp_path / NAME, monkeypatch)
    files = {".gitignore": "ignored*\nout*/\n", "mine.py": "WORD = 'old'\n", "tests/envs.py": "WORD = 'old'\n"}
    commit_files(root, files)
    write(root, {"probe.py": ""})
    return root


def frozen_in(root: Path) -> CodeCopy:
    return CodeSnapshot.take(root / "out").freeze(root / "out" / ".jobs" / "code")


def names(copy: CodeCopy) -> set[str]:
    files = {str(path.relative_to(copy.path)) for path in copy.path.rglob("*") if path.is_symlink() or path.is_file()}
    return {name for name in files if not name.startswith((packages.COPIED_FACTS, ".uncommitted"))}


def python(arguments: Sequence[str], copy: CodeCopy, cwd: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **copy.env()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


CODE = {".gitignore", "mine.py", "tests/envs.py", "probe.py", "conf/config.yaml"}
LAB = {"lab/__init__.py", *(f"lab/{name}" for name in PARTS)}


def test_the_working_tree_is_copied(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusions, "LARGEST_FILE", 2**15)
    write(checkout, {"ignored.py": "", "new folder/ünïcode 'x'.py": "1", "large.py": "x" * 40_000, "out/a.csv": "1"})
    write(checkout, {"run/tracked.csv": "", "run/untracked.csv": "", "gone.py": "", "run.py": "", "script": "#!\n"})
    git(checkout, "add", "run/tracked.csv", "gone.py")
    (checkout / "gone.py").unlink()
    (checkout / "script").chmod(0o755)
    write(checkout, {"mine.py": "WORD = 'edited'\n"})
    copy = CodeSnapshot.take(checkout / "run").freeze(checkout / "out" / "code")
    assert names(copy) == CODE | LAB | {"new folder/ünïcode 'x'.py", "run.py", "script", "large.py"}
    assert (copy.path / "large.py").readlink() == checkout / "large.py", "it is not copied, but it is there"
    assert (copy.path / "mine.py").read_text() == "WORD = 'edited'\n"
    assert os.access(copy.path / "script", os.X_OK)
    assert copy.path.parent == checkout / "out" / "code"
    assert len(copy.path.name) == 12
    assert int(copy.path.name, 16) >= 0


def test_tracked_code_inside_the_run_directory_is_copied(checkout: Path) -> None:
    assert names(CodeSnapshot.take(checkout).freeze(checkout / ".jobs")) == CODE - {"probe.py"} | LAB


def test_links_are_copied_as_links(checkout: Path, tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere/a.py": "1", "elsewhere/data/b": "2"})
    write(checkout, {"ignored/c": "3", "data/b": "2"})
    git(checkout, "add", "data")
    shutil.rmtree(checkout / "data")
    goals = {
        "inside": "tests",
        "absolute": str(checkout / "mine.py"),
        "outside": "../elsewhere/a.py",
        "not copied": "ignored/c",
        "data": str(tmp_path / "elsewhere" / "data"),  # a tracked folder that has moved
        "broken": "nothing",
    }
    for name, goal in goals.items():
        (checkout / name).symlink_to(goal)
    copy = frozen_in(checkout)
    assert {name for name in goals if (copy.path / name).is_symlink()} == set(goals)
    assert (copy.path / "inside").resolve() == copy.path / "tests"
    assert (copy.path / "absolute").resolve() == copy.path / "mine.py"
    assert (copy.path / "outside").read_text() == "1"
    assert (copy.path / "not copied").read_text() == "3"
    assert (copy.path / "data" / "b").read_text() == "2"


def test_a_copy_is_made_once_for_each_state_of_the_code(checkout: Path) -> None:
    first = frozen_in(checkout)
    inode = first.path.stat().st_ino
    assert frozen_in(checkout) == first
    assert first.path.stat().st_ino == inode, "it is not made again"
    write(checkout, {"mine.py": "WORD = 'new'\n"})
    second = frozen_in(checkout)
    assert second.path != first.path
    assert (first.path / "mine.py").read_text() == "WORD = 'old'\n"
    git(checkout, "commit", "-qam", "second")
    third = frozen_in(checkout)
    assert third.path != second.path, "the code is the same, but it has another SHA"
    assert set(first.path.parent.iterdir()) == {first.path, second.path, third.path}, "nothing is left aside"


def test_nothing_is_left_of_a_copy_that_failed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy", full)
    with pytest.raises(OSError, match="No space"):
        frozen_in(checkout)
    assert not list((checkout / "out" / ".jobs" / "code").iterdir())


def test_a_job_has_the_provenance_of_submission(checkout: Path) -> None:
    write(checkout, {"mine.py": "WORD = 'submitted'\n"})
    before = CodeSnapshot.take(checkout / "out")
    copy = frozen_in(checkout)
    sha = git(checkout, "rev-parse", "HEAD")
    assert json.loads((copy.path / ".provenance.json").read_text()) == before.to_dict()
    assert (copy.path / ".uncommitted.patch").read_bytes() == before.lab.patch
    write(checkout, {"mine.py": "WORD = 'later'\n"})
    git(checkout, "commit", "-qam", "later")
    code = (
        "import json; from pathlib import Path; from lab.run.provenance import collect;"
        "provenance = collect(['x'], 'cpu', 1, [0], Path('out'));"
        "print(json.dumps(provenance.facts), provenance.code.lab.patch.decode(), sep='\\n')"
    )
    facts, *patch = python(["-c", code], copy, checkout)
    assert {key: json.loads(facts)[key] for key in before.to_dict()} == before.to_dict()
    assert before.lab.sha == sha
    assert "+WORD = 'submitted'" in patch
    assert json.loads(facts)["directory"] == str(checkout)


def test_a_job_runs_the_code_of_submission(checkout: Path) -> None:
    write(checkout, {"probe.py": PROBE})
    copy = frozen_in(checkout)
    write(checkout, {"lab/__init__.py": "__version__ = 'new'\n", "mine.py": "WORD = 'new'\n", "probe.py": "1 / 0"})
    write(checkout, {"tests/envs.py": "WORD = 'new'\n"})
    expected = [str(copy.path / "lab" / "__init__.py"), "old", "old", str(copy.path / "probe.py"), "old"]
    assert python(["-m", "probe"], copy, checkout) == expected


def test_the_copy_has_precedence_over_an_editable_install(checkout: Path, tmp_path: Path) -> None:
    copy = frozen_in(checkout)
    write(checkout, {"lab/__init__.py": "__version__ = 'new'\n"})
    # One kind of editable install is a line in a .pth file, the other a finder after all others.
    code = (
        "import sys; from importlib.machinery import PathFinder; sys.path.append(sys.argv[1]);"
        "find = lambda name, path=None, target=None: PathFinder.find_spec(name, [sys.argv[1]]);"
        "sys.meta_path.append(type('Finder', (), {'find_spec': staticmethod(find)}));"
        "import lab; print(lab.__version__)"
    )
    assert python(["-c", code, str(checkout)], copy, tmp_path) == ["old"]


def test_the_order_of_import_folders(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = frozen_in(checkout)
    top, below = str(copy.path), str(copy.path / "tests")
    write(checkout, {"ignored/x": ""})
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}::{checkout / 'tests'}")
    rest = [str(tmp_path), below, str(checkout / "tests")]
    for folder, expected in (
        (checkout, [top, *rest]),
        (checkout / "tests", [below, top, str(tmp_path), str(checkout / "tests")]),
        (checkout / "ignored", [top, str(checkout / "ignored"), *rest]),
        (tmp_path.parent, [top, str(tmp_path.parent), *rest]),
    ):
        monkeypatch.chdir(folder)
        assert copy.env() == {"PYTHONSAFEPATH": "1", "PYTHONPATH": ":".join(expected)}


def test_paths_are_translated(checkout: Path, tmp_path: Path) -> None:
    write(checkout, {"ignored/x": ""})
    (tmp_path / "link").symlink_to(checkout)
    copy = frozen_in(checkout)
    assert copy.translate(str(checkout)) == str(copy.path)
    assert copy.translate(str(checkout / "conf")) == str(copy.path / "conf")
    assert copy.translate("conf") == str(copy.path / "conf")
    assert copy.translate(str(tmp_path / "link" / "conf")) == str(copy.path / "conf")
    for same in (str(checkout / "ignored"), str(tmp_path), f"{checkout} 2", "pkg://lab.conf", str(copy.path / "conf")):
        assert copy.translate(same) == same


def test_a_copy_is_not_copied(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = frozen_in(checkout)
    for key, value in copy.env().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(packages, "__file__", str(copy.path / "lab" / "run" / "code" / "packages.py"))
    again = CodeSnapshot.take(checkout / "out 2").freeze(checkout / "out 2")
    assert again.path == copy.path
    assert not (checkout / "out 2").exists()
    assert again.env()["PYTHONPATH"].split(":")[0] == str(copy.path)


@pytest.mark.parametrize("inside", [True, False])
def test_a_package_that_git_does_not_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    root = package(tmp_path / "site-packages", monkeypatch)
    config = "conf/config.yaml"
    if inside:
        shutil.move(root / "conf", root / "lab" / "conf")
        config = "lab/conf/config.yaml"
    write(root, {"lab/__pycache__/a.pyc": "", "other/__init__.py": ""})
    here = tmp_path / "another checkout"
    write(here, {"mine.py": ""})
    git(here, "init", "-q")
    git(here, "add", "-A")
    monkeypatch.chdir(here)
    copy = CodeSnapshot.take(here / "outputs").freeze(here / "outputs" / "code")
    assert names(copy) == LAB | {config}
    assert copy.env()["PYTHONPATH"] == f"{copy.path}:{here}"
    assert copy.translate(str(root / config)) == str(copy.path / config)
    assert copy.translate(str(root)) == str(root), "what else is installed there is not in the copy"
    assert json.loads((copy.path / ".provenance.json").read_text())["git"]["note"].startswith("lab ")
    monkeypatch.chdir(root)
    assert copy.env()["PYTHONPATH"] == f"{copy.path}:{root}"


def test_a_path_that_pythonpath_cannot_hold(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match=r"a:b.* has a ':' in it"):
        CodeSnapshot.take(tmp_path).freeze(tmp_path / "a:b")
    assert not (tmp_path / "a:b").exists()
    copy = frozen_in(checkout)
    (tmp_path / "c:d").mkdir()
    monkeypatch.chdir(tmp_path / "c:d")
    with pytest.raises(LabError, match="c:d has a ':'"):
        copy.env()


def test_a_copy_is_private_and_holds_links_to_secrets(checkout: Path) -> None:
    omitted = {".env": "PASSWORD=x\n", "key.pem": "x\n", "assets/data.npz": "x\n"}
    write(checkout, {**omitted, "script": "#!/bin/sh\n"})
    (checkout / "script").chmod(0o755)
    copy = frozen_in(checkout)
    assert names(copy) == CODE | LAB | {"script", *omitted}
    assert all((copy.path / name).readlink() == checkout / name for name in omitted), "jobs may need them"
    copied = [path for path in copy.path.rglob("*") if not path.is_symlink()]
    modes = {path.relative_to(copy.path).as_posix(): path.stat().st_mode & 0o777 for path in copied}
    assert {mode for name, mode in modes.items() if (copy.path / name).is_file()} == {0o600, 0o700}
    assert {mode for name, mode in modes.items() if (copy.path / name).is_dir()} == {0o700}
    assert (modes["script"], modes["mine.py"], copy.path.stat().st_mode & 0o777) == (0o700, 0o600, 0o700)


def test_the_users_own_repositories_are_copied_too(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, loose = tmp_path / "project", tmp_path / "loose"
    commit_files(project, {"src/own/__init__.py": "WORD = 'old'\n", "src/own/more.py": ""})
    write(loose, {"single.py": "WORD = 'old'\n"})
    use_packages(monkeypatch, project / "src" / "own", loose / "single.py")
    monkeypatch.setenv("PYTHONPATH", f"{project / 'src'}:{loose}")
    copy = frozen_in(checkout)
    before = CodeSnapshot.take(checkout / "out").to_dict()
    write(project, {"src/own/__init__.py": "WORD = 'new'\n"})
    write(loose, {"single.py": "WORD = 'new'\n"})
    code = (
        "import json, own, single; from pathlib import Path; from lab.run.code.snapshot import CodeSnapshot;"
        "from lab.run.code.packages import current_digest;"
        "code = CodeSnapshot.take(Path('out')).to_dict();"
        "print(own.WORD, single.WORD, json.dumps(code), current_digest('own'), sep='\\n')"
    )
    own, single, snapshot_there, digest_of_own = python(["-c", code], copy, checkout)
    assert (own, single) == ("old", "old")
    assert json.loads(snapshot_there) == before
    assert digest_of_own == before["code"]["own"]
