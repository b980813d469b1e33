"""Law 1 for actor-critic algorithms off policy: alone as in a stack, and interrupted as not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lab.algo.actor_critic import ActorCritic
from lab.env.stacked import StackedEnvironments
from lab.run.directory import RunDir
from lab.training.evaluate import Evaluation
from tests.helpers import Interruption, go_on, result, specs, train, weights

SMALL = ("env.num_envs=2", "algo.learning_starts=100", "algo.gradient_steps=1", "algo.batch_size=32",
         "algo.memory.size=150", "net.hidden=[24]", "~tuned", "frames=300",
         "algo.optimizer.lr_schedule=linear")  # fmt: skip
PRIORITIZED = ("algo.memory.prioritized=true", "algo.memory.combined=true", "algo.n_step=3")
# Shapes that fit no vector register.
ODD = ("env.num_envs=3", "algo.batch_size=13", "net.hidden=[7,5]", "net.activation=silu", "net.shared=true",
       "algo.policy_delay=2", "algo.optimizer.max_grad_norm=1.0")  # fmt: skip
NUMBERS = ("env=gymnasium", "env.id=tests.envs:Target-v0", "name=target")
CHOICES = ("env=gymnasium", "env.id=tests.envs:Highest-v0", "name=shown")
CASES = {
    "sac box": ("algo=sac", *NUMBERS),
    "sac discrete": ("algo=sac", *CHOICES),
    "sac prioritized": ("algo=sac", *NUMBERS, *PRIORITIZED, *ODD),
    "sac odd discrete": ("algo=sac", *CHOICES, *PRIORITIZED, *ODD, "algo.learn_temperature=false"),
    "crossq box": ("algo=crossq", *NUMBERS),
    "crossq odd discrete": ("algo=crossq", *CHOICES, *PRIORITIZED, *ODD),
    "td3": ("algo=td3", *NUMBERS),
    "td3 odd prioritized": ("algo=td3", *NUMBERS, *PRIORITIZED, *ODD),
    "sac layer norm": ("algo=sac", *NUMBERS, "net.norm=layer"),
}


# One or two of each algorithm; the others take as long again and are slow.
USUAL = ("sac box", "sac prioritized", "crossq odd discrete", "td3 odd prioritized")
MARKED = [case if case in USUAL else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.law
@pytest.mark.parametrize("case", MARKED)
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, case: str) -> None:
    overrides = (*SMALL, *CASES[case])
    alone = train(tmp_path / "alone", *overrides, "seed=2")
    stacked = train(tmp_path / "stacked", *overrides, "seed=[0,1,2,3]")
    assert alone[0].read_status()["error"] is None
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4
    assert len(alone[0].episodes.read_text().splitlines()) > 1


OFTEN = ("log.tensorboard=false", "log.every=100", "eval.every=150", "eval.episodes=2", "checkpoint.every=50")


def asked() -> None:
    signal.raise_signal(signal.SIGTERM)


def killed() -> None:
    raise KeyboardInterrupt


INTERRUPTIONS: tuple[Interruption, ...] = (
    (StackedEnvironments, "step", 20, asked),  # while actions are random
    (ActorCritic, "draw_update_noise", 13, asked),
    (ActorCritic, "draw_update_noise", 21, killed),
    (ActorCritic, "step_critic", 15, killed),
    (Evaluation, "step", 3, asked),
)


@pytest.mark.law
@pytest.mark.parametrize("case", MARKED)
def test_law_1_interrupted_and_resumed_is_as_uninterrupted(tmp_path: Path, case: str) -> None:
    made = specs(*OFTEN, *SMALL, *CASES[case], "seed=[3,4]")
    whole, parts = ([RunDir(tmp_path / name / str(spec.seed)) for spec in made] for name in ("whole", "parts"))
    assert go_on(made, whole) == ["completed"] * 2
    for interruption in INTERRUPTIONS:
        assert go_on(made, parts, interruption) == ["interrupted"] * 2, interruption
    assert go_on(made, parts) == ["completed"] * 2
    for one, other in zip(parts, whole, strict=True):
        assert result(one) == result(other)
        assert weights(one, "best") == weights(other, "best")


@pytest.mark.law
@pytest.mark.parametrize("case", ["sac box"])
def test_law_1_sessions_of_different_trials_share_a_stack(tmp_path: Path, case: str) -> None:
    overrides = (*SMALL, *CASES[case], "seed=1", "log.tensorboard=false", "eval.every=0")
    chosen = [("algo.lr=1e-3", "algo.gamma=0.9"), ("algo.lr=3e-3", "algo.gamma=0.5")]
    trials = [specs(*overrides, *values)[0] for values in chosen]
    stacked = [RunDir(tmp_path / "stacked" / str(index)) for index in range(2)]
    go_on(trials, stacked)
    for index, trial in enumerate(trials):
        alone = RunDir(tmp_path / "alone" / str(index))
        go_on([trial], [alone])
        assert result(stacked[index]) == result(alone)


@pytest.mark.parametrize("case", MARKED)
def test_every_part_learns_at_every_step_in_dev_mode(tmp_path: Path, case: str) -> None:
    directory = train(tmp_path, *SMALL, *CASES[case], "mode=dev", "frames=200", "net.activation=tanh")[0]
    assert directory.read_status()["error"] is None
    assert directory.read_status()["state"] == "completed"
