"""`python -m lab export DIR out=NEW`: copy what others need of results, or write an agent as a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab.command.options import command, option
from lab.common.imports import installed_only
from lab.common.text import dump_yaml, plural
from lab.errors import LabError, visible
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level, find_sessions
from lab.run.exported import find_best
from lab.run.files import (
    plain,
    read_json,
    read_yaml,
    write_atomically,
    write_json,
    write_sealed_json,
    write_sealed_yaml,
)
from lab.run.tags import tags_path

SUFFIXES = (".onnx", ".pt2")  # of programs
NOTES = """The copy is a run directory like any other: enjoy, report, compare and rerun work with it. It has the spec,
provenance, tables and metrics of each Session, and a digest of its final weights, with which rerun compares. It has the
agent (checkpoint/best.pt) of the Session with the highest mean return in an evaluation, among equals with the highest
return; in an Experiment, of each Trial that no other beats.

TensorBoard events, logs, pictures of single Sessions, report.html and what resume needs are left out, and so are the
names of the user, the host and the branch.

With out=NEW.onnx or out=NEW.pt2 it writes the best agent instead, as a program that runs without Lab: an ONNX model, or
what torch.export.load reads. It normalizes observations, and its actions are compared with the agent's before."""


@dataclass
class Options:
    """Options of the command."""

    out: str = option("", "the directory to write; it must be new or empty. Or a new file *.onnx or *.pt2", "out=NEW")
    checkpoint: Literal["best", "last"] = option("best", "for a file: best (by evaluation) or last")


@command("the run directory of a Session, a Trial or an Experiment; it is only read", Options, NOTES)
def main(path: Path, options: Options) -> None:
    """Export what a run directory holds.

    Raises:
        LabError: the directory holds no Session that has ended, one is running, or `out` cannot be written.
    """
    from lab.analysis import analyze

    if Path(options.out).suffix in SUFFIXES:
        export_program(path, options)
        return
    level = find_level(path)  # raises
    sessions = find_sessions(path)
    states = [session.read_status()["state"] for session in sessions]
    if "completed" not in states:
        raise LabError(f"{path} cannot be exported: none of its Sessions has completed.")
    if "running" in states:
        raise LabError(f"{path} cannot be exported yet: {sessions[states.index('running')].path} is running.")
    out = Path(options.out)
    if not options.out:
        raise LabError("export: out=NEW is missing: it is the directory to write.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LabError(f"out={out} is not empty, and nothing is ever overwritten: choose another directory.")
    best = find_agents(path, level)
    for session in sessions:
        name = session.path.relative_to(path)
        export_session(session, RunDir(out / name), with_agent=session.path in best)
    for trial in [TrialDir(path), *SweepDir(path).trials()]:
        _copy([trial.point, tags_path(trial.path)], path, out)
    if SweepDir(path).sweep.exists():
        sweep = plain(read_json(SweepDir(path).sweep))
        write_sealed_json(SweepDir(out).sweep, _without(sweep, "user", "host"))
    analyze(out)
    SweepDir(out).report.unlink(missing_ok=True)  # megabytes, which `report` makes again
    sizes = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in (out, path)]
    names = ", ".join(str(session.relative_to(path)) for session in best)
    agent = f", with the agent of {names}, best by evaluation" if names not in ("", ".") else ""
    megabytes = " of ".join(f"{size / 1e6:.1f}" for size in sizes)
    print(visible(f"Exported {plural(len(sessions), 'Session')} to {out}: {megabytes} MB{agent}."))


def export_program(path: Path, options: Options) -> None:
    """Write the best agent in a run directory as a program."""
    from lab.training.policy import read_policy, session_threads
    from lab.training.program import export_policy

    session = find_best(path, options.checkpoint)
    with installed_only(session.path):
        policy = read_policy(session, options.checkpoint)
        with session_threads(policy.spec):
            export_policy(policy, Path(options.out))
    what = f"the agent of {session.path}, {options.checkpoint} checkpoint, at frame {policy.frame:,}"
    print(visible(f"Exported {what} to {options.out}: it acts as the agent on observations of {policy.spec.env.id}."))


def find_agents(path: Path, level: str) -> list[Path]:
    """Return the Sessions whose agents are kept."""
    from lab.analysis.card import best_seed
    from lab.analysis.experiment import read_experiment
    from lab.analysis.trial import read_trial

    if level == "session":
        return [path]
    trials = [read_trial(TrialDir(path))] if level == "trial" else []
    if level == "experiment":
        trials = [ranked.trial for ranked in read_experiment(SweepDir(path)).front]
    seeds = [(trial, best_seed(trial.completed)) for trial in trials]
    return [trial.directory.session(seed).path for trial, seed in seeds if seed is not None]


def export_session(session: RunDir, copy: RunDir, with_agent: bool) -> None:
    """Copy a Session without what is large or tells whose machine it was trained on."""
    from lab.run.tensor_files import digest_weights, read

    checkpoints = [session.checkpoint("best")] if with_agent else []
    patches = sorted(session.path.glob("uncommitted*.patch"))
    files = [session.spec, *session.tables.values(), session.results, *patches, *checkpoints, tags_path(session.path)]
    _copy(files, session.path, copy.path)
    spec = plain(read_yaml(session.spec))
    if spec.get("init_from"):
        write_sealed_yaml(copy.spec, dump_yaml(_relative_parent(spec, Path.cwd())))
    write_sealed_json(copy.status, {**plain(session.read_status()), "host": ""})
    if session.provenance.exists():
        write_sealed_json(copy.provenance, _anonymize(plain(read_json(session.provenance))))
    last = session.checkpoint("last")
    digest = digest_weights(read(last)["parameters"]) if last.exists() else None
    write_json(copy.exported, {"of": str(_relative(session.path, Path.cwd())), "weights": digest})


def _copy(files: Sequence[Path], path: Path, out: Path) -> None:
    """Copy the files that exist to the same places in another directory; links are data of a stranger and left out."""
    for file in files:
        if file.is_file() and not file.is_symlink():
            write_atomically(out / file.relative_to(path), file.read_bytes())


def _anonymize(facts: dict[str, Any]) -> dict[str, Any]:
    """Return provenance without user, host and branch, and with paths relative to lab's checkout."""
    root = Path(facts["git"].get("path") or Path.cwd())

    def repository(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "branch": None, **({"path": str(_relative(Path(one["path"]), root))} if one.get("path") else {})}

    facts = _without(facts, "user", "host")
    facts |= {"git": repository(facts["git"]), "directory": str(_relative(Path(facts["directory"]), root))}
    facts = _relative_parent(facts, root) if facts.get("init_from") else facts
    facts["command"] = str(facts.get("command", "")).replace(f"{root}/", "").replace(f"{Path.home()}/", "~/")
    facts["repositories"] = [repository(one) for one in facts.get("repositories") or ()]
    return facts


def _relative(path: Path, root: Path) -> Path:
    """Return a path relative to a directory around it; of another path, only its name."""
    path = path.absolute()
    return path.relative_to(root) if path.is_relative_to(root) else Path(path.name)


def _relative_parent(content: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return content with the path of the run that it started from relative to a directory."""
    file = Path(content["init_from"]["file"])
    path = _relative(file.parent.parent, root) / file.parent.name / file.name
    return {**content, "init_from": {**content["init_from"], "file": str(path)}}


def _without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}
