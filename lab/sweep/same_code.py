"""The Sessions of a Trial are trained by the same code, also when a sweep is continued after the code changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.common.text import format_seeds
from lab.errors import LabError
from lab.run.code.packages import changed_since, different
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.schemas import PROVENANCE
from lab.trial import Trial

TRAINED = ("completed", "running", "interrupted")  # states of Sessions that contribute results to a Trial


def require_same_code(
    trials: Iterable[Trial], more: bool, mix: bool, code: CodeSnapshot, in_jobs: Callable[[], set[Path]]
) -> list[str]:
    """Refuse to train new Sessions of a Trial with other code than its earlier ones, and return warnings.

    Args:
        trials: the started Trials.
        more: whether more Trials will be started.
        mix: whether different code within a Trial is allowed.
        code: the current code.
        in_jobs: returns the directories of Sessions in queued or running jobs, which keep the code of their submission.
    """
    warnings: list[str] = []
    earlier: dict[str, RunDir] = {}
    for trial in trials:
        states, remaining, sessions = trial.states(), trial.remaining(), trial.sessions()
        lost = [seed for seed in remaining if states[seed] == "failed" and sessions[seed].read_status()["lost"]]
        trained = [seed for seed in sessions if states[seed] in TRAINED or seed in lost]
        changed = {seed: names for seed in trained if (names := changed_since(sessions[seed]))}
        if not changed:
            continue
        first, names = next(iter(changed.items()))
        earlier |= dict.fromkeys(names, sessions[first])
        here = [seed for seed in remaining if sessions[seed].path not in in_jobs()]
        new = [seed for seed in here if seed not in trained]
        if new and not mix:
            raise LabError(
                f"{trial.directory.path} has Sessions of other code than the current one: {_compare(earlier, code)}."
                f" {format_seeds(new)} would be mixed with {format_seeds(list(changed))}, so nothing was started. Check"
                " out that code, choose another hydra.sweep.dir, or write mix_code=true to mix them on purpose."
            )
        resumed = [seed for seed in here if seed in changed]
        if resumed:
            packages = ", ".join(dict.fromkeys(name for seed in resumed for name in changed[seed]))
            warnings.append(
                f"{trial.directory.path} continues {format_seeds(resumed)} with other code of {packages} than before."
            )
    if earlier and more:
        warnings.append(f"New Trials have other code than the earlier ones: {_compare(earlier, code)}.")
    return warnings


def mixed_packages(sessions: Iterable[RunDir]) -> list[str]:
    """Return the packages whose code differs between Sessions, or changed when a Session was resumed."""
    known: dict[str, Any] = {}
    mixed: dict[str, None] = {}
    for session in sessions:
        try:
            provenance = read_json(session.provenance, PROVENANCE)
        except LabError:
            continue
        for part in (provenance, *provenance.get("resumed", ())):
            code = part.get("code") or {}
            mixed |= dict.fromkeys(different(known, code))
            known = {**code, **known}
    return list(mixed)


def _compare(earlier: Mapping[str, RunDir], code: CodeSnapshot) -> str:
    """Name the commits that packages had in Sessions, and have here."""
    here = code.to_dict()
    return "; ".join(
        f"{name} ({_commit(name, read_json(session.provenance, PROVENANCE))} there, {_commit(name, here)} here)"
        for name, session in earlier.items()
    )


def _commit(name: str, facts: Mapping[str, Any]) -> str:
    known = [facts["git"], *(one for one in facts.get("repositories", ()) if name in one["modules"])]
    repository = known[0] if name in ("lab", *facts["git"].get("modules", ())) else known[-1]
    if not repository["sha"]:
        return "no commit"
    return f"commit {repository['sha'][:12]}{' with changes' if repository['uncommitted'] else ''}"
