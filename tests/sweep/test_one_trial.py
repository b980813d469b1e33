"""Further seeds for one Trial of an Experiment: `resume DIR/trial-001 seed=...`."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from lab.run.directory import SweepDir, find_sessions
from lab.run.files import read_json, write_sealed_json
from lab.run.lock import Lock
from lab.sweep.study import open_storage
from tests.helpers import lab

SMALL = ("algo.horizon=16", "log.every=500", "eval.every=1000", "eval.episodes=2", "log.tensorboard=false")


def resume(folder: Path, *overrides: str, code: int = 0) -> str:
    done = lab("resume", str(folder), *overrides, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.mark.slow
def test_one_trial_of_a_search_gets_further_seeds(tmp_path: Path) -> None:
    search = ("search=command_line", "search.n_trials=2", "algo.lr=tag(log,interval(1e-4,1e-2))")
    done = lab("-m", "frames=1000", *SMALL, *search, "seed=0", f"hydra.sweep.dir={tmp_path}", timeout=240)
    assert done.returncode == 0, done.stderr
    sweep = SweepDir(tmp_path)
    kept = [sweep.sweep, sweep.multirun, sweep.study, *(one.provenance for one in find_sessions(tmp_path))]
    before = [path.read_bytes() for path in kept]
    planned = resume(tmp_path / "trial-001", "seed=0,1,2", "plan=true")
    assert "trial-001 of 3 Sessions (seeds 0, 1 and 2)" in planned
    assert "3 Sessions: 2 to run, 1 completed." in planned
    shown = resume(tmp_path / "trial-001", "seed=1,2")
    assert "4 of 4 Sessions" in shown
    assert "Trials have 1 to 3 seeds, and each is ranked by all of its own." in shown
    assert [path.read_bytes() for path in kept] == before, "the sweep and its study stay what they are"
    assert {entry["trial"]: entry["seeds"] for entry in read_json(sweep.results)["ranking"]} == {0: 1, 1: 3}
    assert "Trials have 1 to 3 seeds" in sweep.report.read_text()
    resume(tmp_path)
    study = optuna.load_study(study_name=None, storage=open_storage(sweep.study))
    mean = read_json(sweep.trial(1).results)["metrics"]["return"]["mean"]["value"]
    assert [trial.value for trial in study.trials][1:] == [pytest.approx(mean)], (
        "each Trial once, with all of its seeds"
    )
    assert [len(trial.seeds()) for trial in sweep.trials()] == [1, 3]


def test_the_sweep_is_locked_and_a_pruned_trial_is_refused(tmp_path: Path) -> None:
    sweep = SweepDir(tmp_path)
    for number, rate in enumerate((0.01, 0.001)):
        point = {"overrides": [f"algo.lr={rate}"], "hyperparameters": {"algo.lr": rate}, "seeds": [0]}
        sweep.trial(number).session(0).path.mkdir(parents=True)
        write_sealed_json(sweep.trial(number).point, {"number": number, **point})
    sweep.trial(1).session(0).write_status("pruned", 500, 1000)

    def refused(*overrides: str) -> str:
        done = lab("-m", "algo.lr=0.01,0.001", "frames=1000", "seed=0,1", *overrides, f"hydra.sweep.dir={sweep.path}")
        assert done.returncode == 2, done.stdout
        return done.stderr

    assert "trial-001 was pruned" in refused("only_trial=1")
    assert "trial-007 is no Trial that was started: it has no point.json" in refused("only_trial=7")
    lock = Lock(sweep.path)
    assert lock.acquire()
    try:
        assert f"{sweep.path} is in use" in refused("only_trial=0")
    finally:
        lock.release()
    assert sweep.trial(0).seeds() == [0]
