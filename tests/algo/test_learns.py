"""Every algorithm, and every part of it that can be switched on, learns what anything that learns can learn."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import train

LR = "algo.lr=1e-2"
QUICK = ("algo.gamma=0.3", "net.hidden=[16]", "eval.episodes=20", "eval.max_steps=25", "log.every=100_000", "~tuned")
ON_POLICY = {
    "a2c": ("algo=a2c", LR, "algo.horizon=8"),
    "a2c-n-step": ("algo=a2c", LR, "algo.horizon=8", "algo.advantage=n_step", "algo.n_step=2"),
    "a2c-sil": ("algo=a2c", LR, "algo.horizon=8", "algo.sil.gradient_steps=1", "algo.sil.batch_size=32"),
    "ppo": ("algo=ppo", LR, "algo.horizon=32", "algo.epochs=4", "algo.batch_size=64"),
    "ppo-sil": (
        "algo=ppo", LR, "algo.horizon=32", "algo.epochs=4", "algo.batch_size=64", "algo.sil.gradient_steps=2",
        "algo.sil.batch_size=64",
    ),
    "reinforce": ("algo=reinforce", "algo.lr=2e-2", "algo.horizon=16"),
    "reinforce-without-baseline": ("algo=reinforce", "algo.lr=2e-2", "algo.horizon=32", "algo.baseline=false",
        "algo.normalize_advantage=true"),
}  # fmt: skip
DQN = (
    "algo=dqn", LR, "algo.gradient_steps=2", "algo.batch_size=32", "algo.learning_starts=200",
    "algo.target_update_interval=20",
    "algo.exploration.fraction=0.5", "algo.v_min=-1", "algo.v_max=3", "algo.atoms=13",
)  # fmt: skip
NOISY = ("algo.noisy=true", "algo.exploration.final=0")
RAINBOW = (
    "algo.double=true", "algo.dueling=true", *NOISY, "algo.distribution=categorical", "algo.n_step=3",
    "algo.memory.prioritized=true",
)  # fmt: skip
VALUE_BASED = {
    "dqn": DQN,
    "dqn-mse-polyak": (*DQN, "algo.loss=mse", "algo.target_update_interval=1", "algo.tau=0.05"),
    "double": (*DQN, "algo.double=true"),
    "dueling": (*DQN, "algo.dueling=true"),
    "noisy": (*DQN, *NOISY),
    "categorical": (*DQN, "algo.distribution=categorical"),
    "quantile": (*DQN, "algo.distribution=quantile"),
    "prioritized": (*DQN, "algo.memory.prioritized=true"),
    "several-steps": (*DQN, "algo.n_step=3"),
    "combined": (*DQN, "algo.memory.combined=true"),
    "boltzmann": (*DQN, "algo.exploration.method=boltzmann", "algo.exploration.start=1", "algo.exploration.final=0.1"),
    "rainbow": (*DQN, *RAINBOW),
    "rainbow-quantile": (*DQN, *RAINBOW, "algo.distribution=quantile", "algo.memory.combined=true"),
    "sarsa": ("algo=sarsa", LR, "algo.horizon=16", "algo.batch_size=32"),
    "sarsa-expected": (
        "algo=sarsa",
        LR,
        "algo.horizon=16",
        "algo.batch_size=32",
        "algo.expected=true",
        "algo.td_lambda=0",
    ),
    "pqn": ("algo=pqn", LR, "algo.horizon=16", "algo.batch_size=32"),
}


def score(folder: Path, env: str, frames: int, *overrides: str) -> float:
    """Train, and return the mean reward of a step of the last evaluation."""
    chosen = ("env=gymnasium", f"env.id=tests.envs:{env}-v0", f"name={env}", f"frames={frames}", f"eval.every={frames}")
    directory = train(folder, *chosen, *QUICK, *overrides)[0]
    assert directory.read_status()["error"] is None
    with directory.metrics.open() as file:
        row = list(csv.DictReader(file))[-1]
    return float(row["eval_return"]) / float(row["eval_length"])


USUAL = ("a2c", "a2c-sil", "ppo", "ppo-sil", "reinforce", "dqn", "rainbow", "sarsa", "pqn")


def marked(cases: dict[str, tuple[str, ...]], usual: tuple[str, ...] = USUAL) -> list[Any]:
    """Return the names of cases, of which those that are not usual are slow."""
    return [case if case in usual else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("case", marked(ON_POLICY | VALUE_BASED))
def test_the_shown_choice(tmp_path: Path, case: str) -> None:
    assert score(tmp_path, "Shown", 2500, *(ON_POLICY | VALUE_BASED)[case]) > 0.97


@pytest.mark.parametrize("case", marked(ON_POLICY, ("a2c", "ppo", "reinforce")))
def test_two_choices_at_once(tmp_path: Path, case: str) -> None:
    assert score(tmp_path, "Pair", 5000, *ON_POLICY[case]) > 1.8


@pytest.mark.parametrize("case", marked(ON_POLICY, ("a2c", "ppo", "reinforce")))
def test_nearness_to_a_target(tmp_path: Path, case: str) -> None:
    frames = 16_000 if case == "reinforce-without-baseline" else 8000
    assert score(tmp_path, "Target", frames, *ON_POLICY[case]) > -0.15
