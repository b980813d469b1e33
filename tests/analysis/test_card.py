"""The card of a Trial: what it says, of what it stands on, and that it is the same wherever it is written."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab.analysis import analyze
from lab.analysis.card import best_seed, limits, write_card
from lab.analysis.trial import read_trial
from lab.run.directory import RunDir, SweepDir, TrialDir
from lab.run.files import read_json, write_json
from tests import synthetic
from tests.analysis.test_trial import session, trial
from tests.helpers import specs

ROWS = 12  # log intervals of a Session, in which more than a hundred episodes end


def spec_of(env: str = "cartpole") -> dict[str, Any]:
    """Return the spec of A2C on an environment, as plain data."""
    return copy.deepcopy(_composed(env))


@functools.cache
def _composed(env: str) -> dict[str, Any]:
    return specs("algo=a2c", f"env={env}")[0].to_dict()


def constant(directory: RunDir, value: float, evaluated: float | None = None) -> None:
    """Let all episodes and rows of the log of a made-up Session have the same return, and evaluations too."""
    for path in (directory.episodes, directory.metrics):
        table = pd.read_csv(path).astype({"return": float})
        table["return"] = value
        if "eval_return" in table:
            table.loc[table["eval_return"].notna(), "eval_return"] = value if evaluated is None else evaluated
        table.to_csv(path, index=False)


def alone(folder: Path, returns: list[float], states: dict[int, str] | None = None, **spec: object) -> TrialDir:
    """Make up a Trial of its own, of Sessions with these returns; a state is that of a seed that did not complete."""
    base = {**spec_of(), **spec}
    directory, rng = TrialDir(folder), np.random.default_rng(0)
    write_json(directory.point, {"number": 0, "hyperparameters": {}, "seeds": list(range(len(returns)))})
    for seed, value in enumerate(returns):
        state = (states or {}).get(seed, "completed")
        if state != "pending":
            synthetic.session(directory.session(seed), {**base, "seed": seed}, state, 100, ROWS, rng)
            constant(directory.session(seed), value)
            best = directory.session(seed).checkpoint("best")
            best.parent.mkdir()
            best.touch()
    return directory


def card(directory: TrialDir) -> str:
    return write_card(read_trial(directory))


def test_a_card_says_what_was_trained_and_how_well_it_does(tmp_path: Path) -> None:
    text = card(alone(tmp_path / "a2c_cartpole", [100.0, 200.0, 300.0, 480.0]))
    head, lead = text.splitlines()[:3:2]
    assert head == "# A2C on CartPole-v1"
    assert lead.startswith(
        "Trained for 200,000 frames; 4 of 4 Sessions completed. Mean return of the last 100 episodes"
    )
    assert "over 4 seeds: **270.0** (95 % interval " in lead
    row = next(line for line in text.splitlines() if line.startswith("| return |"))
    assert row.split(" | ")[1:3] == ["4", "270.0"]
    assert row.split(" | ")[4] == "250.0", "the IQM: the lowest and the highest are left out"
    strength = next(line for line in text.splitlines() if line.startswith("| strength |"))
    assert strength.split(" | ")[2] == "247.8", "270 less the 22.24 of random actions"
    assert "On CartPole-v1, random actions have a mean return of 22.2 and solved is a return of 475.0." in text
    assert "| 0 | completed | 100.0 | 100.0 |" in text


def test_a_card_says_how_it_was_trained_and_where_it_came_from(tmp_path: Path) -> None:
    directory = alone(tmp_path, [100.0, 200.0])
    lines = card(directory).splitlines()
    spec = lines[lines.index("```yaml") + 1 :]
    assert spec[0] == "frames: 200000" and "  name: a2c" in spec
    assert not any(line.startswith("seed:") for line in spec)
    assert "- code: git 0123456789abcdef0123456789abcdef01234567" in lines
    assert "- uncommitted changes: none" in lines
    assert "- packages: torch 2.13.0" in lines
    assert "- computed on: cpu, 1 thread" in lines
    facts = read_json(directory.session(1).provenance)
    write_json(directory.session(1).provenance, {**facts, "git": {**facts["git"], "uncommitted": True}, "gpu": "GPU 9"})
    lines = card(directory).splitlines()
    first, second = lines.index("Seed 0:"), lines.index("Seed 1:")
    assert "- uncommitted changes: none" in lines[first:second]
    assert "- uncommitted changes: in uncommitted.patch" in lines[second:]
    assert "- machine: cpu, GPU 9" in lines[second:]


def test_a_card_says_how_it_is_used(tmp_path: Path) -> None:
    lines = card(alone(tmp_path, [100.0, 200.0, 150.0])).splitlines()
    first = lines.index("python -m lab enjoy DIR/seed-1 video=films")
    assert lines[first : first + 3] == [lines[first], "python -m lab report DIR", "python -m lab rerun DIR"]


def test_the_agent_to_play_is_the_best_by_evaluation_and_then_by_return() -> None:
    made = [session(0, eval_best=5.0), session(1, eval_best=9.0, **{"return": 1.0}), session(2, eval_best=9.0)]
    assert best_seed(made) == 1
    assert best_seed([session(3, **{"return": 1.0}), session(4, **{"return": 2.0}), session(5)]) == 4
    assert best_seed([session(7), session(8)]) == 7
    assert best_seed([]) is None


def test_what_did_not_complete_is_said_and_in_no_metric(tmp_path: Path) -> None:
    directory = alone(tmp_path, [100.0, 9999.0, 300.0, 9999.0], states={1: "failed", 3: "pending"})
    text = card(directory)
    assert "2 of 4 Sessions completed" in text and "**200.0**" in text
    assert "9,999" not in text
    assert "| 1 | failed at frame 99,996 | - | - |" in text
    assert "| 3 | pending | - | - |" in text
    assert "- Seed 3 has not started: excluded from all metrics." in text
    assert "- Seed 1 failed: excluded from all metrics." in text
    assert "the environment broke" not in text, "an error may hold a path"


def test_a_card_of_nothing_says_so(tmp_path: Path) -> None:
    failed = card(alone(tmp_path / "failed", [1.0], states={0: "failed"}))
    assert "0 of 1 Session completed. There is no result yet." in failed
    assert "enjoy" not in failed and "## Metrics" not in failed
    pending = card(alone(tmp_path / "pending", [1.0, 2.0], states={0: "pending", 1: "pending"}))
    assert pending.startswith("# pending\n\nThere is no result yet.\n")
    assert "Seeds 0 and 1 have not started" in pending


def test_what_is_missing_in_the_provenance_is_said(tmp_path: Path) -> None:
    directory = alone(tmp_path, [1.0, 2.0])
    directory.session(0).provenance.write_text("{torn")
    write_json(directory.session(1).provenance, {"git": {"sha": None, "note": "git is not installed"}, "device": "cpu"})
    text = card(directory)
    assert "- code: unknown: provenance.json cannot be read" in text
    assert "- code: unknown: it had no git SHA\n- uncommitted changes: unknown\n" in text
    for seed in (0, 1):
        directory.session(seed).provenance.unlink()
    assert "Unknown: provenance.json is missing" in card(directory)


@pytest.mark.parametrize(
    ("count", "phrase"),
    [(1, "One seed says nothing about another"), (2, "far too narrow"), (4, "too narrow for so few: ")],
)
def test_the_limits_speak_of_the_seeds(count: int, phrase: str) -> None:
    spec = {"mode": "dev", "env": {"id": "E-v0", "kwargs": {"slippery": False}}}
    sentences = limits(trial(*(session(seed, spec=spec) for seed in range(count))))
    assert any(phrase in sentence for sentence in sentences)
    assert sentences[0] == "Trained and measured on E-v0 slippery=false only."
    assert "mode=dev" in sentences[1]


def test_the_same_files_give_the_same_card_wherever_they_are(tmp_path: Path) -> None:
    directory = alone(tmp_path / "here", [100.0, 200.0], states={1: "failed"})
    text = card(directory)
    assert card(directory) == text
    assert card(TrialDir(shutil.copytree(directory.path, tmp_path / "somewhere else"))) == text
    facts = json.loads(directory.session(0).provenance.read_text())
    for hidden in (str(tmp_path), facts["start"], facts["end"], facts["directory"], "host"):
        assert hidden not in text


def test_a_card_is_written_with_the_metrics_of_a_trial_that_stands_alone(tmp_path: Path) -> None:
    directory = alone(tmp_path / "a2c_cartpole", [100.0, 200.0])
    assert analyze(directory.path) == [directory.results, directory.plot, directory.card]
    assert directory.card.read_text() == card(directory)


def test_a_trial_of_an_experiment_has_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.analysis.draw_trial", lambda directory: None)
    sweep = synthetic.experiment(tmp_path, trials=1, seeds=1, rows=4)
    assert analyze(SweepDir(tmp_path).trial(0).path) == [sweep.trial(0).results, sweep.trial(0).plot]
    assert not sweep.trial(0).card.exists()
