"""`python -m lab rerun DIR`: train Sessions again, with the code that they had, and say whether they are the same."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from lab import spec as specs
from lab.analysis.session import read_spec  # not lab.spec's: an earlier spec may have had other keys
from lab.common.terminal import Terminal
from lab.common.text import format_number
from lab.errors import LabError, require, require_one_of, visible
from lab.run import provenance
from lab.run.directory import RunDir, SweepDir, find_level, find_sessions, rerun_path
from lab.run.files import read_json, write_json
from lab.run.schemas import PROVENANCE
from lab.run.trust import warn_of_foreign_code
from lab.sweep.summary import quote_path

if TYPE_CHECKING:
    from lab.command.reproduction import Verdict
    from lab.launch.rerun import Job
    from lab.run.code.copy import CodeCopy
    from lab.run.code.snapshot import CodeSnapshot

USAGE = """Usage: python -m lab rerun DIR [key=value ...]

  DIR            the run directory of a Session, a Trial or an Experiment; it is only read
  out=NEW        where to run it again; outputs/<name>/<date>/<time> by default
  code=recorded  the code to run: recorded (its commit, and what was not committed), or here (the code as it is now)
  tolerance=0    the most by which the return of a Session may differ from before to count as reproduced
  slots=null     jobs at the same time; null for as many as there are cores

rerun runs code that the directory holds or names: its commit, its patch, the modules of its spec. It says so if another
user or another host made it, as far as that can be known: rerun only what you trust.

Each Session that completed is trained again from its saved spec. The exit code is 0 if episodes.csv, metrics.csv and
the final weights of all of them are the same to the last bit, or their returns within the tolerance, and 1 if not."""

SAME = {True: "identical", False: "differs", None: "not there"}


@dataclass
class Options:
    """What can stand beside the directory, as key=value."""

    out: str | None = None
    code: str = "recorded"
    tolerance: float = 0.0
    slots: int | None = None


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: the directory, its code or its packages do not allow it; nothing was written then.
    """
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    path = Path(words[0])
    options = specs.arguments(Options, words[1:], "rerun")
    require_one_of("code", options.code, ("recorded", "here"))
    require(options.tolerance >= 0, "tolerance", options.tolerance, "0 or more")
    require(options.slots is None or options.slots >= 1, "slots", options.slots, "null, or 1 or more")
    find_level(path)
    found = find_sessions(path)
    completed = [session for session in found if session.read_status()["state"] == "completed"]
    if not completed:
        raise LabError(f"No Session in {path} has completed, so there is nothing to compare a run with.")
    out = Path(options.out) if options.out else default_out(completed[0])
    require_apart(out, path)
    # A result is meant to be copied and searched for: it is never cut to the width of a terminal.
    console = Terminal(soft_wrap=True)
    console.width = max(console.width, 140)
    warn_of_foreign_code(path, "rerun")
    with ExitStack() as stack:
        codes = bring_back(stack, completed, here=options.code == "here")
        differs = tell_differences(console, completed)
        tell_doubts(console, path, found, completed)
        console.print(f"Running {len(completed)} of {len(found)} Sessions of {path} again in {out}")
        slots = options.slots or max(1, len(os.sched_getaffinity(0)) // read_spec(completed[0])["threads"])
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-rerun-")))
        jobs = plan(path, out, completed, codes, slots, folder)
        acquire(out)
        train(console, jobs, out, slots)
    copy_plan(path, out)
    verdicts = conclude(console, path, out, completed, jobs, options.tolerance, differs)
    if len(verdicts) < len(found):
        console.print(f"{len(found) - len(verdicts)} of {len(found)} were not run again.", style="yellow")
    if not all(verdict.within(options.tolerance) for verdict in verdicts):
        sys.exit(1)


def default_out(session: RunDir) -> Path:
    """Return the directory that a run of this name would get now."""
    name = str(read_spec(session)["name"])
    specs.require_name(name)
    return Path("outputs") / name / f"{datetime.now():%Y-%m-%d/%H-%M-%S}"


def require_apart(out: Path, path: Path) -> None:
    """Raise LabError if there is something in the new directory, or if it lies in the old one."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LabError(f"out={out} is not empty, and nothing is ever written over: choose another directory.")
    if out.resolve().is_relative_to(path.resolve()):
        raise LabError(f"out={out} lies in {path}, which is only read: choose another directory.")


def acquire(out: Path) -> None:
    """Make the new directory this command's own.

    Raises:
        LabError: another one was faster.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        SweepDir(out).jobs.mkdir()
    except FileExistsError as error:
        raise LabError(f"out={out} is in use: another command runs Sessions there.") from error


def bring_back(stack: ExitStack, completed: Sequence[RunDir], here: bool) -> dict[RunDir, tuple[CodeCopy, Path]]:
    """Return the code that each Session is to run, and the directory that it is to be run from.

    Args:
        stack: ends what was brought back.
        completed: the Sessions.
        here: whether to run the code as it is now.

    Raises:
        LabError: the code of a Session cannot be brought back.
    """
    from lab.run.code.snapshot import CodeSnapshot, current_code

    read = {session: CodeSnapshot.of_session(session, whole=not here) for session in completed}
    distinct = _distinct(read)
    for code in distinct.values():
        print(visible(f"Code: {'as it is here, where it was ' if here else ''}{code}"))
    for sentence in dict.fromkeys(sentence for code in distinct.values() for sentence in code.differences()):
        print(visible(f"  {sentence}"))
    if here:
        here_now = current_code()
        return {session: (here_now, Path.cwd()) for session in completed}
    trees = {key: stack.enter_context(code.restore()) for key, code in distinct.items()}
    made = {}
    for session, code in read.items():
        tree = trees[_key(code)]
        made[session] = (
            tree,
            code.working_directory(tree, Path(read_json(session.provenance, PROVENANCE)["directory"])),
        )
    return made


def _distinct(read: dict[RunDir, CodeSnapshot]) -> dict[str, CodeSnapshot]:
    return {_key(code): code for code in read.values()}


def _key(code: CodeSnapshot) -> str:
    return json.dumps([code.to_dict(), {name: patch.hex() for name, patch in code.patches().items()}])


def tell_differences(console: Terminal, completed: Sequence[RunDir]) -> dict[str, list[str | None]]:
    """Print what of the machine and the packages is not as it was, and return it."""
    from lab.command.reproduction import different
    from lab.run.code.discovery import root_of_lab

    found: dict[str, tuple[str | None, str | None]] = {}
    installed = root_of_lab() is None
    for session in completed:
        recorded = read_json(session.provenance, PROVENANCE)
        found |= different(recorded, provenance.machine(recorded["device"]), installed)
    if not found:
        console.print("Machine and packages: as they were")
        return {}
    console.print("Not as it was, which may change the numbers:", style="yellow")
    for name, (then, now) in found.items():
        console.print(f"  {name} was {then or 'absent'} and is {now or 'absent'} now", style="yellow")
    return {name: list(pair) for name, pair in found.items()}


def tell_doubts(console: Terminal, path: Path, found: Sequence[RunDir], completed: Sequence[RunDir]) -> None:
    """Print what speaks against getting the same numbers, and which Sessions are not run again."""
    from lab.run.code.packages import resumed_with_other_code
    from lab.run.code.snapshot import CodeSnapshot, list_omitted

    codes = _distinct({session: CodeSnapshot.of_session(session, whole=False) for session in completed}).values()
    missing = {name: why for code in codes for one in code.repositories for name, why in one.left_out.items()}
    if missing:
        console.print(f"Not stored, and so not there: {list_omitted(missing)}", style="yellow")
    for session in completed:
        for entry in resumed_with_other_code(session):
            text = f"{session.path} was resumed with other code at frame {entry['frame']:,}: {entry['git']['sha']}"
            console.print(text, style="yellow")
    for session in found:
        if session not in completed:
            status = session.read_status()
            text = f"{session.path.relative_to(path)} is not run again: it is {status['state']} at {status['frame']:,}"
            console.print(f"{text} frames", style="yellow")


def plan(
    path: Path,
    out: Path,
    completed: Sequence[RunDir],
    codes: dict[RunDir, tuple[CodeCopy, Path]],
    slots: int,
    folder: Path,
) -> list[Job]:
    """Return the jobs: Sessions that differ in nothing but the seed are stacked as far as that leaves no core idle.

    Args:
        path: the run directory.
        out: the new one.
        completed: the Sessions.
        codes: what each runs, and from where.
        slots: jobs at the same time.
        folder: gets the specs as jobs read them.
    """
    from lab.launch.rerun import Job
    from lab.sweep.plan import pack

    groups: dict[Any, list[tuple[RunDir, int, dict[str, Any]]]] = {}
    for session in completed:
        spec = read_spec(session)
        seed = spec.pop("seed")
        # What a stack leaves is called seed-0, seed-1, ...: a Session of another name is trained alone.
        alone = None if session.path.name == f"seed-{seed}" else session
        key = (session.path.parent, id(codes[session][0]), json.dumps(spec), alone)
        groups.setdefault(key, []).append((session, seed, spec))
    jobs: list[Job] = []
    for group in groups.values():
        size = pack(len(completed), len(group), slots, pruning=False)
        for first in range(0, len(group), size):
            stack = group[first : first + size]
            session, _, spec = stack[0]
            there = out / session.path.relative_to(path)
            code, cwd = codes[session]
            number = str(len(jobs) + 1)
            log = SweepDir(out).jobs / f"{number}.log" if len(completed) > 1 else None
            seeds = [seed for _, seed, _ in stack]
            jobs.append(Job(seeds, spec, there if len(stack) == 1 else there.parent, code, cwd, folder / number, log))
    return jobs


def train(console: Terminal, jobs: Sequence[Job], out: Path, slots: int) -> None:
    """Run jobs to their end, and show how far they are.

    Raises:
        LabError: none of them began a Session.
        KeyboardInterrupt: it was asked to stop; the jobs have ended.
    """
    from lab.common.signals import stop_signals
    from lab.launch.job import remove_if_empty
    from lab.launch.rerun import run

    ended = 0
    with stop_signals() as stop, closing(run(jobs, slots)) as steps:
        for _ in steps:
            if stop():
                console.print(f"What was run so far is in {out}; nothing was compared.")
                raise KeyboardInterrupt
            if sum(job.status is not None for job in jobs) > ended:
                ended = sum(job.status is not None for job in jobs)
                if len(jobs) > 1:
                    console.print(f"{ended} of {len(jobs)} jobs have ended")
    begun = [job for job in jobs if any(session.status.exists() for session in job.sessions())]
    if not begun:
        complaint = jobs[0].complaint() or "it says why above."
        shutil.rmtree(SweepDir(out).jobs, ignore_errors=True)
        remove_if_empty(out)
        raise LabError(
            f"The code refuses to run the spec of {jobs[0].spec['name']}: {complaint or 'it says why above.'}"
        )


def copy_plan(path: Path, out: Path) -> None:
    """Copy what says which Trials a sweep has; how to go on with it stays behind, as that would be with other code."""
    for file in (SweepDir(path).sweep, *(trial.point for trial in SweepDir(path).trials())):
        if file.exists():
            copied = out / file.relative_to(path)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)


def conclude(
    console: Terminal,
    path: Path,
    out: Path,
    completed: Sequence[RunDir],
    jobs: Sequence[Job],
    tolerance: float,
    differs: dict[str, list[str | None]],
) -> list[Verdict]:
    """Compare every Session with the one before, make figures, print and write what came of it."""
    from lab.analysis import analyze
    from lab.command.reproduction import compare_sessions

    job_of = {session.path: job for job in jobs for session in job.sessions()}
    verdicts = []
    for session in completed:
        name = session.path.relative_to(path)
        again = RunDir(out / name)
        verdict = compare_sessions(str(name) if name.parts else session.path.resolve().name, session, again)
        job = job_of[again.path]
        if verdict.error is not None and job.status:
            more = job.complaint() or f"its process ended with {job.status}"
            verdict = replace(verdict, error=f"{verdict.error} ({more})")
        verdicts.append(verdict)
    if find_level(out) != "session":
        analyze(out)
    show(console, verdicts)
    same = sum(verdict.is_identical for verdict in verdicts)
    within = sum(verdict.within(tolerance) for verdict in verdicts)
    console.print(
        f"\n{same} of {len(verdicts)} Sessions are the same to the last bit.", style="green" if same else "red"
    )
    if tolerance:
        console.print(f"{within} of {len(verdicts)} have returns within {tolerance:g} of those before.")
    content: dict[str, Any] = {"of": str(path), "identical": same == len(verdicts), "tolerance": tolerance}
    content |= {"differs": differs, "sessions": [verdict.to_dict() for verdict in verdicts]}
    write_json(rerun_path(out), content)
    console.print(f"Everything is in {out}, and this comparison in {rerun_path(out).name}")
    if within < len(verdicts) and find_level(path) != "session":
        console.print(f"\nNext:\n  python -m lab compare {quote_path(path)} {quote_path(out)}  # what may be concluded")
    return verdicts


def show(console: Terminal, verdicts: Sequence[Verdict]) -> None:
    """Print how each Session compares."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Session", no_wrap=True)
    for column in ("episodes", "metrics", "weights"):
        table.add_column(column, no_wrap=True)
    for column in ("parts at frame", "return then", "now", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    for verdict in verdicts:
        if verdict.error is not None:
            table.add_row(verdict.session, Text(verdict.error, "red"))
            continue
        files = [Text(SAME[same], "" if same else "red") for same in verdict.identical.values()]
        parts = "-" if verdict.parts_at is None else f"{verdict.parts_at:,}"
        figures = map(format_number, (verdict.then, verdict.now, verdict.difference))
        table.add_row(verdict.session, *files, parts, *figures)
    console.print()
    console.print(table)
