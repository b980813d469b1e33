"""Checkpoints: all that a Session needs to go on exactly where it was, in two generations.

A checkpoint holds plain data and tensors. What grows without end does not go in: tables stay files of their own, of
which a checkpoint knows how many bytes belong to it, and a replay memory writes what is new into a file of its own.
"""

from __future__ import annotations

import io
import pickle
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lab.errors import LabError
from lab.run.files import Document, require_shape, write_atomically
from lab.run.schemas import CHECKPOINT
from lab.run.table import fits

if TYPE_CHECKING:
    from lab.run.directory import RunDir

GENERATIONS = ("last", "previous")  # newest first
DETERMINISTIC = ("episodes", "metrics")  # tables that decide whether there is something to go on from


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
    content = unseal(path.read_bytes(), path)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose message says how to run what the file holds
        raise LabError(f"{path} is damaged: it holds something else than tensors and plain data.") from error
    except Exception as error:  # of zip, which raises what it likes
        raise LabError(f"{path} is damaged: {' '.join(str(error).split())[:200]}.") from error
    require_shape(state, CHECKPOINT, path)
    document = Document({}, path)
    document.update(state)  # as it is: parts of it go into the next checkpoint
    return document


def load_generations(directory: RunDir) -> tuple[list[dict[str, Any]], list[str]]:
    """Find the checkpoints from which a Session can go on: those that are whole, and know of tables that are whole.

    A table of timings is none that counts: it is not the same in any two runs.

    Returns:
        Their states, newest first, and for each of the others that are there a sentence on what is wrong.

    Raises:
        OSError: a file cannot be read now; it may be whole, so that to begin anew would lose what is there.
    """
    found, problems = [], []
    for which in GENERATIONS:
        try:
            state = _load(directory.checkpoint(which))
            _require_files(directory, state)
        except FileNotFoundError:
            continue
        except LabError as error:
            problems.append(str(error))
            continue
        found.append(state | {"generation": which})
    return found, problems


def _require_files(directory: RunDir, state: dict[str, Any]) -> None:
    """Raise LabError unless a checkpoint is one to go on from, and the files that it knows of are undamaged."""
    for key in CHECKPOINT:
        state[key]
    tables = state["record"]["tables"]
    for name in DETERMINISTIC:
        if not fits(directory.tables[name], tables[name]):
            raise LabError(
                f"{directory.tables[name]} is damaged: its first {tables[name]['size']:,} bytes are not those that the"
                f" checkpoint at frame {state['frame']:,} knows of."
            )
    for part in (state["replay"] or {"segments": []})["segments"]:
        path = directory.replay / part["name"]
        try:
            unseal(path.read_bytes(), path)
        except FileNotFoundError as error:
            raise LabError(f"{path} is missing, which the checkpoint at frame {state['frame']:,} knows of.") from error


def roll_back(directory: RunDir, state: dict[str, Any]) -> None:
    """Make the checkpoint that a Session goes on from its last one; a newer one is damaged, or is not to be used.

    The newer one would be kept as the previous one at the next checkpoint, in the place of this one, which is whole;
    and the rows that it knows of are about to be cut off.
    """
    if state["generation"] != GENERATIONS[0]:
        last, previous = (directory.checkpoint(which) for which in GENERATIONS)
        previous.replace(last)


def group_by_frame(found: list[list[dict[str, Any]]]) -> list[tuple[list[int], list[dict[str, Any]] | None]]:
    """Say which Sessions of a stack can go on in lockstep: those that are at the same point.

    A kill between two writes leaves some Sessions of a stack a checkpoint ahead; all go back to the one they share.

    Args:
        found: the states that `load_generations` gave, by Session.

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
