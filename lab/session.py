"""A Session: one training run of one algorithm on one environment with one set of hyperparameters and one seed.

Several can be trained in lockstep, as a stack; each leaves the run directory that it would have left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lab.common.signals import stop_signals, was_asked_to_stop
from lab.env.vector import Spaces
from lab.errors import LabError, visible
from lab.run.checkpoint import generations, group_by_frame
from lab.run.code.digest import changed_since
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import read_yaml
from lab.run.lock import LOCK_SECONDS
from lab.run.provenance import collect, command_line
from lab.run.recovery import RECOVERED
from lab.run.schemas import SPEC
from lab.spec import Spec, differences
from lab.train.lockstep import group_in_lockstep
from lab.train.record import Record
from lab.train.stack import Stack


def train(
    specs: list[Spec],
    directories: list[RunDir],
    spaces: Spaces,
    compositions: list[dict[str, str]] | None = None,
    show: bool = True,
    patience: float = LOCK_SECONDS,
) -> list[Record]:
    """Train Sessions in lockstep, or go on with those that were interrupted.

    Those that cannot share their steps are trained one group after the other: they are at different points, or their
    specs differ in more than the seed, numbers with a decimal point and the arguments of environments.

    Args:
        specs: one for each Session.
        directories: where each of them writes.
        spaces: what `lab.env.vector.probe` found of the first one's environment.
        compositions: how each spec was composed, texts by the names of their files.
        show: whether to show progress on the terminal.
        patience: seconds to wait for a directory that another process has.

    Returns:
        The record of each: how it ended, at which frame, and why.

    Raises:
        LabError: the Sessions cannot be trained, or not together; nothing was written then.
    """
    claim(directories, specs, patience)
    records: dict[int, Record] = {}
    with ExitStack() as context:
        try:
            before = [directory.read_status_if_any() for directory in directories]
            for directory, status, spec in zip(directories, before, specs, strict=True):
                # From here on it shows if the Session hangs.
                directory.write_status("running", status["frame"] if status else 0, spec.frames)
            found = [generations(directory) for directory in directories]
            groups = [
                ([members[i] for i in group], states, shared)
                for members, shared in group_in_lockstep(specs, spaces)
                for group, states in group_by_frame([found[i][0] for i in members])
            ]
            stacks = [
                (group, states, Stack([specs[i] for i in group], [directories[i] for i in group], shared))
                for group, states, shared in groups
            ]
            for _, states, stack in stacks:
                stack.restore(states or [])
            stop = context.enter_context(stop_signals())
            if was_asked_to_stop():  # but the KeyboardInterrupt was lost, as in a destructor
                raise KeyboardInterrupt
        except BaseException:
            for directory in directories:
                directory.let_go()
            raise
        for group, states, stack in stacks:
            seeds = [specs[i].seed for i in group]
            provenance = collect(
                command_line(), str(stack.device), stack.spec.threads, seeds, directories[group[0]].path
            )
            if show:
                warn_of_code(provenance.code, [directories[i] for i in group] if states else [])
            provenance.facts["restore"] = stack.restore_method  # how its environments are brought back
            composed = [compositions[i] for i in group] if compositions else None
            frame = states[0]["frame"] if states else None
            notes = [[*recovered(before[i]), *fallback(found[i][1], frame)] for i in group]
            records |= zip(group, stack.train(provenance, stop, states, composed, show, notes), strict=True)
    return [records[i] for i in range(len(specs))]


def warn_of_code(code: CodeSnapshot, resumed: Sequence[RunDir]) -> None:
    """Say on the terminal what is not known of the code, and which Sessions go on with other code."""
    for problem in code.problems():
        print(visible(f"Warning: {problem}"), file=sys.stderr)
    for directory in resumed:
        changed = changed_since(directory, code.digests)
        if changed:
            names = ", ".join(changed)
            warning = f"Warning: {directory.path} goes on with other code than it began with: {names}."
            print(visible(warning), file=sys.stderr)


def claim(directories: list[RunDir], specs: list[Spec], patience: float) -> None:
    """Claim every directory, or none.

    Raises:
        LabError: one of them holds a Session that ended, that is running, or that has another spec.
    """
    claimed: list[RunDir] = []
    try:
        for directory, spec in zip(directories, specs, strict=True):
            directory.claim(patience)
            claimed.append(directory)
            refuse_other(directory, spec)
    except BaseException:
        for directory in claimed:
            directory.let_go()
        raise


def refuse_other(directory: RunDir, spec: Spec) -> None:
    """Raise LabError if the directory holds a Session of another spec, or one whose spec is not known any more."""
    advice = "Choose another directory, or move this one away first."
    try:
        changed = differences(read_yaml(directory.spec, SPEC), spec.to_dict())
    except FileNotFoundError as error:
        if directory.holds_results:
            raise LabError(f"{directory.spec} is missing, so what Session is there is not known. {advice}") from error
        return
    except LabError as error:
        raise LabError(f"{error} {advice}") from error
    if changed:
        raise LabError(f"{directory.path} holds a Session of another spec: {'; '.join(changed)}. {advice}")


def recovered(status: dict[str, Any] | None) -> list[str]:
    """Return what is to be told of a status that was made again from other files."""
    return status["warnings"] if status and status["pid"] == RECOVERED else []


def fallback(problems: list[str], frame: int | None) -> list[str]:
    """Say what is wrong with checkpoints, if anything is, and where the Session begins therefore; null for anew."""
    if not problems:
        return []
    there = "begins anew" if frame is None else f"goes on from frame {frame:,}"
    return [*problems, f"Therefore the Session {there}."]
