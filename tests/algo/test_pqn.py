"""PQN against a slow reference written from the paper."""

from __future__ import annotations

import pytest
import torch

from lab.errors import LabError
from tests.algo.steps import E, T, forward_returns, horizon, minibatch_steps, plain, same
from tests.helpers import lab, specs

GAMMA, LR = 0.9, 1e-2
OVERRIDES = ("algo=pqn", "env=acrobot", f"algo.gamma={GAMMA}", f"algo.lr={LR}", "algo.optimizer.lr_schedule=constant")


@pytest.mark.parametrize("lambda_", [0.0, 0.65])
@pytest.mark.parametrize(("epochs", "batch_size"), [(1, T * E), (3, 7)])
def test_a_horizon_of_pqn(lambda_: float, epochs: int, batch_size: int) -> None:
    size = "null" if batch_size == T * E else batch_size
    overrides = (
        f"algo.td_lambda={lambda_}",
        f"algo.epochs={epochs}",
        f"algo.batch_size={size}",
        "algo.optimizer.max_grad_norm=0.5",
    )
    agent, rollout = horizon(*OVERRIDES, *overrides)
    with torch.no_grad():
        next_value = plain(agent)(rollout.observation[1:, 0]).max(-1).values
    returns = forward_returns(rollout, next_value, GAMMA, lambda_)
    reference = minibatch_steps(agent, rollout, returns, epochs, batch_size, LR, 0.5)
    metrics = agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    same(agent, reference)
    assert metrics["steps"].tolist() == [epochs * T * E / batch_size]


def test_values_are_those_of_the_network_before_the_first_step() -> None:
    agent, rollout = horizon(
        *OVERRIDES, "algo.batch_size=null", "algo.epochs=1", "algo.td_lambda=0.65", "algo.dueling=true"
    )
    values = agent.algorithm.rollout_values(rollout)
    assert values.shape == (T + 1, 1, E, 3)
    singly = [agent.algorithm.q_values(rollout.observation[t]) for t in range(T + 1)]
    assert torch.allclose(values, torch.stack(singly), atol=1e-6)
    before = agent.algorithm.learners["q"].parameters.values.clone()
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    assert not torch.equal(before, agent.algorithm.learners["q"].parameters.values)


def test_a_session_that_has_stopped_is_not_touched() -> None:
    agent, rollout = horizon(*OVERRIDES, "algo.batch_size=7")
    before = agent.algorithm.learners["q"].parameters.values.clone()
    agent.algorithm.active[0] = 0.0
    rollout.reward[:] = float("nan")
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    assert torch.equal(agent.algorithm.learners["q"].parameters.values, before)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("algo.batch_size=100", "algo.batch_size=100 does not divide the rollout of 256 samples"),
        ("algo.lr=0", "algo.lr must be a number above 0"),
        ("algo.optimizer.name=adan", "Did you mean 'adam'"),
    ],
)
def test_mistakes_are_refused(mistake: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs("algo=pqn", "env=cartpole", "env.num_envs=8", "algo.horizon=32", mistake)


def test_several_choices_at_once_are_refused() -> None:
    done = lab("algo=pqn", "env=gymnasium", "env.id=tests.envs:Pair-v0")
    assert done.returncode == 2
    assert "algo=pqn supports Discrete actions only, and those of env.id=tests.envs:Pair-v0" in done.stderr
