"""What is refused, and what is said, when a sweep goes on with other code; in run directories without training."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.code import packages
from lab.run.code.repository import Repository
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir, TrialDir
from lab.run.files import write_json
from lab.sweep.same_code import mixed_packages, require_same_code
from lab.trial import Point, Trial

HERE = CodeSnapshot(Repository("project", Path("/project"), "b" * 40, patch=b"x"), (), {"lab": "new"})
THERE = CodeSnapshot(Repository("project", Path("/project"), "a" * 40, patch=b""), (), {"lab": "old"})


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "current_digest", lambda name: {"lab": "new"}.get(name))


def trial(folder: Path, states: dict[int, str], code: CodeSnapshot = THERE, retry: bool = False) -> Trial:
    made = Trial(TrialDir(folder), [], Point([], {}), list(states), retry=retry)
    for seed, state in states.items():
        if state != "pending":
            session = made.directory.session(seed)
            session.write_status(state.removesuffix(" lost"), 10, 100, lost=state.endswith(" lost"))
            write_json(session.provenance, code.to_dict())
    return made


def asked(one: Trial, more: bool = False, mix: bool = False, in_jobs: tuple[int, ...] = ()) -> list[str]:
    return require_same_code([one], more, mix, HERE, lambda: {one.directory.session(seed).path for seed in in_jobs})


@pytest.mark.parametrize(
    ("states", "retry"),
    [
        ({0: "completed", 1: "pending"}, False),
        ({0: "completed", 1: "failed"}, True),
        ({0: "interrupted", 1: "pending"}, False),
    ],
)
def test_new_sessions_of_other_code_are_refused(tmp_path: Path, states: dict[int, str], retry: bool) -> None:
    one = trial(tmp_path, states, retry=retry)
    sentence = (
        rf"lab \(commit {'a' * 12} there, commit {'b' * 12} with changes here\)\. seed 1 would be mixed with seed 0, so"
        r" nothing was started\. Check out that code, choose another hydra\.sweep\.dir, or write mix_code=true"
    )
    with pytest.raises(LabError, match=sentence):
        asked(one)
    assert not any("mixed" in told for told in asked(one, mix=True))


@pytest.mark.parametrize(
    ("states", "code", "in_jobs"),
    [
        ({0: "completed", 1: "failed"}, THERE, ()),  # nothing is run again
        ({0: "failed", 1: "pending"}, THERE, ()),  # that has no results
        ({0: "pending", 1: "pending"}, THERE, ()),
        ({0: "completed", 1: "pending"}, HERE, ()),
        ({0: "completed", 1: "pending"}, THERE, (1,)),  # in a job, with the code of its submission
        ({0: "completed", 1: "pending"}, CodeSnapshot(THERE.lab, (), {"gone": "x"}), ()),  # nothing to compare
    ],
)
def test_what_mixes_nothing_is_not_refused(
    tmp_path: Path, states: dict[int, str], code: CodeSnapshot, in_jobs: tuple[int, ...]
) -> None:
    assert asked(trial(tmp_path, states, code), in_jobs=in_jobs) == []


@pytest.mark.parametrize("state", ["interrupted", "failed lost"])
def test_sessions_that_go_on_with_other_code_are_told(tmp_path: Path, state: str) -> None:
    one = trial(tmp_path, {0: "completed", 1: state}, retry=True)
    assert asked(one) == [f"{tmp_path} continues seed 1 with other code of lab than before."]
    assert asked(one, in_jobs=(1,)) == []


def test_trials_that_begin_with_other_code_are_told(tmp_path: Path) -> None:
    (told,) = asked(trial(tmp_path, {0: "completed"}), more=True)
    assert told == (
        f"New Trials have other code than the earlier ones: lab (commit {'a' * 12} there, commit {'b' * 12} with"
        " changes here)."
    )


def test_what_is_mixed_in_a_trial_is_found(tmp_path: Path) -> None:
    old, new = (trial(tmp_path / code.digests["lab"], {0: "completed"}, code) for code in (THERE, HERE))
    sessions: list[RunDir] = [one.directory.session(0) for one in (old, new)]
    assert mixed_packages(sessions) == ["lab"]
    assert mixed_packages(sessions[:1]) == []
    write_json(sessions[0].provenance, {**THERE.to_dict(), "resumed": [HERE.to_dict()]})
    assert mixed_packages(sessions[:1]) == ["lab"]
    sessions[0].provenance.write_text("{torn")
    assert mixed_packages(sessions) == []
