"""The state of a repository: its commit, what is not committed, and what was left out of that and why."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.code import files
from lab.run.code.digest import package
from lab.run.code.git import EMPTY_TREE, GitError, ask_git, batches, split
from lab.run.files import read_yaml

LOOSE = "in no git repository"
PACKAGED = "is installed from a package"
PIPELINE = "dvc.lock"  # what DVC keeps of the pipeline that it ran, at the root of a checkout
MOST_NAMES = 100  # names of files left out that are listed
SUBMODULE = "160000"  # its mode in an index
# As `git apply` takes it, whatever somebody's settings are.
FORM = (
    "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--unified=3", "--src-prefix=a/",
    "--dst-prefix=b/", "--full-index",
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """A repository, or a folder of modules that are in none, as it is on disk.

    Attributes:
        name: the folder's name, as no other repository of the snapshot has it.
        path: the root.
        sha: of the commit; null if there is none, or it is not known.
        branch: null if no branch is checked out.
        patch: what the working tree has that the commit has not, for `git apply`; null if that is not known.
        left_out: why a file that is not committed is not in the patch, by the file's name.
        note: why something is not known; null if all is.
        modules: the user's own packages that are imported from it.
        roots: the folders in it that they are imported from.
        files: the code in it, as names; not recorded.
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

    def to_dict(self) -> dict[str, Any]:
        """Return what provenance.json has of it."""
        left_out = dict(list(self.left_out.items())[:MOST_NAMES])
        if len(self.left_out) > MOST_NAMES:
            left_out[f"and {len(self.left_out) - MOST_NAMES} more"] = "not listed"
        return {
            "name": self.name,
            "path": str(self.path),
            "sha": self.sha,
            "branch": self.branch,
            "uncommitted": None if self.patch is None else bool(self.patch),
            "left_out": left_out,
            "note": self.note,
            "modules": list(self.modules),
            "roots": list(self.roots),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], patch: bytes | None) -> Repository:
        """Return what `to_dict` wrote, with its patch; published results of earlier versions know less."""
        known = facts.get("uncommitted") is not None
        left_out = facts.get("left_out") or {}
        return cls(
            facts.get("name") or "lab",
            Path(facts.get("path") or os.devnull),
            facts.get("sha"),
            facts.get("branch"),
            patch=patch or b"" if known else None,
            left_out=left_out if isinstance(left_out, dict) else dict.fromkeys(left_out, files.TOO_LARGE),
            note=facts.get("note"),
            modules=tuple(facts.get("modules") or ()),
            roots=tuple(facts.get("roots", (".",))),
        )


@dataclass(frozen=True)
class Request:
    """What to look at in a repository.

    Attributes:
        path: its root.
        name: what it is called.
        below: folders whose untracked code belongs to it.
        beside: folders whose untracked code belongs to it, but not that of folders in them.
        wanted: files of modules that are imported; they are code even where git ignores them.
        modules: the user's packages that are imported from it.
        roots: the folders that they are imported from.
    """

    path: Path
    name: str
    below: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    wanted: tuple[Path, ...] = ()
    modules: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()

    def covers(self, path: Path) -> bool:
        """Say whether an untracked file belongs to the code."""
        return path in self.wanted or path.parent in self.beside or not set(self.below).isdisjoint(path.parents)

    def answer(self, **facts: Any) -> Repository:
        """Return the repository with what was found."""
        roots = tuple(str(root.relative_to(self.path)) for root in self.roots)
        return Repository(self.name, self.path, modules=self.modules, roots=roots, **facts)


def read_repository(request: Request, outputs: Path) -> Repository:
    """Return the state of a git repository; what git does not say is null, with a note.

    Args:
        request: which, and what in it.
        outputs: the run directory, which is not part of the code although it may lie there.
    """
    root = request.path
    try:
        sha, branch = _head(root)
    except GitError as error:
        return request.answer(note=str(error))
    try:
        listed = [entry.partition("\t") for entry in split(ask_git(root, "ls-files", "--stage", "-z"))]
        tracked = {name: mode.split()[0] for mode, _, name in listed}
        untracked = _untracked(request)
        results = _results(root, untracked, outputs)
        code_results = results - set(package().parents)  # what git tracks beside this package is code, wherever that is
        written = _written_by_pipeline(root)
        changed, sizes = _changed(root, sha or EMPTY_TREE, written)
        submodules = {name for name, mode in tracked.items() if mode == SUBMODULE}
        changed = [name for name in changed if name not in submodules and not _is_below(root / name, code_results)]
        left_out = {
            f"{name}/": "a submodule that is not checked out"
            for name in submodules
            if not (root / name / ".git").exists()
        }
        new = []
        for name in untracked:
            if name.endswith("/"):
                left_out[name] = "a checkout of its own"
            elif _is_entry(root / name) and not _is_below(root / name, results | {root / one for one in written}):
                new.append(name)
        usual = files.usual_mode(root, tracked)
        patch, omitted = _uncommitted(request, sha or EMPTY_TREE, changed, new, sizes, usual)
    except GitError as error:
        return request.answer(sha=sha, branch=branch, note=f"what was not committed is not known: {error}")
    kept = [name for name in tracked if name not in submodules and not _is_below(root / name, code_results)]
    there = [name for name in (*kept, *new) if name not in omitted]
    note = None if sha else "the checkout has no commit yet"
    return request.answer(
        sha=sha, branch=branch, patch=patch, left_out={**left_out, **omitted}, note=note, files=tuple(there)
    )


def read_folder(request: Request) -> Repository:
    """Return the modules of a folder that is in no repository, all of them in a patch against nothing."""
    root = request.path
    names = {str(path.relative_to(root)) for path in request.wanted}
    for folder in request.below:
        for path in folder.rglob("*"):
            name = path.relative_to(root)
            if path.is_file() and files.is_code(path) and not any(part[0] in "._" for part in name.parts[:-1]):
                names.add(str(name))
    try:
        with tempfile.TemporaryDirectory() as aside:
            ask_git(Path(aside), "init", "--quiet", "--bare", ".")
            env = {"GIT_DIR": aside, "GIT_WORK_TREE": str(root)}
            usual = files.usual_mode(root, sorted(names))
            patch, omitted = _uncommitted(request, EMPTY_TREE, [], sorted(names), {}, usual, env)
    except GitError as error:
        return request.answer(note=f"{LOOSE}, and its code is not kept: {error}")
    there = tuple(name for name in sorted(names) if name not in omitted)
    return request.answer(patch=patch, left_out=omitted, note=LOOSE, files=there)


def submodules_of(root: Path) -> list[Path]:
    """Return the submodules that are checked out in a repository, and those in them."""
    try:
        listed = [entry.partition("\t") for entry in split(ask_git(root, "ls-files", "--stage", "-z"))]
    except GitError:
        return []
    here = [root / name for mode, _, name in listed if mode.startswith(SUBMODULE)]
    there = [path for path in here if (path / ".git").exists()]
    return [path for one in there for path in (one, *submodules_of(one))]


def head(root: Path) -> str | None:
    """Return the commit that is checked out; null if there is none, or it is not known."""
    try:
        return _head(root)[0]
    except GitError:
        return None


def _head(root: Path) -> tuple[str | None, str | None]:
    """Return the commit and the branch that are checked out, null for either that there is none of."""
    try:
        sha = ask_git(root, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    except GitError as error:
        try:
            ask_git(root, "log", "-1", "--format=%H", "--no-show-signature")
        except GitError as reason:
            if "does not have any commits yet" not in str(reason):
                raise reason from error
        sha = ""
    try:
        branch = ask_git(root, "symbolic-ref", "--short", "--quiet", "HEAD").decode().strip()
    except GitError:
        branch = ""
    return sha or None, branch or None


def _untracked(request: Request) -> list[str]:
    """Return untracked files that belong to the code, and checkouts there, which end with a slash."""
    root, places = request.path, [*request.below, *request.beside]
    names = {str(path.relative_to(root)) for path in request.wanted}
    if names:
        names -= set(split(ask_git(root, "--literal-pathspecs", "ls-files", "-z", "--", *names)))
    within = [str(place.relative_to(root)) for place in places]
    if within:
        listed = ask_git(root, "--literal-pathspecs", "ls-files", "--others", "--exclude-standard", "-z", "--", *within)
        names |= {name for name in split(listed) if request.covers(root / name)}
    return sorted(names)


def _changed(root: Path, base: str, written: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return the tracked files that are not as in a commit, and the bytes of each, before and now together."""
    # What a pipeline writes while it runs is no code: its later stages have the code that its first one had.
    excluded = ["--", ".", *(f":(exclude,literal,top){name}" for name in written)]
    words = ("diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--ignore-submodules=dirty", base, *excluded)
    fields = split(ask_git(root, *words))
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    blobs = {
        name: facts.split()[2] for facts, name in pairs if facts.split()[0].lstrip(":") not in ("000000", SUBMODULE)
    }
    asked = "".join(f"{blob}\n" for blob in blobs.values()).encode()
    words = ("cat-file", "--batch-check=%(objectsize)")
    answers = ask_git(root, *words, stdin=asked).decode().split("\n") if asked else []
    old = {name: int(size) if size.isdigit() else 0 for name, size in zip(blobs, answers, strict=False)}
    sizes = {}
    for _, name in pairs:
        path = root / name
        sizes[name] = old.get(name, 0) + (path.lstat().st_size if _is_entry(path) else 0)
    return [name for _, name in pairs], sizes


def _uncommitted(
    request: Request,
    base: str,
    changed: Sequence[str],
    new: Sequence[str],
    sizes: dict[str, int],
    usual: int,
    env: Mapping[str, str] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """Return the patch from a commit to the working tree, and why files are not in it."""
    root = request.path
    wanted = {str(path.relative_to(root)) for path in request.wanted}
    omitted: dict[str, str] = {}
    for name in (*changed, *new):
        tracked = name in sizes
        reason = files.reason_to_omit(root, name, tracked, usual, name in wanted)
        if reason is None and sizes.get(name, 0) > 2 * files.LARGEST_FILE:
            reason = files.TOO_LARGE
        if reason:
            omitted[name] = reason
    whole = sizes | {name: (root / name).lstat().st_size for name in new}
    left = [name for name in (*changed, *new) if name not in omitted]
    fit, beyond = files.within_budget(root, left, whole)
    omitted |= dict.fromkeys(beyond, files.TOO_LARGE)
    if not fit:
        return b"", omitted
    added = set(new)
    patch = b""
    with _index(root, [name for name in fit if name in added], env) as index:
        for names in batches(sorted(fit)):
            part = _diff(root, base, names, index)
            if files.holds_secret(part):  # in what was there before, as each file was looked at as it is now
                parts = {name: _diff(root, base, [name], index) for name in names}
                secret = [name for name, one in parts.items() if files.holds_secret(one)]
                omitted |= dict.fromkeys(secret, files.HOLDS_SECRET)
                part = b"".join(one for name, one in parts.items() if name not in secret)
            patch += part
    return patch, omitted


def _diff(root: Path, base: str, names: Sequence[str], env: Mapping[str, str]) -> bytes:
    return ask_git(root, "--literal-pathspecs", "diff", *FORM, base, "--", *names, env=dict(env))


class _index:  # noqa: N801 - a context manager, used as a function
    """A copy of a checkout's index in which untracked files are marked as meant to be added; the checkout's stays."""

    def __init__(self, root: Path, new: Sequence[str], env: Mapping[str, str] | None) -> None:
        self.root, self.new, self.given = root, new, env
        self.aside = tempfile.TemporaryDirectory()

    def __enter__(self) -> dict[str, str]:
        folder = Path(self.aside.name)
        env = {**(self.given or {}), "GIT_INDEX_FILE": str(folder / "index")}
        if self.given is None:
            original, objects = (self._path(name) for name in ("index", "objects"))
            if original.exists():
                shutil.copy2(original, folder / "index")  # by its time git knows which files it must look into
            # Nothing is written into the checkout, which may be somebody else's.
            (folder / "objects").mkdir()
            env |= {"GIT_OBJECT_DIRECTORY": str(folder / "objects"), "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects)}
        if self.new:
            names = b"\0".join(map(os.fsencode, self.new))
            words = ("add", "--force", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            ask_git(self.root, "--literal-pathspecs", *words, stdin=names, env=env)
        return env

    def __exit__(self, *problem: object) -> None:
        self.aside.cleanup()

    def _path(self, name: str) -> Path:
        return self.root / os.fsdecode(ask_git(self.root, "rev-parse", "--git-path", name).removesuffix(b"\n"))


def _results(root: Path, untracked: Iterable[str], outputs: Path) -> set[Path]:
    """Return the run directories in a checkout, whose results are no code."""
    known = set(untracked)
    folders = {name.rpartition("/")[0] for name in known if name.endswith("/.lock")}
    found = {folder for folder in folders for file in ("status.json", "sweep.json") if f"{folder}/{file}" in known}
    stacks = {folder.rpartition("/")[0] for folder in found if folder.rpartition("/")[2].startswith("seed-")}
    return {outputs.resolve(), *(root / name for name in (found | stacks) - {""})}


def _written_by_pipeline(root: Path) -> list[str]:
    """Return the paths below a checkout that its DVC pipeline writes, as far as it has run."""
    if not (root / PIPELINE).exists():
        return []
    try:
        lock = read_yaml(root / PIPELINE)
        stages = lock.get("stages", {}).values()
    except (LabError, AttributeError):  # as after a merge that is not finished
        return [PIPELINE]
    return [PIPELINE, *(out["path"] for stage in stages for out in stage.get("outs", ()))]


def _is_entry(path: Path) -> bool:
    """Say whether there is a file or a link, broken or not, and no folder."""
    return path.is_symlink() or path.is_file()


def _is_below(path: Path, folders: set[Path]) -> bool:
    return not folders.isdisjoint((path, *path.parents))
