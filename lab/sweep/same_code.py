"""That a Trial's Sessions are trained by the same code, also when a sweep goes on after the code has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.code.packages import changed_since, different
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.schemas import PROVENANCE
from lab.trial import Trial

TRAINED = ("completed", "running", "interrupted")  # states of Sessions whose results a Trial has, or will have


def require_same_code(
    trials: Iterable[Trial], more: bool, mix: bool, code: CodeSnapshot, in_jobs: Callable[[], set[Path]]
) -> list[str]:
    """Refuse to train new Sessions of a Trial with other code than it has, and return what else is to be said.

    Args:
        trials: those that were begun.
        more: whether others will be.
        mix: whether different code in a Trial was asked for.
        code: what runs here.
        in_jobs: returns the directories of Sessions that wait or run in jobs, whose code is that of their submission.

    Raises:
        LabError: a Trial would have Sessions of different code.
    """
    told: list[str] = []
    earlier: dict[str, RunDir] = {}
    for trial in trials:
        states, left, sessions = trial.states(), trial.remaining(), trial.sessions()
        lost = [seed for seed in left if states[seed] == "failed" and sessions[seed].read_status()["lost"]]
        kept = [seed for seed in sessions if states[seed] in TRAINED or seed in lost]
        changed = {seed: names for seed in kept if (names := changed_since(sessions[seed]))}
        if not changed:
            continue
        first, names = next(iter(changed.items()))
        earlier |= dict.fromkeys(names, sessions[first])
        here = [seed for seed in left if sessions[seed].path not in in_jobs()]
        begun = [seed for seed in here if seed not in kept]
        if begun and not mix:
            raise LabError(
                f"{trial.directory.path} has Sessions of other code than what runs here: {_compared(earlier, code)}."
                f" {_seeds(begun)} would be mixed with {_seeds(list(changed))}, so nothing was begun. Check out that"
                " code, choose another hydra.sweep.dir, or write mix_code=true to mix them on purpose."
            )
        going_on = [seed for seed in here if seed in changed]
        if going_on:
            packages = ", ".join(dict.fromkeys(name for seed in going_on for name in changed[seed]))
            which = f"{trial.directory.path} goes on in {_seeds(going_on)}"
            told.append(f"{which} with other code of {packages} than before.")
    if earlier and more:
        told.append(f"Trials that begin now have other code than those before: {_compared(earlier, code)}.")
    return told


def mixed(sessions: Iterable[RunDir]) -> list[str]:
    """Return the packages of which Sessions have different code, those that they were resumed with included."""
    known: dict[str, Any] = {}
    found: dict[str, None] = {}
    for session in sessions:
        try:
            facts = read_json(session.provenance, PROVENANCE)
        except LabError:
            continue
        for one in (facts, *facts.get("resumed", ())):
            found |= dict.fromkeys(different(known, one.get("code") or {}))
            known = {**(one.get("code") or {}), **known}
    return list(found)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _compared(earlier: Mapping[str, RunDir], code: CodeSnapshot) -> str:
    """Say of packages which code they had in Sessions, and have here."""
    here = code.to_dict()
    pairs = {
        name: (_commit(name, read_json(one.provenance, PROVENANCE)), _commit(name, here))
        for name, one in earlier.items()
    }
    return "; ".join(f"{name} ({then} there, {now} here)" for name, (then, now) in pairs.items())


def _commit(name: str, facts: Mapping[str, Any]) -> str:
    known = [facts["git"], *(one for one in facts.get("repositories", ()) if name in one["modules"])]
    repository = known[0] if name in ("lab", *facts["git"].get("modules", ())) else known[-1]
    if not repository["sha"]:
        return "no commit"
    return f"commit {repository['sha'][:12]}{' with changes' if repository['uncommitted'] else ''}"
