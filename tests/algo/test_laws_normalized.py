"""Law 1 for what remembers raw steps and normalizes them when they are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.run.directory import RunDir
from lab.training.stack import Stack
from tests.helpers import go_on, result, specs, weights

MEMORY = ("algo.learning_starts=60", "algo.batch_size=16", "algo.memory.size=120", "algo.horizon=2")
SIL = ("algo.horizon=8", "algo.sil.gradient_steps=2", "algo.sil.batch_size=20", "algo.sil.memory.size=200")
CHOICES = ("env=cartpole", "net.hidden=[16]")
NUMBERS = ("env=gymnasium", "env.id=tests.envs:Target-v0", "name=target", "net.hidden=[16]")
CASES = {
    "dqn": ("algo=dqn", *CHOICES, *MEMORY, "algo.n_step=3"),
    "ddqn_per": ("algo=ddqn_per", *CHOICES, *MEMORY, "algo.memory.dtype=float16"),
    "rainbow": ("algo=rainbow", *CHOICES, *MEMORY),
    "sac": ("algo=sac", *NUMBERS, *MEMORY, "algo.horizon=1", "algo.n_step=2"),  # whose environments are reset at once
    "td3": ("algo=td3", *NUMBERS, *MEMORY),
    "crossq": ("algo=crossq", *CHOICES, *MEMORY),
    "a2c-sil": ("algo=a2c", *NUMBERS, *SIL, "algo.n_step=4"),
    "ppo-sil": ("algo=ppo", *CHOICES, *SIL, "algo.batch_size=8", "algo.epochs=2"),
}
BOTH = (
    "env.num_envs=2", "env.normalize_observations=true", "env.normalize_rewards=true", "~tuned", "frames=400",
    "log.tensorboard=false", "log.every=100", "eval.every=200", "eval.episodes=2", "eval.max_steps=40",
    "checkpoint.every=80",
)  # fmt: skip
SLOW = (pytest.mark.slow, pytest.mark.law)
USUAL = ("rainbow", "a2c-sil")


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.law
@pytest.mark.parametrize("case", [case if case in USUAL else pytest.param(case, marks=SLOW) for case in CASES])
def test_law_1_alone_in_a_stack_and_interrupted(tmp_path: Path, case: str) -> None:
    made = specs(*CASES[case], *BOTH, "seed=[3,4]")
    whole, parts, alone = ([RunDir(tmp_path / name / str(s)) for s in (3, 4)] for name in ("whole", "parts", "alone"))
    assert go_on(made, whole) == ["completed"] * 2
    assert go_on(made[1:], alone[1:]) == ["completed"]
    horizons = 400 // (2 * made[0].algo.horizon)
    for fraction in (0.3, 0.5):  # of the whole, each counted from the last interruption
        assert go_on(made, parts, (Stack, "finish_interval", int(fraction * horizons), killed)) == ["interrupted"] * 2
    assert go_on(made, parts) == ["completed"] * 2
    for one, other in zip(parts, whole, strict=True):
        assert result(one) == result(other)
        assert weights(one, "best") == weights(other, "best")
    assert result(alone[1]) == result(whole[1])
    assert len(result(whole[0])["episodes"].splitlines()) > 3
