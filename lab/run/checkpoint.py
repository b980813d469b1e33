"""Checkpoints: everything that a Session needs to resume exactly where it was, in two generations.

A checkpoint holds plain data and tensors. What grows without end stays outside: of tables it holds the number of bytes,
and a replay memory writes new steps to files of its own.
"""

from __future__ import annotations

from typing import Any

from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.schemas import CHECKPOINT
from lab.run.table import starts_with
from lab.run.tensor_files import load, unseal, write

GENERATIONS = ("last", "previous")  # newest first
DETERMINISTIC = ("episodes", "metrics")  # tables that must be undamaged to resume; timings differ between any two runs


def write_generation(directory: RunDir, state: dict[str, Any]) -> None:
    """Write the last checkpoint of a Session, and keep the one before as the previous one."""
    last, previous = (directory.checkpoint(which) for which in GENERATIONS)
    if last.exists():
        last.replace(previous)
    write(last, state)


def load_generations(directory: RunDir) -> tuple[list[dict[str, Any]], list[str]]:
    """Load the checkpoints that a Session can resume from: those undamaged, with undamaged tables and replay memory.

    Returns:
        Their states, newest first, and a sentence on what is wrong with each of the others that exist.

    Raises:
        OSError: a file cannot be read now; it may be undamaged, and starting from the beginning would lose it.
    """
    states, problems = [], []
    for which in GENERATIONS:
        try:
            state = load(directory.checkpoint(which))
            _require_files(directory, state)
            states.append(state | {"generation": which})
        except FileNotFoundError:
            continue
        except LabError as error:
            problems.append(str(error))
    return states, problems


def _require_files(directory: RunDir, state: dict[str, Any]) -> None:
    """Raise LabError unless a checkpoint is complete and the files that it refers to are undamaged."""
    for key in CHECKPOINT:
        state[key]
    owner = f"the checkpoint at frame {state['frame']:,} refers to"
    tables = state["record"]["tables"]
    for name in DETERMINISTIC:
        if not starts_with(directory.tables[name], tables[name]):
            size = tables[name]["size"]
            raise LabError(f"{directory.tables[name]} is damaged: its first {size:,} bytes are not those that {owner}.")
    for segment in (state["replay"] or {"segments": []})["segments"]:
        path = directory.replay / segment["name"]
        try:
            unseal(path.read_bytes(), path)
        except FileNotFoundError as error:
            raise LabError(f"{path} is missing, which {owner}.") from error


def roll_back(directory: RunDir, state: dict[str, Any]) -> None:
    """Make the checkpoint that a Session resumes from the last one, in place of a damaged or newer one.

    Otherwise the next checkpoint would keep the damaged one as the previous one, and replace this one.
    """
    if state["generation"] != GENERATIONS[0]:
        last, previous = (directory.checkpoint(which) for which in GENERATIONS)
        previous.replace(last)


def group_by_frame(generations: list[list[dict[str, Any]]]) -> list[tuple[list[int], list[dict[str, Any]] | None]]:
    """Group the Sessions of a stack that can resume in lockstep, because they have a checkpoint at the same frame.

    A kill between two writes leaves some Sessions a checkpoint ahead; all resume from the newest that they share.

    Args:
        generations: by Session, the states that `load_generations` returned.

    Returns:
        For each group its Sessions and their states; None in place of the states of those that start.
    """
    points = {index: [_point(state) for state in states] for index, states in enumerate(generations) if states}
    common = set.intersection(*map(set, points.values())) if points else set()
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, own in points.items():
        groups.setdefault(max(common) if common else own[0], []).append(index)
    new = [index for index, states in enumerate(generations) if not states]
    result: list[tuple[list[int], list[dict[str, Any]] | None]] = [(new, None)] if new else []
    for point, group in sorted(groups.items()):
        result.append((group, [generations[index][points[index].index(point)] for index in group]))
    return result


def _point(state: dict[str, Any]) -> tuple[int, bool]:
    """Return the frame of a checkpoint, and whether all that was due at that frame is done."""
    return state["frame"], state["unfinished_interval"] is None
