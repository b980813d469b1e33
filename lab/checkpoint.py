"""Checkpoints: all that a Session needs to go on exactly where it was, in two generations.

A checkpoint holds plain data and tensors. What grows without end does not go in: tables stay files of their own, of
which a checkpoint knows how many bytes belong to it, and a replay memory writes what is new into a file of its own.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import torch

from lab.errors import LabError
from lab.run_dir import RunDir, write_atomically

GENERATIONS = ("last", "previous")  # newest first


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically, with a checksum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, seal(buffer.getvalue()))


def write_generation(directory: RunDir, state: dict[str, Any]) -> None:
    """Write the last checkpoint of a Session; the one that was the last is kept as the previous one."""
    last, previous = (directory.checkpoint(which) for which in GENERATIONS)
    if last.exists():
        last.replace(previous)
    write(last, state)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        LabError: it is missing, cannot be read or is damaged.
    """
    try:
        return _load(path)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}. Has the Session reached a checkpoint?") from error


def _load(path: Path) -> dict[str, Any]:
    state = torch.load(io.BytesIO(unseal(path.read_bytes(), path)), map_location="cpu", weights_only=True)
    assert isinstance(state, dict)
    return state


def generations(directory: RunDir) -> list[dict[str, Any]]:
    """Return the checkpoints of a Session from which it can go on, newest first: those whose files are whole.

    Raises:
        OSError: a file cannot be read now; it may be whole, so that to begin anew would lose what is there.
    """
    found = []
    for which in GENERATIONS:
        try:
            state = _load(directory.checkpoint(which))
        except (FileNotFoundError, LabError):
            continue
        sizes = state.get("record", {}).get("sizes")  # an agent alone, as in an earlier version, is none to go on from
        tables = directory.tables.items()
        whole = sizes and all(path.exists() and path.stat().st_size >= sizes[name] for name, path in tables)
        if whole and _parts_are_whole(directory, state):
            found.append(state | {"generation": which})
    return found


def _parts_are_whole(directory: RunDir, state: dict[str, Any]) -> bool:
    """Say whether the files of a replay memory that a checkpoint knows of are there and undamaged."""
    for part in (state.get("replay") or {"segments": []})["segments"]:
        path = directory.replay / part["name"]
        try:
            unseal(path.read_bytes(), path)
        except (FileNotFoundError, LabError):
            return False
    return True


def unusable(directory: RunDir, found: list[dict[str, Any]]) -> list[str]:
    """Return the names of the checkpoints that are there, but from which a Session cannot go on."""
    usable = [state["generation"] for state in found]
    paths = [directory.checkpoint(which) for which in GENERATIONS if which not in usable]
    return [path.name for path in paths if path.exists()]


def go_back(directory: RunDir, state: dict[str, Any]) -> None:
    """Make the checkpoint that a Session goes on from its last one; a newer one is damaged, or is not to be used.

    The newer one would be kept as the previous one at the next checkpoint, in the place of this one, which is whole;
    and the rows that it knows of are about to be cut off.
    """
    if state["generation"] != GENERATIONS[0]:
        last, previous = (directory.checkpoint(which) for which in GENERATIONS)
        previous.replace(last)


def together(found: list[list[dict[str, Any]]]) -> list[tuple[list[int], list[dict[str, Any]] | None]]:
    """Say which Sessions of a stack can go on in lockstep: those that are at the same point.

    A kill between two writes leaves some Sessions of a stack a checkpoint ahead; all go back to the one they share.

    Args:
        found: what `generations` gave, by Session.

    Returns:
        Groups: the Sessions of each, and the state of each of these; null for those that begin.
    """
    begun = [index for index, states in enumerate(found) if states]
    points = [{_point(state) for state in found[index]} for index in begun]
    shared = set.intersection(*points) if points else set()
    groups: dict[tuple[int, bool], list[int]] = {}
    for index in begun:
        groups.setdefault(max(shared) if shared else _point(found[index][0]), []).append(index)
    result: list[tuple[list[int], list[dict[str, Any]] | None]] = []
    for point, group in sorted(groups.items()):
        states = [next(state for state in found[index] if _point(state) == point) for index in group]
        result.append((group, states))
    new = [index for index, states in enumerate(found) if not states]
    return [*([(new, None)] if new else []), *result]


def _point(state: dict[str, Any]) -> tuple[int, bool]:
    """Return the frame of a checkpoint, and whether what is due at that frame was done."""
    return state["frame"], state["pending"] is None


def seal(content: bytes) -> bytes:
    """Append a checksum, by which `unseal` knows a torn or altered file."""
    return content + zlib.crc32(content).to_bytes(4, "big")


def unseal(content: bytes, path: Path) -> bytes:
    """Return what was sealed.

    Raises:
        LabError: the checksum does not fit.
    """
    body, checksum = content[:-4], content[-4:]
    if len(checksum) < 4 or zlib.crc32(body).to_bytes(4, "big") != checksum:
        raise LabError(f"{path} is damaged: its checksum does not fit its content.")
    return body
