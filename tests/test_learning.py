"""What the algorithms are published to reach, by the command line's own defaults; and law 1 over whole Sessions."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from lab.analysis.session import read_tables, session_results
from lab.run.directory import RunDir
from tests.helpers import result, specs, train_specs

# Mean over seeds 0 to 3 of the mean return of the last 100 episodes: a tenth of the way back to random actions from
# what is published.
LEVELS = {
    ("reinforce", "cartpole"): 450.0,
    ("sarsa", "cartpole"): 450.0,
    ("dqn", "cartpole"): 440.0,
    ("ddqn_per", "cartpole"): 450.0,
    ("a2c", "cartpole"): 450.0,
    ("ppo", "cartpole"): 450.0,
    ("sac", "cartpole"): 445.0,
    ("crossq", "cartpole"): 450.0,
    ("dqn", "acrobot"): -120.0,
    ("ddqn_per", "acrobot"): -120.0,
    ("a2c", "acrobot"): -125.0,
    ("ppo", "acrobot"): -120.0,
    ("sac", "acrobot"): -125.0,
    ("crossq", "acrobot"): -125.0,
    ("a2c", "pendulum"): -290.0,
    ("ppo", "pendulum"): -255.0,
    ("sac", "pendulum"): -260.0,
    ("crossq", "pendulum"): -265.0,
    ("dqn", "lunarlander"): 220.0,
    ("ddqn_per", "lunarlander"): 220.0,
    ("a2c", "lunarlander"): 25.0,
    ("ppo", "lunarlander"): 195.0,
    ("sac", "lunarlander"): 160.0,
    ("crossq", "lunarlander"): 195.0,
    ("a2c", "lunarlander_continuous"): 35.0,
    ("ppo", "lunarlander_continuous"): 110.0,
    ("sac", "lunarlander_continuous"): 220.0,
    ("crossq", "lunarlander_continuous"): 230.0,
}
# Whose whole Sessions are soon trained: the laws are tested with these in CI.
QUICK = (("a2c", "cartpole"), ("reinforce", "cartpole"))
PAIRS = [pytest.param(*pair, id="-".join(pair), marks=[pytest.mark.law] if pair in QUICK else []) for pair in LEVELS]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("algo", "env"), PAIRS)
def test_level_and_law_1_over_a_whole_session(tmp_path: Path, algo: str, env: str) -> None:
    made = specs(f"algo={algo}", f"env={env}", "seed=[0,1,2,3]", "log.tensorboard=false", "eval.every=100_000")
    assert made[0].frames == (200_000 if env == "cartpole" else 300_000)
    directories = train_specs(tmp_path / "stacked", made)
    assert [directory.read_status()["state"] for directory in directories] == ["completed"] * 4
    returns = [session_results(read_tables(RunDir(directory.path)))["return"] for directory in directories]
    print(f"{algo} {env}: {returns}, mean {mean(returns):.1f}")
    assert mean(returns) >= LEVELS[algo, env]
    alone = train_specs(tmp_path / "alone", [made[2]])
    assert result(alone[0]) == result(directories[2])
