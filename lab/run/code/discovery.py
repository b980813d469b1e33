"""Finding the repositories of the code: which one tracks lab, and which ones hold the user's packages and config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lab.run.code.git import GitError, NoRepositoryError, find_root, find_tracking_root, list_names
from lab.run.code.packages import INSTALLED, UserPackage, lab_package
from lab.run.code.repository import LOOSE, PACKAGED, Repository, find_submodules, read_loose_folder, read_repository


def root_of_lab() -> Path | None:
    """Return the root of the repository that tracks this package, if one does.

    Raises:
        GitError: git fails.
    """
    try:
        return find_tracking_root(lab_package() / "__init__.py")
    except NoRepositoryError:
        return None


def read_lab_repository(packages: Sequence[UserPackage], outputs: Path, max_size: int) -> Repository:
    """Return the repository that tracks this package, with the user's packages in it."""
    from lab import __version__

    beside = lab_package().parent
    untracked = Repository.of("lab", beside, [], [beside])
    try:
        root = root_of_lab()
    except GitError as error:
        return replace(untracked, note=str(error))
    if root is None:
        installed = not {*INSTALLED}.isdisjoint(lab_package().parts)
        return replace(untracked, note=f"lab {__version__} {PACKAGED}" if installed else f"it is {LOOSE} ({beside})")
    own = [one for one in packages if _root_of(one) == root]
    return read_repository(Repository.of(root.name, root, own, [beside]), own, [beside], outputs, max_size)


def read_other_repositories(
    packages: Sequence[UserPackage],
    outputs: Path,
    config_dirs: Iterable[Path],
    known: Sequence[Repository],
    max_size: int,
) -> list[Repository]:
    """Return the repositories of packages and config groups, with submodules, except those that are known."""
    known_roots = {one.path for one in known if one.in_git}
    own: dict[Path, list[UserPackage]] = {}
    loose: dict[Path, list[UserPackage]] = {}
    failed: dict[Path, tuple[str, list[UserPackage]]] = {}
    for one in packages:
        try:
            root = _root_of(one)
        except GitError as error:
            failed.setdefault(one.root, (str(error), []))[1].append(one)
            continue
        (loose if root is None else own).setdefault(root or one.root, []).append(one)
    folders: dict[Path, list[Path]] = {}
    for folder in config_dirs:
        try:
            root = find_root(folder.resolve())
            if root != Path.home() and list_names(folder.resolve(), "ls-files", "-z", "--", "."):
                folders.setdefault(root, []).append(folder.resolve())
        except GitError:
            continue
    for root in (*known_roots, *own):
        for submodule in find_submodules(root):
            folders.setdefault(submodule, []).append(submodule)
    names = {one.name for one in known}

    def unread(root: Path, packages: Sequence[UserPackage]) -> Repository:
        name = _unique_name(root.name, names)
        names.add(name)
        return Repository.of(name, root, packages)

    return [
        *(
            read_repository(unread(root, group), group, folders.get(root, []), outputs, max_size)
            for root, group in ((root, own.get(root, [])) for root in dict.fromkeys((*own, *folders)))
            if root not in known_roots
        ),
        *(read_loose_folder(unread(root, group), group, max_size) for root, group in loose.items()),
        *(replace(unread(root, group), note=note) for root, (note, group) in failed.items()),
    ]


def _root_of(package: UserPackage) -> Path | None:
    """Return the root of the repository that tracks a package or files beside it; a home directory's only tracks."""
    file = package.files[0]
    try:
        root = find_tracking_root(file)
        if root is not None:
            return root
        root = find_root(file.parent)
    except NoRepositoryError:
        return None
    # The repository of a home directory holds settings: it counts only for what it tracks.
    beside = root != Path.home() and package.root.is_relative_to(root) and list_names(package.root, "ls-files", "-z")
    return root if beside else None


def _unique_name(name: str, others: Iterable[str]) -> str:
    """Return a name that none of the others has, for use in a file's name."""
    name = re.sub(r"[^\w.-]", "_", name) or "root"
    used, number, unique = set(others), 2, name
    while unique in used:
        unique, number = f"{name}-{number}", number + 1
    return unique
