"""Law 1 for what learns in ways of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.run.directory import RunDir
from lab.training.stack import Stack
from tests.helpers import result, specs, train
from tests.test_resume import begin, check_same, killed, signalled

ODD = (
    "net.hidden=[7,5]",
    "net.activation=silu",
    "env.num_envs=5",
    "algo.horizon=11",
    "algo.optimizer.lr_schedule=cosine",
)
# No policy swings up in these few frames for certain, but whatever one does, episodes end.
SHORT = ("env=acrobot", "env.max_episode_steps=100")
CASES = {
    "sarsa": ("algo=sarsa", "env=cartpole", "algo.horizon=16"),
    "sarsa-odd": (
        "algo=sarsa", *SHORT, *ODD, "algo.batch_size=null", "algo.exploration.method=boltzmann", "algo.td_lambda=0.3",
    ),
    "sarsa-expected": (
        "algo=sarsa", "env=cartpole", "algo.horizon=16", "algo.expected=true", "algo.dueling=true",
        "algo.batch_size=32", "algo.exploration.schedule=exponential",
    ),
    "pqn": ("algo=pqn", "env=cartpole", "algo.horizon=16"),
    "pqn-odd": ("algo=pqn", *SHORT, *ODD, "algo.batch_size=11", "algo.dueling=true", "algo.epochs=2"),
    "a2c-sil": ("algo=a2c", "env=cartpole", "algo.horizon=16", "algo.sil.gradient_steps=2", "algo.sil.batch_size=50"),
    "a2c-sil-even": (
        "algo=a2c", "env=gymnasium", "env.id=tests.envs:Pair-v0", *ODD, "algo.n_step=4", "algo.sil.gradient_steps=3",
        "algo.sil.batch_size=17", "algo.sil.memory.prioritized=false", "algo.sil.memory.size=600",
    ),
    "a2c-sil-module": (
        "algo=a2c", "env=cartpole", "env.num_envs=1", "algo.horizon=4", "algo.n_step=4", "algo.sil.gradient_steps=1",
        "algo.sil.batch_size=8", "net=module", "net._target_=tests.modules.Torso", "+net.width=8", "+net.dropout=0.5",
        "+net.norm=true", "frames=300",
    ),
    "ppo-sil": (
        "algo=ppo", "env=pendulum", "algo.horizon=16", "algo.batch_size=32", "algo.epochs=2",
        "algo.sil.gradient_steps=2",
        "env.num_envs=4", "env.normalize_observations=true", "env.normalize_rewards=true", "algo.sil.batch_size=40",
        "algo.sil.memory.beta_final=1", "algo.sil.memory.size=1000",
    ),
    "ppo-sil-reset": (
        "algo=ppo", "env=gymnasium", "env.id=tests.envs:Target-v0", "env.restore=reset", "algo.horizon=16",
        "algo.batch_size=32", "algo.epochs=2", "algo.sil.gradient_steps=2", "algo.sil.memory.dtype=float16",
    ),
    "reinforce": (
        "algo=reinforce", "env=cartpole", "algo.horizon=16", "env.num_envs=3", "algo.episode_steps=100",
        "env.normalize_observations=true", "env.normalize_rewards=true", "algo.normalize_advantage=true",
    ),
    "reinforce-at-once": ("algo=reinforce", *SHORT, "algo.horizon=1", "env.num_envs=1", "algo.baseline=false"),
    "reinforce-gru": (
        "algo=reinforce", "env=cartpole", "algo.horizon=8", "net=gru", "net.hidden=[7]", "net.size=5", "net.burn_in=3",
        "algo.entropy_coef=0.01", "algo.entropy_schedule=linear",
    ),
    "reinforce-reset": (
        "algo=reinforce", "env=gymnasium", "env.id=tests.envs:Target-v0", "env.restore=reset", "algo.horizon=11",
        "algo.distribution=beta", "algo.optimizer.lr_schedule=torch.optim.lr_scheduler.StepLR",
        "+algo.optimizer.lr_schedule_kwargs.step_size=5",
    ),
}  # fmt: skip
FEW = (
    "~tuned", "frames=1500", "log.tensorboard=false", "log.every=300", "eval.every=900", "eval.episodes=2",
    "eval.max_steps=50", "checkpoint.every=400",
)  # fmt: skip


def marked(*usual: str) -> list[Any]:
    """Return the names of the cases, of which those that are not usual are slow."""
    return [case if case in usual else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.law
@pytest.mark.parametrize("case", marked("sarsa-expected", "a2c-sil-even", "a2c-sil-module", "ppo-sil", "reinforce"))
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, case: str) -> None:
    # Of these seeds the first episode of 1 ends last, so that its stack mates know an episode before it does.
    alone = train(tmp_path / "alone", *FEW, *CASES[case], "seed=1")
    stacked = train(tmp_path / "stacked", *FEW, *CASES[case], "seed=[0,1,2,3]")
    assert alone[0].read_status()["state"] == "completed"
    assert result(stacked[1]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4
    assert len(result(alone[0])["episodes"].splitlines()) > 1


@pytest.mark.law
@pytest.mark.parametrize("case", marked("pqn", "a2c-sil", "ppo-sil-reset", "reinforce-reset"))
def test_law_1_interrupted_and_resumed(tmp_path: Path, case: str) -> None:
    made = specs(*FEW, *CASES[case], "seed=[3,4]")
    assert begin(made, tmp_path / "whole") == ["completed"] * 2
    for moment, happens in ((3, signalled), (2, killed), (4, signalled)):
        assert begin(made, tmp_path / "parts", (Stack, "collect_and_learn", moment, happens)) == ["interrupted"] * 2
    assert begin(made, tmp_path / "parts") == ["completed"] * 2
    check_same(made, tmp_path / "parts", tmp_path / "whole")
    assert RunDir(tmp_path / "parts" / "3").read_status()["state"] == "completed"
