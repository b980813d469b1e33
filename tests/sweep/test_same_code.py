"""Continuing a sweep with other code: what is refused, and what is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.code import packages
from lab.run.code.repository import Repository
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import TrialDir
from lab.run.files import write_json
from lab.sweep.same_code import mixed_packages, require_same_code
from lab.trial import Point, Trial

HERE = CodeSnapshot(Repository("project", Path("/project"), "b" * 40, patch=b"x"), (), {"lab": "new"})
THERE = CodeSnapshot(Repository("project", Path("/project"), "a" * 40, patch=b""), (), {"lab": "old"})


@pytest.fixture(autouse=True)
def _current_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "current_digest", lambda name: {"lab": "new"}.get(name))


def make_trial(folder: Path, states: list[str], code: CodeSnapshot = THERE, retry: bool = False) -> Trial:
    """Make a Trial with a Session in each state, which may be "failed lost", trained by `code` unless pending."""
    trial = Trial(TrialDir(folder), [], Point([], {}), range(len(states)), retry=retry)
    for seed, state in enumerate(states):
        if state != "pending":
            session = trial.directory.session(seed)
            session.write_status(state.removesuffix(" lost"), 10, 100, lost=state.endswith(" lost"))
            write_json(session.provenance, code.to_dict())
    return trial


def warnings(trial: Trial, more: bool = False, mix: bool = False, in_jobs: tuple[int, ...] = ()) -> list[str]:
    return require_same_code([trial], more, mix, HERE, lambda: {trial.directory.session(s).path for s in in_jobs})


@pytest.mark.parametrize(
    ("states", "retry"),
    [(["completed", "pending"], False), (["completed", "failed"], True), (["interrupted", "pending"], False)],
)
def test_new_sessions_of_other_code_are_refused(tmp_path: Path, states: list[str], retry: bool) -> None:
    trial = make_trial(tmp_path, states, retry=retry)
    sentence = (
        rf"lab \(commit {'a' * 12} there, commit {'b' * 12} with changes here\)\. seed 1 would be mixed with seed 0, so"
        r" nothing was started\. Check out that code, choose another hydra\.sweep\.dir, or write mix_code=true"
    )
    with pytest.raises(LabError, match=sentence):
        warnings(trial)
    assert not any("mixed" in warning for warning in warnings(trial, mix=True))


@pytest.mark.parametrize(
    ("states", "code", "in_jobs"),
    [
        (["completed", "failed"], THERE, ()),  # nothing is run again
        (["failed", "pending"], THERE, ()),  # a failed Session has no results
        (["pending", "pending"], THERE, ()),
        (["completed", "pending"], HERE, ()),
        (["completed", "pending"], THERE, (1,)),  # in a job, with the code of its submission
        (["completed", "pending"], CodeSnapshot(THERE.lab, (), {"gone": "x"}), ()),  # nothing to compare
    ],
)
def test_what_mixes_no_code_is_allowed(
    tmp_path: Path, states: list[str], code: CodeSnapshot, in_jobs: tuple[int, ...]
) -> None:
    assert warnings(make_trial(tmp_path, states, code), in_jobs=in_jobs) == []


@pytest.mark.parametrize("state", ["interrupted", "failed lost"])
def test_sessions_that_continue_with_other_code_are_warned_of(tmp_path: Path, state: str) -> None:
    trial = make_trial(tmp_path, ["completed", state], retry=True)
    assert warnings(trial) == [f"{tmp_path} continues seed 1 with other code of lab than before."]
    assert warnings(trial, in_jobs=(1,)) == []


def test_new_trials_of_other_code_are_warned_of(tmp_path: Path) -> None:
    (warning,) = warnings(make_trial(tmp_path, ["completed"]), more=True)
    assert warning == (
        f"New Trials have other code than the earlier ones: lab (commit {'a' * 12} there, commit {'b' * 12} with"
        " changes here)."
    )


def test_packages_of_different_code_are_named(tmp_path: Path) -> None:
    old, new = (
        make_trial(tmp_path / code.digests["lab"], ["completed"], code).directory.session(0) for code in (THERE, HERE)
    )
    assert mixed_packages([old, new]) == ["lab"]
    assert mixed_packages([old]) == []
    write_json(old.provenance, {**THERE.to_dict(), "resumed": [HERE.to_dict()]})
    assert mixed_packages([old]) == ["lab"]
    old.provenance.write_text("{torn")
    assert mixed_packages([old, new]) == []
