"""`python -m lab rerun DIR`: train Sessions again with the code that they had, and compare the results bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab.analysis.session import read_spec  # not lab.spec's: an old spec may have other keys
from lab.command.options import command, option
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import plural
from lab.common.validation import Count, NonNegative
from lab.errors import LabError, visible
from lab.run import provenance
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level, find_sessions
from lab.run.files import read_json, write_json
from lab.run.parent import find_parent, require_parent
from lab.run.schemas import PROVENANCE, RERUN, RERUN_BEGUN
from lab.run.trust import warn_of_foreign_code
from lab.spec import require_name
from lab.sweep.summary import quote_path

if TYPE_CHECKING:
    from lab.command.reproduction import Verdict
    from lab.launch.spec_job import SpecJob
    from lab.run.code.copy import CodeCopy
    from lab.run.code.snapshot import CodeSnapshot

POLL_SECONDS = 0.2  # between two checks for a request to stop

NOTES = """rerun runs code that the directory holds or names: its commit, its patch, the modules of its spec. It warns
if another user or another host made the directory, as far as that can be known: rerun only what you trust.

Each Session that completed is trained again from its saved spec. The exit code is 0 if episodes.csv, metrics.csv and
the final weights of all of them are the same to the last bit, or their returns within the tolerance, and 1 if not."""


@dataclass
class Options:
    """Options of the command."""

    out: str | None = option(None, "where to run it again; outputs/<name>/<date>/<time> by default", shown="out=NEW")
    code: Literal["recorded", "here"] = option(
        "recorded",
        "the code to run: recorded (its commit, and what was not committed) or here (the current code)",
    )
    tolerance: NonNegative = option(
        0.0, "the most by which the return of a Session may differ from before to count as reproduced"
    )
    init_from: str | None = option(
        None, "where the run is now whose weights the Sessions started from, if it has moved", shown="init_from=DIR"
    )
    slots: Count | None = option(None, "jobs at the same time; null for as many as there are cores")


@command("the run directory of a Session, a Trial or an Experiment; it is only read", Options, NOTES)
def main(path: Path, options: Options) -> None:
    """Run the completed Sessions of a directory again, and exit with 1 if the results differ.

    Raises:
        LabError: the directory, its code or its packages do not allow it; nothing was written then.
    """
    find_level(path)  # raises
    sessions = find_sessions(path)
    completed = [session for session in sessions if session.read_status()["state"] == "completed"]
    if not completed:
        raise LabError(f"No Session in {path} has completed, so there is nothing to compare a run with.")
    out = Path(options.out) if options.out else default_out(path, completed[0])
    require_apart(out, path)
    console = Terminal(soft_wrap=True, width=UNCUT)
    warn_of_foreign_code(path, "rerun")
    with ExitStack() as stack:
        codes = restore_code(stack, completed, here=options.code == "here")
        differences = print_differences(console, completed)
        print_doubts(console, path, sessions, completed)
        code = "the code that is here" if options.code == "here" else "the code that they had"
        console.print(
            f"Running {len(completed)} of {plural(len(sessions), 'Session')} of {path} again with {code} in {out}"
        )
        slots = options.slots or max(1, len(os.sched_getaffinity(0)) // read_spec(completed[0])["threads"])
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-rerun-")))
        parent = find_parent(options.init_from)["file"] if options.init_from else None
        jobs = plan(path, out, completed, codes, slots, folder, parent)
        of = {"of": str(path.absolute())}
        acquire(out, of)
        run(console, jobs, out, slots)
    copy_plan(path, out)
    verdicts = compare(path, out, completed, jobs)
    content = {**of, "identical": all(verdict.is_identical for verdict in verdicts)}
    content |= {"tolerance": options.tolerance, "differs": differences}
    write_json(out / RERUN, {**content, "sessions": [verdict.to_dict() for verdict in verdicts]})
    print_verdicts(console, path, out, verdicts, options.tolerance)
    if len(verdicts) < len(sessions):
        left_out = len(sessions) - len(verdicts)
        console.print(f"Not run again: {left_out} of {len(sessions)} Sessions.", style="yellow")
    if not all(verdict.is_within(options.tolerance) for verdict in verdicts):
        sys.exit(1)


def default_out(path: Path, session: RunDir) -> Path:
    """Return the directory that a run of this name would get now: of a sweep, or of a Session in it."""
    sweep = SweepDir(path)
    name = str((sweep.read_sweep() if sweep.sweep.exists() else read_spec(session))["name"])
    require_name(name)
    return Path("outputs") / name / f"{datetime.now():%Y-%m-%d/%H-%M-%S}"


def require_apart(out: Path, path: Path) -> None:
    """Raise LabError if the new directory is not empty, or lies in the old one."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LabError(f"out={out} is not empty, and nothing is ever overwritten: choose another directory.")
    if out.resolve().is_relative_to(path.resolve()):
        raise LabError(f"out={out} lies in {path}, which is only read: choose another directory.")


def acquire(out: Path, of: dict[str, str]) -> None:
    """Create the new directory, and note in it what is run again; raise LabError if another command was faster."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        SweepDir(out).jobs.mkdir()
    except FileExistsError as error:
        raise LabError(f"out={out} is in use: another command runs Sessions there.") from error
    write_json(out / RERUN_BEGUN, of)


def restore_code(stack: ExitStack, completed: Sequence[RunDir], here: bool) -> dict[RunDir, tuple[CodeCopy, Path]]:
    """Return the code of each Session, or the current one, and the directory to run it in, until the stack is closed.

    Raises:
        LabError: the code of a Session cannot be restored.
    """
    from lab.run.code.snapshot import CodeSnapshot, current_code

    snapshots = {session: CodeSnapshot.of_session(session, whole=not here) for session in completed}
    distinct = {_key(code): code for code in snapshots.values()}
    for code in distinct.values():
        print(visible(f"Code: {'as it is here, where it was ' if here else ''}{code}"))
    for sentence in dict.fromkeys(sentence for code in distinct.values() for sentence in code.differences()):
        print(visible(f"  {sentence}"))
    if here:
        return dict.fromkeys(completed, (current_code(), Path.cwd()))
    copies = {key: stack.enter_context(code.restore()) for key, code in distinct.items()}
    restored = {}
    for session, code in snapshots.items():
        recorded = Path(read_json(session.provenance, PROVENANCE)["directory"])
        copy = copies[_key(code)]
        restored[session] = copy, code.working_directory(copy, recorded)
    return restored


def _key(code: CodeSnapshot) -> str:
    return json.dumps([code.to_dict(), {name: patch.hex() for name, patch in code.patches().items()}])


def print_differences(console: Terminal, completed: Sequence[RunDir]) -> dict[str, list[str | None]]:
    """Print how the machine and the packages differ from before, and return it."""
    from lab.command.reproduction import compare_machines, find_decisive
    from lab.run.code.discovery import root_of_lab

    differences: dict[str, tuple[str | None, str | None]] = {}
    decisive: set[str] = set()
    for session in completed:
        recorded = read_json(session.provenance, PROVENANCE)
        found = compare_machines(recorded, provenance.machine(recorded["device"]), root_of_lab() is None)
        differences |= found
        decisive |= find_decisive(found, read_spec(session), recorded.get("code") or ())
    others = len(differences) - len(decisive)
    if decisive:
        console.print("These differ from before, which may change the numbers:", style="yellow")
    else:
        console.print(f"Machine and packages: as before{', where they decide numbers' if others else ''}")
    for name, (then, now) in differences.items():
        if name in decisive:
            console.print(f"  {name} was {then or 'absent'} and is {now or 'absent'} now", style="yellow")
    if others:
        verb = "has another version or is" if others == 1 else "have other versions or are"
        console.print(
            f"  {plural(others, 'package')} that {'decides' if others == 1 else 'decide'} no numbers {verb} absent"
        )
    return {name: list(pair) for name, pair in differences.items()}


def print_doubts(console: Terminal, path: Path, sessions: Sequence[RunDir], completed: Sequence[RunDir]) -> None:
    """Print what else may change the numbers, and which Sessions are not run again."""
    from lab.run.code.exclusions import list_omitted
    from lab.run.code.packages import resumed_with_other_code
    from lab.run.code.snapshot import CodeSnapshot

    snapshots = [CodeSnapshot.of_session(session, whole=False) for session in completed]
    omitted = {name: why for code in snapshots for one in code.repositories for name, why in one.left_out.items()}
    doubts = [f"Not stored, and so not there: {list_omitted(omitted)}"] if omitted else []
    for session in completed:
        for entry in resumed_with_other_code(session):
            frame, sha = entry["frame"], entry["git"]["sha"]
            doubts.append(f"{session.path} was resumed with other code at frame {frame:,}: {sha}")
    for session in sessions:
        if session not in completed:
            status, name = session.read_status(), session.path.relative_to(path)
            doubts.append(f"{name} is not run again: it is {status['state']} at frame {status['frame']:,}")
    for doubt in doubts:
        console.print(doubt, style="yellow")


def plan(
    path: Path,
    out: Path,
    completed: Sequence[RunDir],
    codes: dict[RunDir, tuple[CodeCopy, Path]],
    slots: int,
    folder: Path,
    parent: str | None = None,
) -> list[SpecJob]:
    """Return the jobs: Sessions that differ only in the seed are stacked, as far as that leaves no slot idle.

    Each Session runs its code in a directory, as `codes` has them. Jobs read their specs from `folder`. `parent` is the
    file of the weights that Sessions start from, if it is not the recorded one.

    Raises:
        LabError: weights that a Session started from are not there, or are others now.
    """
    from lab.launch.spec_job import SpecJob
    from lab.sweep.plan import pack

    groups: dict[Any, list[tuple[RunDir, int, dict[str, Any]]]] = {}
    for session in completed:
        spec = read_spec(session)
        if spec.get("init_from"):
            spec["init_from"] = require_parent(spec["init_from"], parent)
        seed = spec.pop("seed")
        # The directories of a stack are called seed-0, seed-1, ...: a Session of another name is trained alone.
        standalone = None if session.path.name == f"seed-{seed}" else session
        key = (session.path.parent, id(codes[session][0]), json.dumps(spec), standalone)
        groups.setdefault(key, []).append((session, seed, spec))
    jobs: list[SpecJob] = []
    for group in groups.values():
        size = min(pack(len(completed), slots), len(group))
        for stack in (group[first : first + size] for first in range(0, len(group), size)):
            session, _, spec = stack[0]
            there = out / session.path.relative_to(path)
            number = str(len(jobs) + 1)
            log = SweepDir(out).jobs / f"{number}.log" if len(completed) > 1 else None
            seeds = [seed for _, seed, _ in stack]
            where = there if len(stack) == 1 else there.parent
            jobs.append(SpecJob(seeds, spec, where, *codes[session], folder / number, log))
    return jobs


def run(console: Terminal, jobs: Sequence[SpecJob], out: Path, slots: int) -> None:
    """Run jobs to their end, and print how many have ended.

    Raises:
        LabError: none of them started a Session.
        KeyboardInterrupt: it was asked to stop; the jobs have ended.
    """
    from lab.common.signals import stop_signals
    from lab.launch.job import remove_if_empty
    from lab.launch.processes import ProcessPool

    pool = ProcessPool[int](slots)
    futures = {pool.submit(job, job.start): job for job in jobs}
    pending = {*futures}
    with stop_signals() as stop:
        try:
            while pending and not stop():
                ended, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    futures[future].status = future.result()
                if ended and len(jobs) > 1:
                    done = len(jobs) - len(pending)
                    console.print(f"Ended: {done} of {len(jobs)} jobs")
        finally:
            pool.stop(signal.SIGINT, wait=True)
        if pending:
            console.print(f"What was run so far is in {out}; nothing was compared.")
            raise KeyboardInterrupt
    if not any(session.status.exists() for job in jobs for session in job.sessions()):
        reason = jobs[0].last_line() or "it says why above."
        shutil.rmtree(SweepDir(out).jobs, ignore_errors=True)
        remove_if_empty(out)
        raise LabError(f"The code refuses to run the spec of {jobs[0].spec['name']}: {reason}")


def copy_plan(path: Path, out: Path) -> None:
    """Copy what says which Trials a sweep has, but not what `resume` needs: that would run other code."""
    for file in (SweepDir(path).sweep, *(trial.point for trial in (TrialDir(path), *SweepDir(path).trials()))):
        if file.exists():
            copied = out / file.relative_to(path)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)


def compare(path: Path, out: Path, completed: Sequence[RunDir], jobs: Sequence[SpecJob]) -> list[Verdict]:
    """Compare every Session with the one before, and analyze the new directory."""
    from lab.analysis import analyze
    from lab.command.reproduction import compare_sessions

    problems = {session.path: job.problem() for job in jobs for session in job.sessions()}
    verdicts = []
    for session in completed:
        name = session.path.relative_to(path)
        again = RunDir(out / name)
        verdict = compare_sessions(str(name) if name.parts else session.path.resolve().name, session, again)
        if verdict.error is not None and problems[again.path]:
            verdict = replace(verdict, error=f"{verdict.error} ({problems[again.path]})")
        verdicts.append(verdict)
    if find_level(out) != "session":
        analyze(out)
    return verdicts


def print_verdicts(console: Terminal, path: Path, out: Path, verdicts: Sequence[Verdict], tolerance: float) -> None:
    """Print how each Session compares, and how many are the same."""
    from lab.command.reproduction import verdict_table

    same = sum(verdict.is_identical for verdict in verdicts)
    within = sum(verdict.is_within(tolerance) for verdict in verdicts)
    all_same = same == len(verdicts)
    console.print()
    console.print(verdict_table(verdicts))
    console.print()
    sessions = plural(len(verdicts), "Session")
    verb = "is" if 1 in (same, len(verdicts)) else "are"
    console.print(f"{same} of {sessions} {verb} the same to the last bit.", style="green" if all_same else "red")
    if any(session.exported.exists() for session in find_sessions(path)):
        console.print("Compared: episodes.csv and metrics.csv, and the final weights by the digest in exported.json.")
    for file in dict.fromkeys(file for verdict in verdicts for file in verdict.identical):
        missing = [verdict.session for verdict in verdicts if verdict.identical.get(file, True) is None]
        if missing:
            console.print(f"Not compared, because {path} lacks them: {file} of {', '.join(missing)}.", style="yellow")
    if tolerance:
        verb = "has a return" if within == 1 else "have returns"
        console.print(f"{within} of {sessions} {verb} within {tolerance:g} of before.")
    console.print(f"Everything is in {out}, and this comparison in {RERUN}")
    if within < len(verdicts) and find_level(path) != "session":
        console.print(f"\nNext:\n  python -m lab compare {quote_path(path)} {quote_path(out)}  # what may be concluded")
