"""What is recorded of the code: by repository, without secrets, and with a sentence where something is not known."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.run.code import exclusions, packages
from lab.run.code import git as running
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import write_json
from tests.helpers import git
from tests.run.code.helpers import commit_files, use_lab_in, use_packages, write


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that this package seems to stand in, and nothing of the user's is imported."""
    folder = tmp_path / "a checkout"
    (folder / "lab" / "run" / "code").mkdir(parents=True)
    (folder / "lab" / "__init__.py").write_text("")
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "add", "-A")
    use_lab_in(folder, monkeypatch)
    return folder


def commit(folder: Path) -> str:
    return commit_files(folder, {"a.py": "one\n", "gone.py": "two\n", ".gitignore": "ignored\n"})


def collect(folder: Path) -> CodeSnapshot:
    return CodeSnapshot.take(folder / "run")


def patch_of(code: CodeSnapshot) -> bytes:
    assert code.lab.patch is not None
    return code.lab.patch


def test_a_clean_checkout(checkout: Path) -> None:
    sha = commit(checkout)
    code = collect(checkout)
    assert code.to_dict()["git"] == {
        "name": "a checkout", "path": str(checkout), "sha": sha, "branch": "trunk", "uncommitted": False,
        "left_out": {}, "note": None, "modules": [], "roots": ["."],
    }  # fmt: skip
    assert (patch_of(code), code.others, code.problems(), code.remarks()) == (b"", (), [], [])
    assert list(code.digests) == ["lab"]


def test_the_patch_restores_the_working_tree(checkout: Path, tmp_path: Path) -> None:
    (checkout / "binary").write_bytes(bytes(100))
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
    code = collect(checkout)
    assert code.to_dict()["git"]["uncommitted"] is True
    assert git(checkout, "status", "--porcelain") == before, "looking changes nothing"

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(clone))
    (tmp_path / "x.patch").write_bytes(patch_of(code))
    git(clone, "apply", str(tmp_path / "x.patch"))
    names = sorted(
        str(path.relative_to(clone)) for path in clone.rglob("*") if path.is_file() and ".git/" not in str(path)
    )
    assert names == sorted(
        [".gitignore", "a.py", "binary", "lab/__init__.py", "new folder/ünïcode 'x'.py", "staged.py"]
    )
    for name in names:
        assert (clone / name).read_bytes() == (checkout / name).read_bytes()


def test_what_a_pipeline_writes_is_no_code(checkout: Path) -> None:
    write(checkout, {"published/trial.json": "{}\n"})
    commit(checkout)
    (checkout / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  a:\n    cmd: a\n    outs:\n    - path: published/trial.json\n    - path: run [1]\n"
    )
    (checkout / "published" / "trial.json").write_text('{"return": 1}\n')
    (checkout / "run [1]").mkdir()
    (checkout / "run [1]" / "x.py").write_text("x\n")
    assert patch_of(collect(checkout)) == b""
    (checkout / "published" / "mine.py").write_text("mine\n")
    assert b"mine.py" in patch_of(collect(checkout))


def test_links_are_stored_and_checkouts_within_are_named(checkout: Path, tmp_path: Path) -> None:
    commit(checkout)
    (checkout / "link").symlink_to(tmp_path)
    (checkout / "broken").symlink_to("nowhere")
    write(checkout, {"inner/mine.py": "mine\n"})
    git(checkout / "inner", "init", "-q")
    code = collect(checkout)
    assert b"b/link" in patch_of(code) and b"b/broken" in patch_of(code)
    assert code.lab.left_out == {"inner/": "a checkout of its own"}


def test_results_that_git_does_not_ignore_are_no_code(checkout: Path) -> None:
    commit(checkout)
    for folder in ("runs/one", "runs/stack/seed-0", "runs/sweep/trial-000/seed-0"):
        RunDir(checkout / folder).acquire()
        RunDir(checkout / folder).write_status("running", 0, 10)
        (checkout / folder / "last.pt").write_bytes(b"x")
    write_json(checkout / "runs/stack/trial.json", {})
    (checkout / "status.json").write_text("{}\n")
    code = collect(checkout)
    assert patch_of(code).count(b"diff --git") == 1
    assert b"b/status.json" in patch_of(code), "what lies at the top of a checkout is code"


def test_variables_of_a_git_hook_are_ignored(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = commit(checkout)
    monkeypatch.setenv("GIT_INDEX_FILE", str(checkout / "none"))
    monkeypatch.setenv("GIT_DIR", str(checkout / "none"))
    code = collect(checkout)
    assert (code.lab.sha, patch_of(code)) == (sha, b"")


def test_a_file_changed_in_the_second_of_its_commit_is_detected(checkout: Path) -> None:
    for _ in range(3):  # git knows by its index's time that it must look into it
        commit(checkout)
        (checkout / "a.py").write_text("two\n")
        assert b"+two" in patch_of(collect(checkout))
        git(checkout, "commit", "-qam", "two")


def test_a_checkout_without_a_commit(checkout: Path) -> None:
    (checkout / "a.py").write_text("one\n")
    code = collect(checkout)
    assert code.lab.sha is None
    assert code.problems() == ["The code of lab has no git SHA: the checkout has no commit yet."]
    assert b"+one" in patch_of(code)


SECRET = "AK" + "IAIOSFODNN7EXAMPLE"  # in two parts, or this file would look like a secret itself
KEY = "-----BEGIN " + "OPENSSH PRIVATE KEY-----\nx\n"
UNWANTED = {
    ".env": ("PASSWORD=x\n", exclusions.LOOKS_SECRET),
    ".env.local": ("x\n", exclusions.LOOKS_SECRET),
    "id_ed25519": (KEY, exclusions.LOOKS_SECRET),
    "conf/server.pem": (KEY, exclusions.LOOKS_SECRET),
    "lab/secrets.py": ("x = 1\n", exclusions.LOOKS_SECRET),
    "my_token.json": ("{}\n", exclusions.LOOKS_SECRET),
    ".ssh/config.yaml": ("a: 1\n", exclusions.LOOKS_SECRET),
    ".netrc": ("x\n", exclusions.LOOKS_SECRET),
    "upload.py": (f"KEY = '{SECRET}'\n", exclusions.HOLDS_SECRET),
    "upload.sh": (KEY, exclusions.HOLDS_SECRET),
    "db.yaml": ("password: correcthorse\n", exclusions.HOLDS_SECRET),
    "data.npz": ("x\n", exclusions.NO_CODE),
    "notes.txt": ("x\n", exclusions.NO_CODE),
    "levels.json": ("[" + "1," * (exclusions.LARGEST_FILE // 2) + "1]\n", exclusions.TOO_LARGE),
}
WANTED = {
    "tokenizer.py": "x = 1\n",
    "tokenizer.json": "{}\n",
    "script": "#!/bin/sh\n",
    "model.xml": "<mujoco/>\n",
    "requirements.txt": "numpy\n",
    "conf/env/mine.yaml": "password: ${oc.env:DB_PASSWORD}\n",
}


def test_secrets_and_data_are_named_and_never_stored(checkout: Path) -> None:
    commit(checkout)
    write(checkout, {name: text for name, (text, _) in UNWANTED.items()} | WANTED)
    code = collect(checkout)
    assert dict(code.lab.left_out) == {name: reason for name, (_, reason) in UNWANTED.items()}
    for name in UNWANTED:
        assert f"b/{name}".encode() not in patch_of(code), name
    for name in WANTED:
        assert f"b/{name}".encode() in patch_of(code), name
    assert set(code.lab.files) == {"lab/__init__.py", "a.py", "gone.py", ".gitignore", *WANTED}
    (remark,) = code.remarks()
    assert remark.startswith("Left out of uncommitted.patch: ") and remark.endswith("and 4 more.")


def test_secrets_in_tracked_files_are_left_out_and_the_rest_is_not(checkout: Path) -> None:
    write(checkout, {"app.yaml": "a: 1\n", "old.py": f"KEY = '{SECRET}'\n", ".env": "A=1\n", "big.bin": "x\n"})
    write(checkout, {"lab/credentials.py": "x = 1\n", "private.cfg": "x\n"})
    commit(checkout)
    write(checkout, {"app.yaml": "api_key: 0123456789\n", "old.py": "KEY = None\n", ".env": "A=2\n", "a.py": "two\n"})
    write(checkout, {"lab/credentials.py": "x = 2\n", "private.cfg": "y\n"})
    (checkout / "private.cfg").chmod(0o600)
    with (checkout / "big.bin").open("r+b") as file:
        file.truncate(300 * 2**20)
    git(checkout, "add", "a.py")
    code = collect(checkout)
    assert dict(code.lab.left_out) == {
        ".env": exclusions.LOOKS_SECRET,
        "app.yaml": exclusions.HOLDS_SECRET,
        "old.py": exclusions.HOLDS_SECRET,
        "private.cfg": exclusions.PRIVATE,
        "big.bin": exclusions.TOO_LARGE,
    }
    assert patch_of(code).count(b"diff --git") == 2
    assert b"+two" in patch_of(code) and b"+x = 2" in patch_of(code)


@pytest.mark.parametrize("staged", [False, True])
def test_data_is_stored_only_where_the_commit_has_it(checkout: Path, staged: bool) -> None:
    write(checkout, {"mesh.stl": "old\n", "huge.stl": "old\n"})
    commit(checkout)
    write(checkout, {"mesh.stl": "new\n", "huge.stl": "x" * 2000, "films/episode-0.mp4": "x\n", "new.py": "x = 1\n"})
    if staged:
        git(checkout, "add", "-A")
    code = CodeSnapshot.take(checkout / "run", max_size=1000)
    assert dict(code.lab.left_out) == {"films/episode-0.mp4": exclusions.NO_CODE, "huge.stl": exclusions.TOO_LARGE}
    assert b"b/mesh.stl" in patch_of(code) and b"b/new.py" in patch_of(code)
    assert code.warnings() == ["Left out of uncommitted.patch: huge.stl (too large by provenance.max_file_size)."], (
        "films are only in the log"
    )


def test_what_commands_write_is_no_code(checkout: Path) -> None:
    commit(checkout)
    published = {f"results/{name}": "{}" for name in ("results.json", "results.csv", "results.md", "report.html")}
    exported = {f"published/a2c/{name}": "{}" for name in ("trial.json", "seed-0/exported.json", "seed-0/spec.yaml")}
    write(checkout, {**published, **exported, "conf/results.json": "{}"})
    code = collect(checkout)
    assert patch_of(code).count(b"diff --git") == 1
    assert b"b/conf/results.json" in patch_of(code), "a file of the user's own"
    assert code.lab.left_out == {}


def test_all_changes_together_have_a_limit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(checkout)
    monkeypatch.setattr(exclusions, "LARGEST_FILE", 1000)
    monkeypatch.setattr(exclusions, "MOST_FILES", 1)
    write(checkout, {"small.py": "x" * 600 + "\n", "large.py": "x" * 800 + "\n"})
    code = collect(checkout)
    assert code.lab.left_out == {"large.py": exclusions.TOO_LARGE}
    assert b"small.py" in patch_of(code)


def test_files_that_others_may_not_read_are_left_out(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusions, "_umask", lambda: 0o022)
    commit(checkout)
    for path in checkout.rglob("*.py"):
        path.chmod(0o644)
    write(checkout, {"mine.py": "1\n", "ours.py": "1\n"})
    (checkout / "mine.py").chmod(0o600)
    assert collect(checkout).lab.left_out == {"mine.py": exclusions.PRIVATE}
    for path in checkout.rglob("*.py"):  # as with a umask of 077: what nobody else reads is no secret then
        path.chmod(0o600)
    (checkout / ".gitignore").chmod(0o600)
    assert collect(checkout).lab.left_out == {}


def test_a_surrounding_repository_that_does_not_track_the_code_is_ignored(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(checkout)
    shutil.rmtree(checkout / ".git")
    git(tmp_path, "init", "-q")
    write(tmp_path, {".netrc": "password x\n", ".ssh/id_rsa": KEY, ".bashrc": "x\n", "own/mine.py": "x = 1\n"})
    git(tmp_path, "add", ".bashrc", ".netrc")
    git(tmp_path, "commit", "-qm", "dotfiles")
    write(tmp_path, {".bashrc": "y\n"})
    monkeypatch.setenv("HOME", str(tmp_path))
    use_packages(monkeypatch, tmp_path / "own" / "mine.py")
    code = collect(checkout)
    assert (code.lab.sha, code.lab.patch) == (None, None)
    assert code.problems() == [f"The code of lab has no git SHA: it is in no git repository ({checkout})."]
    (mine,) = code.others
    assert (mine.sha, mine.note, mine.modules, mine.roots) == (None, "in no git repository", ("mine",), (".",))
    assert b"b/mine.py" in code.patches()["uncommitted.own.patch"]
    assert b"rc" not in b"".join(code.patches().values())


def test_an_installed_package_has_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "lib" / "site-packages" / "lab" / "run" / "code" / "packages.py"
    place.parent.mkdir(parents=True)
    monkeypatch.setattr(packages, "__file__", str(place))
    use_packages(monkeypatch)
    code = CodeSnapshot.take(tmp_path)
    assert code.lab.sha is None and "is installed from a package" in str(code.lab.note)
    assert code.problems() == []
    assert len(code.remarks()) == 1


def no_git(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root / "nothing"))


def other_owner(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")


def damaged_head(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".git" / "HEAD").write_text("garbage\n")


def missing_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".git" / "refs" / "heads" / "trunk").write_text("1" * 40 + "\n")


def hanging(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"bin/git": "#!/bin/sh\nexec sleep 20\n"})
    (root / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(running, "SECONDS", 0.2)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_git, "git is not installed."),
        (other_owner, "git refuses a checkout of another owner (detected dubious ownership in repository at"),
        (damaged_head, "for no repository, as when its HEAD is damaged"),
        (missing_commit, "git fails ("),
        (hanging, "git did not answer within 0 seconds"),
    ],
)
def test_a_missing_sha_is_explained(checkout: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, sentence: str) -> None:
    commit(checkout)
    spoil(checkout, monkeypatch)
    code = collect(checkout)
    assert (code.lab.sha, code.lab.patch) == (None, None)
    (problem,) = code.problems()
    assert problem.startswith("The code of lab has no git SHA: ")
    assert sentence in problem


def test_with_a_damaged_index_there_is_a_sha_and_a_sentence(checkout: Path) -> None:
    sha = commit(checkout)
    (checkout / ".git" / "index").write_bytes(b"garbage, and enough of it to be looked at by git")
    code = collect(checkout)
    assert (code.lab.sha, code.lab.patch) == (sha, None)
    (problem,) = code.problems()
    assert "what was not committed is not known: the index of git is damaged" in problem


def test_a_detached_head(checkout: Path) -> None:
    sha = commit(checkout)
    git(checkout, "checkout", "-q", "--detach")
    code = collect(checkout)
    assert (code.lab.sha, code.lab.branch, code.problems()) == (sha, None, [])


def test_a_checkout_that_may_not_be_written_is_described(checkout: Path) -> None:
    commit(checkout)
    write(checkout, {"mine.py": "1\n"})
    before = set((checkout / ".git").rglob("*"))
    assert b"b/mine.py" in patch_of(collect(checkout))
    assert set((checkout / ".git").rglob("*")) == before, "nothing was written into it"


def test_submodules_are_repositories_of_their_own(checkout: Path, tmp_path: Path) -> None:
    sha = commit_files(tmp_path / "library", {"library.py": "one\n"})
    for name in ("library", "empty"):
        git(
            checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "library"), name
        )
    commit(checkout)
    git(checkout, "submodule", "--quiet", "deinit", "--force", "empty")
    write(checkout / "library", {"library.py": "two\n", "new.py": "three\n"})
    code = collect(checkout)
    assert code.lab.left_out == {"empty/": "a submodule that is not checked out"}
    assert patch_of(code) == b""
    (library,) = code.others
    assert (library.path, library.sha) == (checkout / "library", sha)
    patch = code.patches()["uncommitted.library.patch"]
    assert b"+two" in patch and b"+three" in patch


def test_the_users_own_repository(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(checkout)
    mine = tmp_path / "my.project"
    files = {"src/mine/__init__.py": "one\n", "src/mine/env.py": "", "README.md": "", ".gitignore": "*.log\ngen.py\n"}
    sha = commit_files(mine, files)
    write(mine, {"src/mine/env.py": "changed\n", "src/mine/new.py": "new\n", "src/mine/gen.py": "generated\n"})
    write(mine, {"elsewhere/other.py": "not imported\n", "alone.py": "in lab's\n"})
    write(checkout, {"alone.py": "in lab's\n"})
    use_packages(monkeypatch, mine / "src" / "mine", checkout / "alone.py")
    code = collect(checkout)
    assert code.lab.modules == ("alone",)
    (one,) = code.others
    assert (one.name, one.sha, one.branch) == ("my.project", sha, "trunk")
    assert (one.modules, one.roots) == (("mine",), ("src",))
    patch = code.patches()["uncommitted.my.project.patch"]
    assert patch.count(b"diff --git") == 3, "what is imported is code, ignored or not; what is elsewhere is not"
    assert CodeSnapshot.read(code.to_dict(), tmp_path).others[0].patch == b"", "a patch that is missing is empty"
    for name, content in code.patches().items():
        (tmp_path / name).write_bytes(content)
    assert CodeSnapshot.read(code.to_dict(), tmp_path).to_dict() == code.to_dict()


def test_a_digest_changes_with_sources_alone(checkout: Path, tmp_path: Path) -> None:
    write(tmp_path, {"mine/__init__.py": "", "mine/env.py": "1", "mine/README.md": ""})

    def now() -> str | None:
        packages.digest_of.cache_clear()
        return packages.digest_of(tmp_path / "mine")

    before = now()
    write(tmp_path, {"mine/README.md": "changed", "mine/__pycache__/env.py": "", "mine/.git/hook.py": ""})
    assert now() == before
    write(tmp_path, {"mine/env.py": "2"})
    assert now() != before


def test_the_repository_of_config_groups_counts_as_far_as_they_go(checkout: Path, tmp_path: Path) -> None:
    commit(checkout)
    mine = tmp_path / "settings"
    sha = commit_files(mine, {"conf/algo/mine.yaml": "a: 1\n", "README.md": ""})
    write(mine, {"conf/algo/new.yaml": "a: 2\n", "elsewhere.py": "x = 1\n"})
    code = CodeSnapshot.take(checkout / "run", [mine / "conf", tmp_path / "nowhere", tmp_path])
    (one,) = code.others
    assert (one.name, one.sha, one.modules) == ("settings", sha, ())
    patch = code.patches()["uncommitted.settings.patch"]
    assert b"new.yaml" in patch and b"elsewhere" not in patch
