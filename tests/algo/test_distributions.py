"""Algorithms on policy with each distribution of actions: law 1, learning, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.algo.on_policy import OnPolicy
from lab.env.vector import probe
from lab.errors import LabError
from lab.run.directory import RunDir
from tests.algo.off_policy import learned
from tests.algo.test_laws_off_policy import asked, killed
from tests.helpers import go_on, result, specs, train

TARGET = ("env=gymnasium", "env.id=tests.envs:Target-v0", "name=target")
BUTTONS = ("env=gymnasium", "env.id=tests.envs:Buttons-v0", "name=buttons")
PPO = ("algo=ppo", "algo.horizon=32", "algo.batch_size=64", "algo.epochs=4", "env.num_envs=4", "net.hidden=[32]",
       "algo.lr=1e-2", "algo.gamma=0.5")  # fmt: skip
KINDS = {
    "beta": ("algo.distribution=beta", *TARGET),
    "tanh": ("algo.distribution=tanh_gaussian", *TARGET),
    "by state": ("algo.state_dependent_std=true", "algo.log_std_init=-0.5", *TARGET),
    "yes or no": BUTTONS,
}


@pytest.mark.law
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algo", [pytest.param("a2c", marks=pytest.mark.slow), "ppo"])
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, algo: str, kind: str) -> None:
    overrides = ["env.num_envs=3", "net.hidden=[7]", "algo.entropy_coef=0.01", "frames=400", *KINDS[kind]]
    overrides += ["algo=ppo", "algo.horizon=16", "algo.batch_size=24"] if algo == "ppo" else ["algo=a2c"]
    alone = train(tmp_path / "alone", *overrides, "seed=2")
    stacked = train(tmp_path / "stacked", *overrides, "seed=[0,1,2,3]")
    assert alone[0].read_status()["error"] is None
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4


@pytest.mark.law
@pytest.mark.parametrize("kind", KINDS)
def test_law_1_interrupted_and_resumed_is_as_uninterrupted(tmp_path: Path, kind: str) -> None:
    often = ("log.tensorboard=false", "log.every=200", "eval.every=400", "eval.episodes=2", "checkpoint.every=250")
    made = specs(*often, "algo=a2c", "env.num_envs=4", "net.hidden=[7]", "frames=800", *KINDS[kind], "seed=[3,4]")
    whole, parts = ([RunDir(tmp_path / name / str(spec.seed)) for spec in made] for name in ("whole", "parts"))
    assert go_on(made, whole) == ["completed"] * 2
    for number, happen in ((5, asked), (12, killed)):
        assert go_on(made, parts, (OnPolicy, "step", number, happen)) == ["interrupted"] * 2
    assert go_on(made, parts) == ["completed"] * 2
    assert [result(one) for one in parts] == [result(other) for other in whole]


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(tmp_path: Path, kind: str) -> None:
    reached = learned(
        tmp_path, *PPO, *KINDS[kind], "frames=8000", "eval.every=8000", "eval.episodes=20", "eval.max_steps=8"
    )
    best = 8.0 if kind == "yes or no" else 0.0  # of eight steps, for those episodes that last so long
    assert reached > best - 3.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_ratio_of_an_update_is_one(tmp_path: Path, kind: str) -> None:
    directory = train(tmp_path, *PPO, *KINDS[kind], "frames=600", "mode=dev", "net.activation=tanh")[0]
    assert directory.read_status()["error"] is None


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    {
        "algo.distribution=beta env.id=CartPole-v1": r"algo.distribution=beta is not possible .*Discrete.2.*bounded",
        "algo.distribution=gaussian env.id=CartPole-v1": r"algo.distribution=gaussian is not possible .*Box actions",
        "algo.distribution=tanh_gaussian env.id=tests.envs:Single-v0": r"is not possible .*bounded Box actions",
    }.items(),
)
def test_distributions_that_do_not_fit_the_actions(overrides: str, sentence: str) -> None:
    spec = specs("algo=a2c", "env=gymnasium", *overrides.split())[0]
    with pytest.raises(LabError, match=sentence):
        spec.algo.check_spaces(probe(spec.env), spec.env)


def test_values_that_are_not_allowed() -> None:
    with pytest.raises(LabError, match=r"algo.distribution=bets is not allowed: .*Did you mean 'beta'"):
        specs("algo=a2c", "algo.distribution=bets")
    with pytest.raises(LabError, match=r"algo.state_dependent_std must be false with algo.distribution=beta"):
        specs("algo=ppo", "algo.distribution=beta", "algo.state_dependent_std=true")
