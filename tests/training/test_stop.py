"""Sessions that end on success: `stop_at`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from lab.analysis.compare import compare, list_notes, read_entries
from lab.analysis.trial import read_trial
from lab.command import report
from lab.run.directory import RunDir, TrialDir
from lab.run.status import recover_status
from lab.training.record import Record
from lab.training.stack import Stack
from tests.helpers import go_on, result, specs, train_specs, weights

QUICK = ("algo=a2c", "env=cartpole", "log.tensorboard=false", "log.every=300", "eval.every=2000", "eval.episodes=2",
         "checkpoint.every=1000", "~tuned", "algo.horizon=16", "frames=9000", "seed=[3,4]")  # fmt: skip
GOAL = 24.0


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> TrialDir:
    """A Trial of two Sessions that stop at different frames, and beside it the same without `stop_at`."""
    folder = tmp_path_factory.mktemp("stopped")
    for name, goal in (("trial", GOAL), ("whole", None)):
        made = specs(*QUICK, f"stop_at={goal if goal else 'null'}")
        assert go_on(made, [RunDir(folder / name / f"seed-{spec.seed}") for spec in made]) == ["completed"] * 2
    return TrialDir(folder / "trial")


def stopped_at(directory: RunDir) -> int:
    return int(directory.read_status()["frame"])


def test_a_session_ends_at_the_first_log_point_at_which_its_return_is_reached(trial: TrialDir) -> None:
    frames = [stopped_at(trial.session(seed)) for seed in (3, 4)]
    assert len(set(frames)) == 2
    assert max(frames) < 9000
    for seed, frame in zip((3, 4), frames, strict=True):
        session, whole = trial.session(seed), RunDir(trial.path.parent / "whole" / f"seed-{seed}")
        rows = pd.read_csv(session.metrics)
        reached = (rows["return"] >= GOAL) & (rows["episodes"] >= 100)
        assert (rows["frame"].iloc[-1], reached.tolist()) == (frame, [False] * (len(rows) - 1) + [True])
        assert rows["eval_return"].iloc[-1] > 0, "it is evaluated at its end, as any Session"
        episodes = session.episodes.read_text()
        assert whole.episodes.read_text().startswith(episodes), "schedules and numbers are those of all frames"
        status = session.read_status()
        assert (status["state"], status["frames"]) == ("completed", 9000)
        assert status["stopped"] == f"return {rows['return'].iloc[-1]:.6g} >= stop_at=24"
        assert "stopped early: return" in session.log.read_text()


@pytest.mark.law
def test_law_1_alone_stacked_and_killed_at_its_end(trial: TrialDir, tmp_path: Path) -> None:
    first, last = sorted((3, 4), key=lambda seed: stopped_at(trial.session(seed)))
    made = {spec.seed: spec for spec in specs(*QUICK, f"stop_at={GOAL}")}

    def killed() -> None:
        raise KeyboardInterrupt

    alone = RunDir(tmp_path / "alone")
    assert go_on([made[last]], [alone], (Stack, "finish_reached", 3, killed)) == ["interrupted"]
    assert go_on([made[last]], [alone], (Record, "finish", 1, killed)) in (["interrupted"], ["failed"], ["completed"])
    assert go_on([made[last]], [alone]) == ["completed"] if alone.read_status()["state"] == "interrupted" else True
    assert result(alone) == result(trial.session(last))
    assert weights(alone, "best") == weights(trial.session(last), "best")
    other = specs(*QUICK, "seed=4")[0]  # that never stops
    beside = train_specs(tmp_path / "mixed", [made[first], other])
    assert result(beside[0]) == result(trial.session(first))
    assert result(beside[1]) == result(RunDir(trial.path.parent / "whole" / "seed-4"))


def test_a_session_that_was_killed_before_it_wrote_that_it_had_stopped(trial: TrialDir, tmp_path: Path) -> None:
    spec = specs(*QUICK, f"stop_at={GOAL}", "seed=3", "checkpoint.every=300")[0]
    directory = RunDir(tmp_path / "one")
    assert go_on([spec], [directory]) == ["completed"]
    before = result(directory)
    directory.update_status(state="interrupted", stopped=None)
    assert go_on([spec], [directory]) == ["completed"]
    assert result(directory) == before
    assert directory.read_status()["stopped"]
    assert recover_status(directory, "It is damaged.")["state"] == "completed"


def test_environments_that_are_reset_at_checkpoints(tmp_path: Path) -> None:
    spec = specs(*QUICK, f"stop_at={GOAL}", "seed=3", "env.restore=reset", "checkpoint.every=5000")[0]
    directory = RunDir(tmp_path / "one")
    assert go_on([spec], [directory]) == ["completed"]
    from lab.run import tensor_files

    assert tensor_files.read(directory.checkpoint("last"))["frame"] == stopped_at(directory)


def test_curves_cards_and_comparisons_of_sessions_of_different_lengths(trial: TrialDir) -> None:
    report.main([str(trial.path)])
    frames = sorted(stopped_at(trial.session(seed)) for seed in (3, 4))
    assert read_trial(trial).curve()[0][-1] == frames[0], "the mean goes as far as all do"
    metrics = json.loads(trial.results.read_text())["metrics"]
    assert metrics["frames"]["mean"]["value"] == sum(frames) / 2
    card = trial.card.read_text()
    assert "2 Sessions stopped when the return had reached stop_at=24.0" in card
    assert f"completed at frame {frames[1]:,}" in card
    entries = read_entries([trial.path, trial.path.parent / "whole"])
    assert [entry.until for entry in entries] == [frames[0]] * 2
    assert "stopped on success at different frames" in list_notes(entries)[0]
    assert entries[0].values("frames").tolist() == [stopped_at(trial.session(seed)) for seed in (3, 4)]
    assert compare(entries[0], entries[1], "frames").improvement["value"] == 1.0, "fewer are better"
