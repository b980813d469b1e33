"""The state of all code that a process runs: that of lab, and that of the user's own modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.run.code.digest import FROZEN, digest_of, is_frozen, package
from lab.run.code.files import NO_CODE
from lab.run.code.git import GitError, NoRepositoryError, ask_git, has, toplevel
from lab.run.code.imports import INSTALLED, Imported, imported
from lab.run.code.repository import LOOSE, PACKAGED, Repository, Request, read_folder, read_repository, submodules_of
from lab.run.files import read_json

FEW = 10  # names of files left out that one line has


@dataclass(frozen=True)
class CodeSnapshot:
    """The code of a process.

    Attributes:
        lab: the repository that tracks this package.
        others: those of the user's own modules, of submodules, and of the user's config groups.
        digests: of each package of both, by its name.
    """

    lab: Repository
    others: tuple[Repository, ...]
    digests: Mapping[str, str | None]

    def __str__(self) -> str:
        told = []
        for one in self.repositories:
            of = "" if one is self.lab else f" of {one.name}"
            what = f"commit {one.sha[:12]}" if one.sha else "no commit" if one.in_git else "files"
            changes = " and what was not committed" if one.patch and one.in_git else ""
            told.append(f"{what if one.patch is not None else 'as it is here'}{of}{changes}")
        return ", ".join(told)

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """All of them, lab's first."""
        return (self.lab, *self.others)

    def to_dict(self) -> dict[str, Any]:
        """Return what provenance.json has of it."""
        others = [repository.to_dict() for repository in self.others]
        return {"git": self.lab.to_dict(), "repositories": others, "code": dict(self.digests)}

    def patches(self, stem: str = "uncommitted") -> dict[str, bytes]:
        """Return what is not committed by the names of files for it, without those that would be empty."""
        found = {patch_name(one, self.lab, stem): one.patch for one in self.repositories}
        return {name: patch for name, patch in found.items() if patch}

    @classmethod
    def read(cls, facts: Mapping[str, Any], folder: Path, stem: str = "uncommitted") -> CodeSnapshot:
        """Return what `to_dict` and `patches` wrote into a folder; a patch that cannot be read is empty."""
        lab = Repository.from_dict(facts["git"], None)
        whole = []
        for one in (facts["git"], *(facts.get("repositories") or ())):
            path = folder / patch_name(Repository.from_dict(one, None), lab, stem)
            try:
                patch = path.read_bytes()
            except (FileNotFoundError, PermissionError):
                patch = None
            whole.append(Repository.from_dict(one, patch))
        return cls(whole[0], tuple(whole[1:]), facts.get("code") or {})

    def problems(self) -> list[str]:
        """Return, in sentences, why a SHA or what was not committed is not known."""
        found: dict[str, list[str]] = {}
        for one in self.repositories:
            if one.note and (one.in_git or one is self.lab) and PACKAGED not in one.note:
                name = "lab" if one is self.lab else one.name
                sentence = f"{{}}: {one.note}." if one.sha else f"The code of {{}} has no git SHA: {one.note}."
                found.setdefault(sentence, []).append(name)
        return [sentence.replace("{}", " and ".join(names), 1) for sentence, names in found.items()]

    def remarks(self) -> list[str]:
        """Return sentences for the log on what is otherwise remarkable: code without a repository, files left out."""
        told = [f"The code of {', '.join(one.modules)} is {one.note}." for one in self.others if not one.in_git]
        if self.lab.note and PACKAGED in self.lab.note:
            told.append(f"{self.lab.note}.")
        for one in self.repositories:
            if one.left_out:
                told.append(f"Left out of {patch_name(one, self.lab)}: {listed(one.left_out)}.")
        return told


def listed(left_out: Mapping[str, str]) -> str:
    """Write files that were left out and why, secrets before data, and of many only the first."""
    names = [f"{name} ({why})" for name, why in sorted(left_out.items(), key=lambda pair: pair[1] == NO_CODE)]
    return ", ".join([*names[:FEW], *([f"and {len(names) - FEW} more"] if len(names) > FEW else [])])


def patch_name(repository: Repository, lab: Repository, stem: str = "uncommitted") -> str:
    """Return the name of the file for a repository's patch."""
    return f"{stem}.patch" if repository.name == lab.name else f"{stem}.{repository.name}.patch"


def take(outputs: Path, config_dirs: Iterable[Path] = ()) -> CodeSnapshot:
    """Look at the code of this process; of what runs from a frozen copy, as it was when that was made.

    Args:
        outputs: the run directory, which is not part of the code although it may lie beside it.
        config_dirs: the folders of the user's own config groups.
    """
    found = imported()
    if is_frozen():
        frozen, copy = read_frozen()
        elsewhere = [one for one in found if not any(file.is_relative_to(copy) for file in one.files)]
        late = take_of(elsewhere, outputs, config_dirs, frozen.repositories)
        return CodeSnapshot(frozen.lab, (*frozen.others, *late), {**_digests(elsewhere), **frozen.digests})
    lab = _of_lab(found, outputs)
    others = take_of(found, outputs, config_dirs, [lab])
    recorded = {one.path for one in others}
    apart = {name: why for name, why in lab.left_out.items() if lab.path / name not in recorded}
    lab = replace(lab, left_out=apart)
    return CodeSnapshot(lab, tuple(others), {"lab": digest_of(package()), **_digests(found)})


def read_frozen() -> tuple[CodeSnapshot, Path]:
    """Return what the frozen copy that runs is a copy of, and where it is."""
    beside = package().parent
    frozen = CodeSnapshot.read(read_json(beside / FROZEN), beside, ".uncommitted")
    return frozen, beside.parents[len(Path(frozen.lab.roots[0]).parts) - 1] if frozen.lab.roots[0] != "." else beside


def root_of_lab() -> Path | None:
    """Return the root of the repository that tracks this package, if one does.

    Raises:
        GitError: git does not say.
    """
    try:
        return _tracking(package() / "__init__.py")
    except NoRepositoryError:
        return None


def _digests(found: Sequence[Imported]) -> dict[str, str | None]:
    return {one.name: digest_of(one.place) for one in found}


def _of_lab(found: Sequence[Imported], outputs: Path) -> Repository:
    """Return the repository that tracks this package; what of the user's is in it belongs to it."""
    from lab import __version__

    beside = package().parent
    absent = Request(beside, "lab", roots=(beside,))
    try:
        root = root_of_lab()
    except GitError as error:
        return absent.answer(note=str(error))
    if root is None:
        packaged = not {*INSTALLED}.isdisjoint(package().parts)
        note = f"lab {__version__} {PACKAGED}" if packaged else f"it is {LOOSE} ({beside})"
        return absent.answer(note=note)
    own = [one for one in found if _root_of(one) == root]
    request = _request(root, root.name, own, [beside])
    roots = tuple(dict.fromkeys([beside, *request.roots]))
    return read_repository(replace(request, roots=roots), outputs)


def take_of(
    found: Sequence[Imported], outputs: Path, config_dirs: Iterable[Path], known: Sequence[Repository]
) -> list[Repository]:
    """Return the repositories of packages and config groups, with submodules, but for those that are known."""
    apart = {one.path for one in known if one.in_git}
    groups: dict[Path, list[Imported]] = {}
    loose: dict[Path, list[Imported]] = {}
    refused: dict[Path, tuple[str, list[Imported]]] = {}
    for one in found:
        try:
            root = _root_of(one)
        except GitError as error:
            refused.setdefault(one.root, (str(error), []))[1].append(one)
            continue
        (loose if root is None else groups).setdefault(root or one.root, []).append(one)
    folders: dict[Path, list[Path]] = {}
    for folder in config_dirs:
        try:
            root = toplevel(folder.resolve())
            if root != Path.home() and ask_git(folder.resolve(), "ls-files", "-z", "--", "."):
                folders.setdefault(root, []).append(folder.resolve())
        except GitError:
            continue
    for root in (*apart, *groups):
        for submodule in submodules_of(root):
            folders.setdefault(submodule, []).append(submodule)
    names = {one.name for one in known}

    def request(root: Path, own: Sequence[Imported]) -> Request:
        name = _unique(root.name, names)
        names.add(name)
        return _request(root, name, own, folders.get(root, []))

    return [
        *(
            read_repository(request(root, groups.get(root, [])), outputs)
            for root in dict.fromkeys((*groups, *folders))
            if root not in apart
        ),
        *(read_folder(request(root, own)) for root, own in loose.items()),
        *(request(root, own).answer(note=note) for root, (note, own) in refused.items()),
    ]


def _request(root: Path, name: str, own: Sequence[Imported], folders: Sequence[Path]) -> Request:
    packages = [one.place for one in own if one.place.is_dir()]
    return Request(
        root,
        name,
        below=tuple(dict.fromkeys([*folders, *packages])),
        beside=tuple(dict.fromkeys(one.root for one in own if not one.place.is_dir())),
        wanted=tuple(file for one in own for file in one.files),
        modules=tuple(one.name for one in own),
        roots=tuple(dict.fromkeys(one.root for one in own)),
    )


def _root_of(one: Imported) -> Path | None:
    """Return the root of the repository that a package belongs to: it tracks the package, or files beside it.

    The repository of a home directory holds settings: it counts only for what it tracks.
    """
    try:
        root = _tracking(one.files[0])
        if root is not None:
            return root
        root = toplevel(one.files[0].parent)
    except NoRepositoryError:
        return None
    beside = root != Path.home() and one.root.is_relative_to(root) and ask_git(one.root, "ls-files", "-z", "--", ".")
    return root if beside else None


def _tracking(file: Path) -> Path | None:
    """Return the root of the repository that tracks a file, if one does."""
    root = toplevel(file.parent)
    try:
        tracked = bool(ask_git(file.parent, "--literal-pathspecs", "ls-files", "-z", "--", file.name))
    except GitError:  # its index is damaged
        if not has(file.parent, "cat-file", "-e", f"HEAD:./{file.name}"):
            raise
        tracked = True
    return root if tracked else None


def _unique(name: str, others: Iterable[str]) -> str:
    """Return a name that none of the others has, for use in a file's name."""
    name = re.sub(r"[^\w.-]", "_", name) or "root"
    known, number, wanted = set(others), 2, name
    while wanted in known:
        wanted, number = f"{name}-{number}", number + 1
    return wanted
