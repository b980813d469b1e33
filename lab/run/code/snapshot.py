"""The state of all code that a process runs: recorded, copied for jobs that wait, and restored to run it again."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.code import exclusions
from lab.run.code.copy import HERE, CodeCopy, Tree, check_out, copy_files, link_files, make_private, require_listable
from lab.run.code.discovery import read_lab_repository, read_other_repositories, root_of_lab
from lab.run.code.git import GitError, find_root, read_head
from lab.run.code.packages import (
    COPIED_FACTS,
    current_digest,
    different,
    digest_of,
    find_module,
    is_copy,
    lab_package,
    user_packages,
)
from lab.run.code.repository import PACKAGED, Repository
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.schemas import PROVENANCE

OTHERS = ".repositories"  # the folder in a copy for the repositories of the user's own modules


@dataclass(frozen=True)
class CodeSnapshot:
    """The code of a process.

    Attributes:
        lab: the repository that tracks this package.
        others: those of the user's own modules, of submodules, and of the user's config groups.
        digests: of lab and of each of the user's packages, by name.
    """

    lab: Repository
    others: tuple[Repository, ...]
    digests: Mapping[str, str | None]

    @classmethod
    def take(cls, outputs: Path, config_dirs: Iterable[Path] = (), max_size: int | None = None) -> CodeSnapshot:
        """Read the code of this process; in a copy of the code, as it was when the copy was made.

        Args:
            outputs: the run directory, which is not code although it may lie beside it.
            config_dirs: the folders of the user's own config groups.
            max_size: of an uncommitted file that is kept, in bytes; None for exclusions.LARGEST_FILE.
        """
        packages, max_size = user_packages(), max_size or exclusions.LARGEST_FILE
        if is_copy():
            copied, path = _read_copied()
            packages = [one for one in packages if not any(file.is_relative_to(path) for file in one.files)]
            digests = {one.name: digest_of(one.path) for one in packages} | dict(copied.digests)
            late = read_other_repositories(packages, outputs, config_dirs, copied.repositories, max_size)
            return cls(copied.lab, (*copied.others, *late), digests)
        lab = read_lab_repository(packages, outputs, max_size)
        others = read_other_repositories(packages, outputs, config_dirs, [lab], max_size)
        recorded = {one.path for one in others}
        left_out = {name: why for name, why in lab.left_out.items() if lab.path / name not in recorded}
        digests = {"lab": digest_of(lab_package())} | {one.name: digest_of(one.path) for one in packages}
        return cls(replace(lab, left_out=left_out), tuple(others), digests)

    @classmethod
    def read(cls, facts: Mapping[str, Any], folder: Path, stem: str = "uncommitted") -> CodeSnapshot:
        """Return what `to_dict` and `patches` wrote into a folder; a patch that cannot be read is empty."""
        repositories = [Repository.from_dict(one) for one in (facts["git"], *(facts.get("repositories") or ()))]
        snapshot = cls(repositories[0], tuple(repositories[1:]), facts.get("code") or {})

        def with_patch(repository: Repository) -> Repository:
            try:
                patch = (folder / snapshot.patch_name(repository, stem)).read_bytes()
            except (FileNotFoundError, PermissionError):
                return repository
            return repository if repository.patch is None else replace(repository, patch=patch)

        lab, *others = map(with_patch, snapshot.repositories)
        return cls(lab, tuple(others), snapshot.digests)

    @classmethod
    def of_session(cls, directory: RunDir, whole: bool = True) -> CodeSnapshot:
        """Read the code that a Session started with.

        Raises:
            LabError: it cannot be read, or `whole` is set and a patch is missing.
        """
        facts = read_json(directory.provenance, PROVENANCE)
        snapshot = cls.read(facts, directory.path)
        recorded = (facts["git"], *(facts.get("repositories") or ()))
        for repository, known in zip(snapshot.repositories, recorded, strict=True):
            if whole and known["uncommitted"] and not repository.patch:
                path = directory.path / snapshot.patch_name(repository)
                problem = "may be read by its owner alone" if path.exists() else "is missing"
                raise LabError(f"{path} {problem}: it held the uncommitted changes to {repository}{HERE}.")
        return snapshot

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """All repositories, lab's first."""
        return (self.lab, *self.others)

    def __str__(self) -> str:
        parts = []
        for one in self.repositories:
            of = "" if one is self.lab else f" of {one.name}"
            what = f"commit {one.sha[:12]}" if one.sha else "no commit" if one.in_git else "files"
            changes = " and what was not committed" if one.patch and one.in_git else ""
            parts.append(f"{what if one.patch is not None else 'as it is here'}{of}{changes}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return what provenance.json holds about it."""
        others = [repository.to_dict() for repository in self.others]
        return {"git": self.lab.to_dict(), "repositories": others, "code": dict(self.digests)}

    def patches(self, stem: str = "uncommitted") -> dict[str, bytes]:
        """Return the patches that are not empty, by the names of their files."""
        return {self.patch_name(one, stem): one.patch for one in self.repositories if one.patch}

    def patch_name(self, repository: Repository, stem: str = "uncommitted") -> str:
        """Return the name of the file for a repository's patch."""
        return f"{stem}.patch" if repository.name == self.lab.name else f"{stem}.{repository.name}.patch"

    def problems(self) -> list[str]:
        """Return sentences that say why a SHA or what was not committed is not known."""
        names: dict[str, list[str]] = {}
        for one in self.repositories:
            if one.note and (one.in_git or one is self.lab) and PACKAGED not in one.note:
                sentence = f"{{}}: {one.note}." if one.sha else f"The code of {{}} has no git SHA: {one.note}."
                names.setdefault(sentence, []).append(self._name(one))
        return [sentence.replace("{}", " and ".join(group), 1) for sentence, group in names.items()]

    def remarks(self) -> list[str]:
        """Return sentences for the log about code without a repository and files that were left out."""
        remarks = [f"The code of {', '.join(one.modules)} is {one.note}." for one in self.others if not one.in_git]
        if self.lab.note and PACKAGED in self.lab.note:
            remarks.append(f"{self.lab.note}.")
        return [*remarks, *self._list_omitted(())]

    def warnings(self) -> list[str]:
        """Return sentences for the terminal: the problems, and the code that is not kept, so that `rerun` lacks it."""
        return [*self.problems(), *self._list_omitted((exclusions.NO_CODE,))]

    def _list_omitted(self, except_for: Collection[str]) -> list[str]:
        """Return a sentence for each repository with files that were left out, except for some reasons."""
        omitted = {
            self.patch_name(one): {name: why for name, why in one.left_out.items() if why not in except_for}
            for one in self.repositories
        }
        return [f"Left out of {patch}: {exclusions.list_omitted(files)}." for patch, files in omitted.items() if files]

    def freeze(self, folder: Path) -> CodeCopy:
        """Copy the code, unless this state was copied before or the code that runs is itself a copy.

        What is never copied, such as secrets and large files, is there as links to where it is.

        Args:
            folder: gets a directory for each state of the code; in the outputs, or ignored by git.

        Raises:
            LabError: PYTHONPATH cannot hold the folder's path.
        """
        if is_copy():
            return self._copy_at(_read_copied()[1])
        path = folder.absolute() / self._key()
        require_listable(str(path))
        if path.is_dir():
            return self._copy_at(path)
        aside = path.with_name(f".{uuid.uuid4().hex}.tmp")  # unique on all hosts, as process numbers are not
        beside_lab = aside / lab_package().parent.relative_to(self.lab.path)
        try:
            aside.mkdir(parents=True, mode=0o700)
            for repository in self.repositories:
                copy_files(repository.path, repository.files, self._place(aside, repository))
                link_files(repository.path, repository.left_out, self._place(aside, repository))
            if not self.lab.files:
                copy_files(lab_package().parent, _files_of_package(), beside_lab)
            (beside_lab / COPIED_FACTS).write_text(json.dumps(self.to_dict()))
            for name, patch in self.patches(".uncommitted").items():
                (beside_lab / name).write_bytes(patch)
            make_private(aside)
            try:
                aside.rename(path)
            except OSError:  # another process was faster
                if not path.is_dir():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return self._copy_at(path)

    def _key(self) -> str:
        """Return a name that only snapshots of the same code share."""
        digest = hashlib.sha256(json.dumps([self.to_dict(), *sorted(self.patches())]).encode())
        contents = list(self.patches().values())
        if not self.lab.files:  # then neither a commit nor a patch tells what is copied
            contents += [(lab_package().parent / name).read_bytes() for name in sorted(_files_of_package())]
        for content in contents:
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()[:12]

    @contextmanager
    def restore(self) -> Iterator[CodeCopy]:
        """Restore the code as git worktrees in a temporary folder, which are removed at the end.

        Raises:
            LabError: the code of a repository is not known, its commit is not here, or its patch does not apply.
        """
        with tempfile.TemporaryDirectory(prefix="lab-rerun-") as folder, ExitStack() as stack:
            path = Path(folder).resolve() / "code"
            trees: dict[str, Tree] = {}
            for one in sorted(self.repositories, key=lambda one: (one is not self.lab, len(one.path.parts))):
                checkout = self._checkout(one)
                origin = checkout or one.path
                if one.patch is None:
                    self._require_same_here(one)
                    there = origin = lab_package().parent if one is self.lab else one.path
                else:
                    there = self._place(path, one)
                    stack.enter_context(check_out(one, checkout, there))
                roots = tuple(there / root for root in one.roots)
                complete = one.in_git and one.patch is not None
                trees[one.name] = Tree(there, (origin, one.path), complete, roots)
            copy = CodeCopy(tuple(trees[one.name] for one in self.repositories))
            if not (copy.trees[0].roots[0] / "lab" / "__init__.py").exists():
                raise LabError(f"{self.lab} has no {self.lab.roots[0]}/lab, so nothing can be run{HERE}.")
            yield copy

    def working_directory(self, copy: CodeCopy, recorded: Path) -> Path:
        """Return the directory to run restored code from: the recorded one, in the copy if it is there."""
        trees = [
            tree for tree in copy.trees if tree.complete and any(recorded.is_relative_to(one) for one in tree.origins)
        ]
        translated = Path(CodeCopy(tuple(trees)).translate(str(recorded))) if trees else recorded
        return next((path for path in (translated, recorded) if path.is_dir()), Path.cwd())

    def differences(self) -> list[str]:
        """Return sentences that say how the repositories of now differ from the snapshot."""
        sentences = []
        for repository in self.repositories:
            checkout = self._checkout(repository)
            changed = different(*self._digests_then_and_now(repository))
            parts = [f"the code of {', '.join(changed)} is not what it was"] if changed else []
            if repository.in_git and checkout is None:
                parts.insert(0, f"there is no checkout of it in {repository.path} any more")
            elif repository.sha and checkout:
                now = _head_or_none(checkout)
                if now != repository.sha:
                    here = f"commit {now[:12]}" if now else "none"
                    parts.insert(0, f"it was {repository}, and here is {here}")
            if parts:
                sentences.append(f"{self._name(repository)}: {'; '.join(parts)}")
        return sentences

    def _name(self, repository: Repository) -> str:
        return "lab" if repository is self.lab else repository.name

    def _place(self, path: Path, repository: Repository) -> Path:
        """Return where a repository is in a copy: where it lies in another one, or beside lab's."""
        if repository is self.lab:
            return path
        around = [one for one in self.repositories if one.in_git and one.path in repository.path.parents]
        if around:
            outer = max(around, key=lambda one: len(one.path.parts))
            return self._place(path, outer) / repository.path.relative_to(outer.path)
        return path / OTHERS / repository.name

    def _copy_at(self, path: Path) -> CodeCopy:
        trees = []
        for repository in self.repositories:
            there = self._place(path, repository)
            if there.is_dir():
                complete = repository.in_git and bool(repository.files or is_copy())
                roots = tuple(there / root for root in repository.roots)
                trees.append(Tree(there, (repository.path,), complete, roots))
        return CodeCopy(tuple(trees))

    def _checkout(self, repository: Repository) -> Path | None:
        """Return where the checkout of a repository is now: where lab runs, where it was, or where its modules are."""
        if repository is self.lab:
            try:
                return root_of_lab()
            except GitError:
                return None
        modules = filter(None, map(find_module, repository.modules))
        for folder in (repository.path, *(path if path.is_dir() else path.parent for path in modules)):
            try:
                return find_root(folder)
            except GitError:
                continue
        return None

    def _digests_then_and_now(self, repository: Repository) -> tuple[dict[str, Any], dict[str, Any]]:
        names = ["lab", *repository.modules] if repository is self.lab else repository.modules
        then = {name: self.digests[name] for name in names if self.digests.get(name)}
        return then, {name: current_digest(name) for name in then}

    def _require_same_here(self, repository: Repository) -> None:
        """Raise LabError unless code of which only digests are known is the code of now."""
        then, now = self._digests_then_and_now(repository)
        if not then or then != now:
            note = repository.note or "nothing was recorded"
            raise LabError(
                f"The code of {self._name(repository)} is not known: {note}, and what is here now is other code{HERE}."
            )


def current_code() -> CodeCopy:
    """Return the code of this process, as it is where it runs."""
    root = lab_package().parent
    return CodeCopy((Tree(root, (root,), True, (root,)),))


def _read_copied() -> tuple[CodeSnapshot, Path]:
    """Return the snapshot of which the code that runs is a copy, and where the copy is."""
    beside = lab_package().parent
    snapshot = CodeSnapshot.read(read_json(beside / COPIED_FACTS), beside, ".uncommitted")
    depth = len(Path(snapshot.lab.roots[0]).parts)
    return snapshot, beside.parents[depth - 1] if depth else beside


def _files_of_package() -> Iterator[str]:
    """Yield the files of a package that git does not track, and of the config groups inside it or beside it."""
    package = lab_package()
    for folder in [package] if (package / "conf").is_dir() else [package, package.parent / "conf"]:
        for path in folder.rglob("*"):
            if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts:
                yield str(path.relative_to(package.parent))


def _head_or_none(root: Path) -> str | None:
    try:
        return read_head(root)[0]
    except GitError:
        return None
