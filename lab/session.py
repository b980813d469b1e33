"""A Session: one training run of one algorithm on one environment with one set of hyperparameters and one seed.

Several Sessions can be trained in lockstep, as a stack. Each leaves the same run directory as if trained alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lab.common.parts import split_evenly
from lab.common.signals import stop_signals, was_asked_to_stop
from lab.common.terminal import announced
from lab.env.vector import Spaces, try_out
from lab.errors import LabError, print_to_stderr
from lab.run.checkpoint import group_by_frame, load_generations
from lab.run.code.packages import changed_since
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import read_yaml
from lab.run.lock import LOCK_SECONDS
from lab.run.provenance import collect, command_line
from lab.run.schemas import SPEC
from lab.run.status import RECOVERED
from lab.spec import Spec, require_same_spec
from lab.training.lockstep import group_in_lockstep
from lab.training.record import Record
from lab.training.stack import Stack
from lab.training.stack_size import fit_stack

TRYING_OUT = (
    "Trying out {}: how a checkpoint restores it (env.restore) and what random numbers it uses (env.isolate_rng)"
)


def train(
    specs: list[Spec],
    directories: list[RunDir],
    spaces: Spaces,
    compositions: list[dict[str, str]] | None = None,
    show: bool = True,
    patience: float = LOCK_SECONDS,
    max_file_size: int | None = None,
    fit_memory: bool = False,
) -> list[Record]:
    """Train Sessions in lockstep, or resume those that were interrupted.

    Sessions that cannot step together are trained one group after the other: those at different frames, and those whose
    specs differ in more than the seed, numbers with a decimal point and the arguments of environments.

    Args:
        specs: one for each Session.
        directories: where each of them writes.
        spaces: what `lab.env.vector.probe` returned for the first one's environment.
        compositions: how each spec was composed, as texts by file name.
        show: whether to show progress on the terminal.
        patience: seconds to wait for a directory that another process has.
        max_file_size: of uncommitted code that is kept, in bytes; None for the usual one.
        fit_memory: whether those that do not fit into the memory of a GPU together are trained in several stacks.

    Returns:
        The record of each: how it ended, at which frame, and why.

    Raises:
        LabError: the Sessions cannot be trained, or not together; nothing was written then.
    """
    acquire_all(directories, specs, patience)
    with ExitStack() as context:
        try:
            statuses = [directory.find_status() for directory in directories]
            for directory, status, spec in zip(directories, statuses, specs, strict=True):
                # From here on a watchdog notices if the Session hangs.
                directory.write_status("running", status["frame"] if status else 0, spec.frames)
            checkpoints = [load_generations(directory) for directory in directories]
            groups: list[_Group] = []
            with announced(TRYING_OUT.format(specs[0].env.id), show):
                for spec in specs:
                    try_out(spec.env)
            for members, shared in group_in_lockstep(specs, spaces):
                for positions, states in group_by_frame([checkpoints[i][0] for i in members]):
                    together = [members[i] for i in positions]
                    size = fit_stack([specs[i] for i in together], shared) if fit_memory else len(together)
                    for part in split_evenly(range(len(together)), size):
                        chosen = states and [states[k] for k in part]
                        groups.append(_Group([together[k] for k in part], chosen, shared))
                        if part[0] == 0:  # the others wait for the memory
                            groups[-1].make_stack(specs, directories)
            for group in groups:
                if group.stack:
                    group.stack.restore(group.states or [])
            stop = context.enter_context(stop_signals())
            if was_asked_to_stop():  # although its KeyboardInterrupt was lost, for example in a destructor
                raise KeyboardInterrupt
        except BaseException:
            for directory in directories:
                directory.release(undo=True)
            raise
        records: dict[int, Record] = {}
        while groups:
            try:
                stack = groups[0].stack or groups[0].make_stack(specs, directories, restore=True)
            except BaseException:
                for i in (i for group in groups for i in group.members):
                    directories[i].release(undo=True)
                raise
            members, states = groups[0].members, groups[0].states
            del groups[0]  # and the stack before, with its memory
            seeds, folder = [specs[i].seed for i in members], directories[members[0]].path
            provenance = collect(command_line(), str(stack.device), stack.spec.threads, seeds, folder, max_file_size)
            provenance.facts["restore"] = stack.restore_method  # how its environments are brought back
            if show:
                print_code_warnings(provenance.code, [directories[i] for i in members] if states else [])
            frame = states[0]["frame"] if states else None
            notes = [repair_notes(statuses[i], checkpoints[i][1], frame) for i in members]
            texts = [compositions[i] for i in members] if compositions else None
            records |= zip(members, stack.train(provenance, stop, states, texts, show, notes), strict=True)
            del stack
    return [records[i] for i in range(len(specs))]


@dataclass
class _Group:
    """Sessions that are stacked, by index; `states` are the checkpoints that they resume from."""

    members: list[int]
    states: list[dict[str, Any]] | None
    spaces: Spaces
    stack: Stack | None = None

    def make_stack(self, specs: Sequence[Spec], directories: Sequence[RunDir], restore: bool = False) -> Stack:
        self.stack = Stack([specs[i] for i in self.members], [directories[i] for i in self.members], self.spaces)
        if restore:
            self.stack.restore(self.states or [])
        return self.stack


def acquire_all(directories: list[RunDir], specs: list[Spec], patience: float) -> None:
    """Acquire every directory, or none.

    Raises:
        LabError: one of them holds a Session that ended, that is running, or that has another spec.
    """
    acquired: list[RunDir] = []
    try:
        for directory, spec in zip(directories, specs, strict=True):
            directory.acquire(patience)
            acquired.append(directory)
            require_resumable(directory, spec)
    except BaseException:
        for directory in acquired:
            directory.release(undo=True)
        raise


def require_resumable(directory: RunDir, spec: Spec) -> None:
    """Raise LabError if the directory holds a Session of another spec, or one whose spec cannot be read."""
    advice = "Choose another directory, or move this one away first."
    try:
        recorded = read_yaml(directory.spec, SPEC)
    except FileNotFoundError as error:
        if directory.holds_results:
            raise LabError(f"{directory.spec} is missing, so what Session is there is not known. {advice}") from error
        return
    except LabError as error:
        raise LabError(f"{error} {advice}") from error
    require_same_spec(recorded, spec, directory.path, advice)


def print_code_warnings(code: CodeSnapshot, resumed: Sequence[RunDir]) -> None:
    """Print what is unknown about the code, and which Sessions resume with other code than they started with."""
    warnings = list(code.warnings())
    for directory in resumed:
        changed = changed_since(directory, code.digests)
        if changed:
            warnings.append(f"{directory.path} resumes with other code than it started with: {', '.join(changed)}.")
    for warning in warnings:
        print_to_stderr(f"Warning: {warning}")


def repair_notes(status: dict[str, Any] | None, problems: list[str], frame: int | None) -> list[str]:
    """Return what a user should know about a damaged status or checkpoint, as sentences.

    Args:
        status: of the Session before training.
        problems: what is wrong with its checkpoints.
        frame: where it resumes; None if it starts from the beginning.
    """
    notes = list(status["warnings"]) if status and status["pid"] == RECOVERED else []
    if problems:
        start = "starts from the beginning" if frame is None else f"resumes at frame {frame:,}"
        notes += [*problems, f"Therefore the Session {start}."]
    return notes
