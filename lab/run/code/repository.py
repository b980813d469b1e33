"""The state of a repository: its commit, a patch with what is not committed, and what the patch leaves out and why."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.code import exclusions
from lab.run.code.git import GitError, list_names, read_head, run_git
from lab.run.code.packages import UserPackage, lab_package
from lab.run.files import read_yaml

LOOSE = "in no git repository"
PACKAGED = "is installed from a package"
PIPELINE = "dvc.lock"  # DVC's record of the pipeline, at the root of a checkout
MOST_NAMES = 100  # omitted files that are listed
SUBMODULE = "160000"  # mode of a submodule in an index
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for a tree without files
PATCH_FORMAT = (
    "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--unified=3", "--src-prefix=a/",
    "--dst-prefix=b/", "--full-index",
)  # for `git apply`, whatever the user's settings  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """A repository, or a folder of modules that are in none, as it is on disk.

    Attributes:
        sha, branch: what is checked out; None if there is none, or it is not known.
        patch: from the commit to the working tree, for `git apply`; None if it is not known.
        left_out: why an uncommitted file is not in the patch, by the file's name.
        note: why something is not known; None if all is.
        modules, roots: the user's own packages that are imported from it, and the folders in it that they lie in.
        files: names of the code in it; not recorded.
    """

    name: str
    path: Path
    sha: str | None = None
    branch: str | None = None
    patch: bytes | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    modules: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def in_git(self) -> bool:
        """Whether it is a git repository."""
        return not self.note or (LOOSE not in self.note and PACKAGED not in self.note)

    def __str__(self) -> str:
        return f"commit {self.sha[:12]} of {self.name}" if self.sha else f"{self.name} without a commit"

    def to_dict(self) -> dict[str, Any]:
        """Return what provenance.json holds about it."""
        left_out = dict(islice(self.left_out.items(), MOST_NAMES))
        if len(self.left_out) > MOST_NAMES:
            left_out[f"and {len(self.left_out) - MOST_NAMES} more"] = "not listed"
        facts = {key: getattr(self, key) for key in ("name", "sha", "branch", "note")}
        facts |= {"path": str(self.path), "modules": list(self.modules), "roots": list(self.roots)}
        return facts | {"left_out": left_out, "uncommitted": None if self.patch is None else bool(self.patch)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Repository:
        """Return what `to_dict` wrote, with an empty patch; published results of earlier versions lack some keys."""
        left_out = facts.get("left_out") or {}
        return cls(
            facts.get("name") or "lab",
            Path(facts.get("path") or os.devnull),
            facts.get("sha"),
            facts.get("branch"),
            None if facts.get("uncommitted") is None else b"",
            left_out if isinstance(left_out, dict) else dict.fromkeys(left_out, exclusions.TOO_LARGE),
            facts.get("note"),
            tuple(facts.get("modules") or ()),
            tuple(facts.get("roots", (".",))),
        )

    @classmethod
    def of(cls, name: str, path: Path, packages: Sequence[UserPackage], roots: Sequence[Path] = ()) -> Repository:
        """Return the repository at a path, of which nothing but the packages imported from it is known yet."""
        folders = dict.fromkeys([*roots, *(package.root for package in packages)])
        modules = tuple(package.name for package in packages)
        return cls(name, path, modules=modules, roots=tuple(str(folder.relative_to(path)) for folder in folders))


def read_repository(
    unread: Repository, packages: Sequence[UserPackage], folders: Sequence[Path], outputs: Path, max_size: int
) -> Repository:
    """Return the state of a git repository; what git does not tell is None, with a note.

    Args:
        unread: the repository, from `Repository.of`.
        packages: the user's own that are imported from it; code even where git ignores them.
        folders: further folders whose untracked code belongs to it.
        outputs: the run directory, which is not code although it may lie in the repository.
        max_size: of an uncommitted file that is kept, in bytes.
    """
    root = unread.path
    try:
        sha, branch = read_head(root)
    except GitError as error:
        return replace(unread, note=str(error))
    known = replace(unread, sha=sha, branch=branch)
    base = sha or EMPTY_TREE
    try:
        tracked, submodules = _list_tracked(root)
        changes = list_names(root, "diff", "--name-status", "-z", "--no-renames", "--ignore-submodules=dirty", base)
        status = dict(zip(changes[1::2], changes[::2], strict=True))
        untracked = _list_untracked(root, packages, folders)
        results = _find_results(root, untracked, outputs)
        # Tracked files beside this package are code even if the run directory is around them.
        code_results = results - set(lab_package().parents)
        # Later stages of a pipeline have the code of its first stage, whatever it has written since.
        written = {root / name for name in _written_by_pipeline(root)} if status or untracked else set()
        new = [name for name in untracked if _exists(root / name) and not _is_below(root / name, results | written)]
        changed = {
            name: letter != "A"
            for name, letter in status.items()
            if name not in submodules and not _is_below(root / name, code_results | written)
        }
        names = changed | dict.fromkeys((name for name in new if name not in changed), False)
        patch, omitted = _make_patch(root, base, names, packages, tracked, max_size)
    except GitError as error:
        return replace(known, note=f"what was not committed is not known: {error}")
    missing = [name for name in submodules if not (root / name / ".git").exists()]
    left_out = {f"{name}/": "a submodule that is not checked out" for name in missing}
    left_out |= {name: "a checkout of its own" for name in untracked if name.endswith("/")}
    files = [name for name in tracked if not _is_below(root / name, code_results)] + new
    return replace(
        known,
        patch=patch,
        left_out=left_out | omitted,
        note=None if sha else "the checkout has no commit yet",
        files=tuple(name for name in files if name not in omitted),
    )


def read_loose_folder(unread: Repository, packages: Sequence[UserPackage], max_size: int) -> Repository:
    """Return the modules of a folder that is in no repository, all of them in a patch against nothing."""
    root = unread.path
    names = {str(file.relative_to(root)) for package in packages for file in package.files}
    for package in packages:
        for path in package.path.rglob("*") if package.path.is_dir() else ():
            name = path.relative_to(root)
            if path.is_file() and exclusions.is_code(path) and not any(part[0] in "._" for part in name.parts[:-1]):
                names.add(str(name))
    try:
        patch, omitted = _make_patch(root, None, dict.fromkeys(sorted(names), False), packages, sorted(names), max_size)
    except GitError as error:
        return replace(unread, note=f"{LOOSE}, and its code is not kept: {error}")
    files = tuple(name for name in sorted(names) if name not in omitted)
    return replace(unread, patch=patch, left_out=omitted, note=LOOSE, files=files)


def find_submodules(root: Path) -> list[Path]:
    """Return the submodules that are checked out in a repository, and those in them."""
    try:
        _, submodules = _list_tracked(root)
    except GitError:
        return []
    paths = [root / name for name in submodules if (root / name / ".git").exists()]
    return [path for one in paths for path in (one, *find_submodules(one))]


def _list_tracked(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of tracked files and of submodules."""
    entries = [entry.partition("\t") for entry in list_names(root, "ls-files", "--stage", "-z")]
    modes = {name: facts.split()[0] for facts, _, name in entries}  # a conflict lists a file several times
    submodules = [name for name, mode in modes.items() if mode == SUBMODULE]
    return [name for name, mode in modes.items() if mode != SUBMODULE], submodules


def _list_untracked(root: Path, packages: Sequence[UserPackage], folders: Sequence[Path]) -> list[str]:
    """Return untracked files that belong to the code, and checkouts there, which end with a slash."""
    imported = {file for package in packages for file in package.files}
    below = {*folders, *(package.path for package in packages if package.path.is_dir())}
    beside = {package.root for package in packages if not package.path.is_dir()}  # without the folders in it

    def list_files(*arguments: str) -> set[str]:
        return set(list_names(root, "--literal-pathspecs", "ls-files", "-z", *arguments))

    names = {str(file.relative_to(root)) for file in imported}
    if names:
        names -= list_files("--", *names)
    if below or beside:
        places = [str(place.relative_to(root)) for place in below | beside]
        for name in list_files("--others", "--exclude-standard", "--", *places):
            if (root / name).parent in beside or _is_below((root / name).parent, below):
                names.add(name)
    return sorted(names)


def _make_patch(
    root: Path,
    base: str | None,
    names: Mapping[str, bool],
    packages: Sequence[UserPackage],
    tracked: Iterable[str],
    max_size: int,
) -> tuple[bytes, dict[str, str]]:
    """Return the patch from a commit (None outside git) to the working tree, and why files are not in it.

    Args:
        root: the checkout.
        base: the commit.
        names: the files that differ, and whether the commit has them; one that is only staged is new.
        packages: the user's own.
        tracked: files that tell the usual mode.
        max_size: of a file, in bytes.
    """
    imported = {str(file.relative_to(root)) for package in packages for file in package.files}
    usual_mode = exclusions.usual_mode(root, tracked)
    omitted: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for name, committed in names.items():
        reason = exclusions.reason_to_omit(root, name, committed, usual_mode, name in imported, max_size)
        if reason:
            omitted[name] = reason
        else:
            sizes[name] = (root / name).lstat().st_size if _exists(root / name) else 0
    included, excess = exclusions.split_by_budget(sizes, exclusions.MOST_FILES * max_size)
    omitted |= dict.fromkeys(excess, exclusions.TOO_LARGE)
    patch = b""
    for name, part in _diff(root, base, included).items() if included else ():
        if exclusions.holds_secret(part):  # in the former content: the current one was checked above
            omitted[name] = exclusions.HOLDS_SECRET
        elif len(part) > exclusions.MOST_FILES * max_size:
            omitted[name] = exclusions.TOO_LARGE
        else:
            patch += part
    return patch, omitted


def _diff(root: Path, base: str | None, names: Collection[str]) -> dict[str, bytes]:
    """Return the patch of each file, from a commit (None outside git) to the working tree."""
    with _temporary_index(root, base is not None) as env:

        def stage(names: Iterable[str], *options: str) -> None:
            stdin = b"\0".join(map(os.fsencode, names))
            run_git(root, "-c", "core.safecrlf=false", "update-index", *options, "-z", "--stdin", stdin=stdin, env=env)

        if base is not None:
            run_git(root, "read-tree", "--empty" if base == EMPTY_TREE else base, env=env)
        stage((name for name in names if not _exists(root / name)), "--force-remove")
        stage((name for name in names if _exists(root / name)), "--add", "--replace")
        since = ("--cached", "--no-renames", base or EMPTY_TREE)
        differing = list_names(root, "diff", "--name-only", "-z", *since, env=env)
        patch = run_git(root, "diff", *PATCH_FORMAT, *since, env=env)
    parts: dict[bytes, bytes] = {}
    for part in re.split(rb"(?m)^(?=diff --git )", patch)[1:]:
        header = part.partition(b"\n")[0]
        parts[header] = parts.get(header, b"") + part  # a file that becomes a link has two parts
    return dict(zip(differing, parts.values(), strict=True))


@contextmanager
def _temporary_index(root: Path, in_git: bool) -> Iterator[dict[str, str]]:
    """Yield the environment in which git writes index and objects to a temporary folder, not into the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        if not in_git:
            run_git(Path(folder), "init", "--quiet", "--bare", ".")
            yield {"GIT_DIR": folder, "GIT_WORK_TREE": str(root)}
            return
        objects = root / os.fsdecode(run_git(root, "rev-parse", "--git-path", "objects").removesuffix(b"\n"))
        Path(folder, "objects").mkdir()
        yield {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": f"{folder}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }


def _find_results(root: Path, untracked: Collection[str], outputs: Path) -> set[Path]:
    """Return the folders in a checkout that training, `export` and `publish` wrote: results are not code."""
    known = set(untracked)
    results = {name.rpartition("/")[0] for name in known if name.endswith("/exported.json")}
    for files in ((".lock", "status.json"), (".lock", "sweep.json"), ("results.json", "results.csv", "results.md")):
        folders = {name.rpartition("/")[0] for name in known if name.endswith(f"/{files[0]}")}
        results |= {folder for folder in folders if known.issuperset(f"{folder}/{file}" for file in files)}
    for part in ("seed-", "trial-"):
        results |= {folder.rpartition("/")[0] for folder in results if folder.rpartition("/")[2].startswith(part)}
    return {outputs.resolve(), *(root / name for name in results - {""})}


def _written_by_pipeline(root: Path) -> list[str]:
    """Return the paths below a checkout that its DVC pipeline has written."""
    if not (root / PIPELINE).exists():
        return []
    try:
        stages = read_yaml(root / PIPELINE).get("stages", {}).values()
        return [PIPELINE, *(out["path"] for stage in stages for out in stage.get("outs", ()))]
    except (LabError, AttributeError):  # for example in an unfinished merge
        return [PIPELINE]


def _exists(path: Path) -> bool:
    """Return whether there is a file or a link, broken or not, and no link among the folders above it."""
    return (path.is_symlink() or path.is_file()) and path.parent.resolve() == path.parent


def _is_below(path: Path, folders: Collection[Path]) -> bool:
    return any(one in folders for one in (path, *path.parents))
