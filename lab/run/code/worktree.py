"""The code that a result came from, brought back beside the checkouts: commits, and what was not committed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.code.digest import changed_since, different, digest_here, package
from lab.run.code.frozen import Frozen, Tree, place
from lab.run.code.git import GitError, ask_git, has, toplevel
from lab.run.code.repository import Repository, head
from lab.run.code.snapshot import CodeSnapshot, patch_name, root_of_lab
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.schemas import PROVENANCE

HERE = "; code=here runs it with the code as it is now"


def read_code(directory: RunDir, whole: bool = True) -> CodeSnapshot:
    """Read what code a Session was trained with.

    Raises:
        LabError: it cannot be read, or it is to be whole and a patch is missing.
    """
    facts = read_json(directory.provenance, PROVENANCE)
    snapshot = CodeSnapshot.read(facts, directory.path)
    recorded = (facts["git"], *(facts.get("repositories") or ()))
    for repository, known in zip(snapshot.repositories, recorded, strict=True):
        if whole and known["uncommitted"] and not repository.patch:
            path = directory.path / patch_name(repository, snapshot.lab)
            missing = "may be read by its owner alone" if path.exists() else "is missing"
            raise LabError(f"{path} {missing}: with it went what was not committed to {_commit(repository)}{HERE}.")
    return snapshot


def other_code(directory: RunDir) -> list[dict[str, Any]]:
    """Return each time that a Session was resumed with other code than it was begun with."""
    facts = read_json(directory.provenance, PROVENANCE)
    return [entry for entry in facts.get("resumed", []) if changed_since(directory, entry.get("code") or {})]


def code_here() -> Frozen:
    """Return the code as it is now."""
    root = package().parent
    return Frozen((Tree(root, root, True, (root,)),))


def differences(snapshot: CodeSnapshot) -> list[str]:
    """Return, in sentences, how the repositories of now differ from those of a snapshot."""
    told = []
    for repository in snapshot.repositories:
        name = "lab" if repository is snapshot.lab else repository.name
        checkout = checkout_here(repository, snapshot)
        changed = different(*_digests(repository, snapshot))
        parts = [f"the code of {', '.join(changed)} is not what it was"] if changed else []
        if repository.in_git and checkout is None:
            parts.insert(0, f"there is no checkout of it in {repository.path} any more")
        elif repository.sha and checkout:
            now = head(checkout)
            if now != repository.sha:
                parts.insert(0, f"it was {_commit(repository)}, and here is {f'commit {now[:12]}' if now else 'none'}")
        if parts:
            told.append(f"{name}: {'; '.join(parts)}")
    return told


@contextmanager
def restored(snapshot: CodeSnapshot) -> Iterator[Frozen]:
    """Bring code back as git worktrees in a temporary folder, which go when this ends.

    Raises:
        LabError: the code of a repository is not known, its commit is not here, or the patch does not apply to it.
    """
    with tempfile.TemporaryDirectory(prefix="lab-rerun-") as folder, ExitStack() as stack:
        path = Path(folder).resolve() / "code"
        trees: dict[str, Tree] = {}
        for repository in sorted(snapshot.repositories, key=lambda one: (one is not snapshot.lab, len(one.path.parts))):
            checkout = checkout_here(repository, snapshot)
            if repository.patch is None:
                _require_same_here(repository, snapshot)
                root = package().parent if repository is snapshot.lab else repository.path
                trees[repository.name] = Tree(root, root, False, tuple(root / one for one in repository.roots))
                continue
            there = place(path, snapshot, repository)
            stack.enter_context(_restored(repository, checkout, there))
            roots = tuple(there / root for root in repository.roots)
            trees[repository.name] = Tree(there, checkout or repository.path, repository.in_git, roots)
        whole = tuple(trees[repository.name] for repository in snapshot.repositories)
        if not (whole[0].roots[0] / "lab" / "__init__.py").exists():
            raise LabError(f"{_commit(snapshot.lab)} has no {snapshot.lab.roots[0]}/lab, so nothing can be run{HERE}.")
        yield Frozen(whole)


def working_directory(snapshot: CodeSnapshot, code: Frozen, recorded: Path) -> Path:
    """Return the directory to run restored code from: the one of then, in what was restored of it or else as it is."""
    inside = [one for one in snapshot.repositories if one.in_git and recorded.is_relative_to(one.path)]
    if inside:
        repository = max(inside, key=lambda one: len(one.path.parts))
        moved = place(code.path, snapshot, repository) / recorded.relative_to(repository.path)
        if moved.is_dir():
            return moved
    return recorded if recorded.is_dir() else Path.cwd()


def checkout_here(repository: Repository, snapshot: CodeSnapshot) -> Path | None:
    """Return where the checkout of a repository is now: lab's where lab runs; another where it was, or its modules."""
    if repository is snapshot.lab:
        try:
            return root_of_lab()
        except GitError:
            return None
    for folder in (repository.path, *map(_folder_of, repository.modules)):
        if folder is not None and folder.is_dir():
            try:
                return toplevel(folder)
            except GitError:
                continue
    return None


def _folder_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).resolve().parent if spec and spec.has_location and spec.origin else None


def _digests(repository: Repository, snapshot: CodeSnapshot) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the digests of a repository's packages, of then and of now."""
    names = ["lab", *repository.modules] if repository is snapshot.lab else repository.modules
    then = {name: snapshot.digests[name] for name in names if snapshot.digests.get(name)}
    return then, {name: digest_here(name) for name in then}


def _require_same_here(repository: Repository, snapshot: CodeSnapshot) -> None:
    """Raise LabError unless the code of now is the code of then, of which there is nothing but digests."""
    then, now = _digests(repository, snapshot)
    name = "lab" if repository is snapshot.lab else repository.name
    if not then or then != now:
        note = repository.note or "nothing was recorded"
        raise LabError(f"The code of {name} is not known: {note}, and what is here now is other code{HERE}.")


@contextmanager
def _restored(repository: Repository, checkout: Path | None, there: Path) -> Iterator[None]:
    sha = repository.sha
    if sha and checkout is None:
        raise LabError(f"{_commit(repository)} cannot be brought back: {repository.path} is no checkout of it{HERE}.")
    if sha and checkout and not has(checkout, "cat-file", "-e", f"{sha}^{{commit}}"):
        raise LabError(f"Commit {sha} is not in {checkout}: get it, as with `git fetch origin {sha}`{HERE}.")
    try:
        if sha and checkout:
            # No hooks of the checkout: what they would do is no part of the commit.
            words = ("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--force", "--detach")
            ask_git(checkout, *words, str(there), sha)
        else:
            there.mkdir(parents=True)
            ask_git(there, "init", "--quiet")
        if repository.patch:
            _apply(repository, there)
        yield
    except GitError as error:
        raise LabError(f"{_commit(repository)} cannot be brought back: {error}{HERE}.") from error
    finally:
        if sha and checkout:
            has(checkout, "worktree", "remove", "--force", "--force", str(there))


def _apply(repository: Repository, there: Path) -> None:
    try:
        ask_git(there, "apply", "--whitespace=nowarn", "-", stdin=repository.patch)
    except GitError as error:
        raise LabError(
            f"What was not committed cannot be brought back: the patch does not apply to {_commit(repository)}"
            f" ({error}){HERE}."
        ) from error


def _commit(repository: Repository) -> str:
    where = "lab" if not repository.in_git else f"{repository.name}"
    return f"commit {repository.sha[:12]} of {where}" if repository.sha else f"{where} without a commit"
