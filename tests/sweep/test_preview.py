"""What `plan=true` prints: the search space, counts that add up, and from which Sessions a duration is estimated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.analysis.objective import Objective
from lab.run.directory import SweepDir
from lab.run.files import write_sealed_json
from lab.sweep.overrides import parse
from lab.sweep.preview import describe_distribution, describe_short, min_frames
from lab.sweep_spec import SearchSpec
from tests.helpers import ROOT, lab, specs, train


def plan(folder: Path, *overrides: str) -> str:
    done = lab(*overrides, "plan=true", cwd=folder, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_duration_is_estimated_from_enough_frames_of_a_session_that_is_no_check(tmp_path: Path) -> None:
    earlier = tmp_path / "outputs" / "a2c_cartpole"
    train(earlier / "2026-01-01", "mode=dev", "frames=1000")
    unknown = plan(tmp_path, "-m", "search=a2c", "seed=0,1", "frames=1000")
    assert "no earlier Session of a2c on CartPole-v1 (cpu) with 1,000 frames or more" in unknown
    assert "algo.lr            from 1e-05 to 0.03, on a logarithmic scale" in unknown
    assert "algo.horizon       one of 5, 8, 16, 32, 64, 128" in unknown
    assert "trial-000  2 to run  algo.lr=0.003, algo.horizon=32" in unknown, "the defaults"
    assert "and 19 more Trials, at points that the search suggests" in unknown
    train(earlier / "2026-01-02", "frames=1000")
    known = plan(tmp_path, "-m", "frames=1000", "seed=0")
    assert "1 Session: 1 to run." in known
    assert "It would take about 1 s: 1 job at" in known
    assert "as in the earlier Session outputs/a2c_cartpole/2026-01-02/0-seed-0, of 1 Session a job." in known
    (tmp_path / "outputs" / "a2c_cartpole").rename(tmp_path / "outputs" / "a2c-ppo_cartpole")
    other = plan(tmp_path, "-m", "frames=1000", "seed=0", "algo.lr=1e-3,1e-2")
    assert "as in the earlier Session outputs/a2c-ppo_cartpole/2026-01-02/0-seed-0" in other


@pytest.mark.parametrize(("frames", "least"), [(1000, 1000), (50_000, 10_000), (200_000, 20_000)])
def test_a_speed_is_measured_over_enough_frames(frames: int, least: int) -> None:
    assert min_frames(specs(f"frames={frames}")[0]) == least


def test_the_sessions_of_a_pruned_trial_count_as_pruned(tmp_path: Path) -> None:
    sweep = SweepDir(tmp_path / "sweep")
    (session,) = train(tmp_path / "made", "frames=1000", "algo.lr=0.01", "compile=false")
    for number, state in enumerate(("completed", "pruned")):
        trial = sweep.trial(number)
        trial.path.mkdir(parents=True)
        session.path.rename(trial.session(0).path) if number == 0 else trial.session(0).path.mkdir()
        trial.session(0).write_status(state, 500 * (2 - number), 1000)
        point = {"overrides": [f"algo.lr={10.0 ** -(2 + number)}"], "hyperparameters": {}, "seeds": [0]}
        write_sealed_json(trial.point, {"number": number, **point})
    overrides = ["-m", "algo.lr=0.01,0.001,0.0001", "seed=0,1", "frames=1000", f"hydra.sweep.dir={sweep.path}"]
    shown = plan(tmp_path, *overrides, "log.every=500", "eval.every=1000", "eval.episodes=3", "checkpoint.every=1000",
                 "log.tensorboard=false")  # fmt: skip
    assert "trial-000  1 to run, 1 completed" in shown
    assert "trial-001  2 pruned" in shown
    assert "trial-002  2 to run" in shown
    assert "6 Sessions: 3 to run, 1 completed, 2 pruned." in shown


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("a=interval(0.1,1)", "from 0.1 to 1.0"),
        ("a=tag(log,int(interval(1,64)))", "from 1 to 64, whole numbers, on a logarithmic scale"),
        ("a=range(0,20,step=5)", "from 0 to 15, whole numbers, in steps of 5"),
        ("a=choice('007',7,[64,64])", "one of '007', 7, [64,64]"),
    ],
)
def test_a_distribution_is_described(override: str, text: str) -> None:
    assert describe_distribution(parse([override], SearchSpec({})).space["a"]) == text


def test_a_plan_says_where_no_episode_may_end() -> None:
    (spec,) = specs("algo=a2c", "env=mountaincar", "frames=800", "env.num_envs=8")
    plan: Any = SimpleNamespace(objective=Objective(("return",), ("maximize",), "mean"))
    assert "takes 100 steps, and an episode of MountainCar-v0 up to 200" in describe_short(plan, spec)
    assert not describe_short(plan, replace(spec, frames=8 * 300))
    plan.objective = Objective(("eval_return",), ("maximize",), "mean")
    assert not describe_short(plan, spec)
