"""SARSA against a slow reference, and its pieces by hand."""

from __future__ import annotations

import pytest
import torch

from lab.algo.exploration import ExplorationSpec
from lab.algo.samples import gather_actions
from lab.errors import LabError
from tests.algo.steps import E, T, forward_returns, horizon, minibatch_steps, plain, same
from tests.helpers import lab, specs

GAMMA, LR = 0.9, 1e-2
OVERRIDES = (
    "algo=sarsa", "env=acrobot", f"algo.gamma={GAMMA}", f"algo.lr={LR}", "algo.optimizer.max_grad_norm=0.5",
    "algo.epochs=1", "algo.batch_size=null",
    "algo.exploration.start=0.8", "algo.exploration.final=0.2", "algo.exploration.fraction=0.5",
)  # fmt: skip
EPSILON = 0.5  # in the middle of that schedule, at a quarter of the frames


def expectation(values: torch.Tensor) -> float:
    """The mean over what an epsilon-greedy policy would do, by the probability of each action."""
    probabilities = [EPSILON / len(values)] * len(values)
    probabilities[int(values.argmax())] += 1 - EPSILON
    return sum(p * float(value) for p, value in zip(probabilities, values, strict=True))


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_a_horizon_of_sarsa(lambda_: float, expected: bool) -> None:
    agent, rollout = horizon(*OVERRIDES, f"algo.td_lambda={lambda_}", f"algo.expected={str(expected).lower()}")
    with torch.no_grad():
        values = plain(agent)(rollout.observation[:, 0])
    next_value = torch.zeros(T, E)
    for t in range(T):
        for e in range(E):
            if expected or t == T - 1 or rollout.truncated[t, 0, e]:
                next_value[t, e] = expectation(values[t + 1, e])
            else:
                next_value[t, e] = values[t + 1, e, rollout.action[t + 1, 0, e]]
    returns = forward_returns(rollout, next_value, GAMMA, lambda_)
    reference = minibatch_steps(agent, rollout, returns, 1, T * E, LR, 0.5)
    metrics = agent.algorithm.learn(rollout, agent.streams, 0.25, diagnose=True)
    same(agent, reference)
    is_valid = rollout.valid[:, 0] > 0
    errors = (gather_actions(values[:-1], rollout.action[:, 0]) - returns)[is_valid]
    assert metrics["steps"].tolist() == [1.0]
    assert metrics["td_error"].item() == pytest.approx(errors.abs().mean().item(), abs=1e-5)
    assert metrics["q_loss"].item() == pytest.approx(0.5 * errors.square().mean().item(), abs=1e-5)
    assert metrics["exploration_rate"].item() == pytest.approx(EPSILON)


def test_steps_in_which_an_environment_was_reset_change_nothing() -> None:
    agents = []
    for reward in (0.0, 1e6):
        agent, rollout = horizon(*OVERRIDES)
        rollout.reward[rollout.valid == 0] = reward
        agent.algorithm.learn(rollout, agent.streams, 0.25, diagnose=True)
        agents.append(agent.algorithm.learners["q"].parameters.values)
    assert torch.equal(*agents)


def test_the_expectation_over_an_exploring_policy_by_hand() -> None:
    values = torch.tensor([[[1.0, 2.0, 6.0]], [[0.0, 0.0, 3.0]]])  # [S, E, A]
    degree = torch.tensor([[0.0], [0.5]])
    spec = ExplorationSpec("epsilon_greedy", degree, degree, "constant", torch.ones(2, 1), 1)
    assert spec.expectation(values, 0.3).tolist() == [[6.0], [pytest.approx(0.5 * 3 + 0.5 * 1)]]
    spec = ExplorationSpec("boltzmann", degree + 0.5, degree + 0.5, "constant", torch.ones(2, 1), 1)
    weights = torch.tensor([2.0, 4.0, 12.0]).exp()
    mean = float((weights * values[0, 0]).sum() / weights.sum())
    assert spec.expectation(values, 0.3)[0].tolist() == [pytest.approx(mean)]
    assert spec.expectation(values[None], 0.3).shape == (1, 2, 1)


def test_the_expectation_is_what_exploration_gives_on_average() -> None:
    agent, rollout = horizon(*OVERRIDES, "algo.horizon=2000")
    algorithm = agent.algorithm
    noise = algorithm.draw_noise(2000, E, agent.streams, 0.25)
    observation, carry = rollout.observation[0], torch.zeros(1, E, 0)
    values = algorithm.q_values(observation).detach()
    drawn = torch.stack([gather_actions(values, algorithm.act(observation, step, carry)[0]) for step in noise])
    expected = algorithm.exploration.expectation(values, 0.25)
    assert torch.allclose(drawn.mean(0), expected, atol=4 * float(drawn.std(0).max()) / 2000**0.5)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("algo.td_lambda=1.5", "algo.td_lambda=1.5 is not allowed: algo.td_lambda must be a number from 0 to 1"),
        ("algo.epochs=0", "algo.epochs must be a whole number, 1 or more"),
        ("algo.batch_size=5", "algo.batch_size=5 does not divide the rollout of 128 samples"),
        ("algo.exploration.start=2", "algo.exploration.start must be from 0 to 1"),
        ("algo.optimizer.max_grad_norm=0", "algo.optimizer.max_grad_norm must be a number above 0 or null"),
    ],
)
def test_mistakes_are_refused(mistake: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs("algo=sarsa", "env=cartpole", "env.num_envs=8", "algo.horizon=16", mistake)


def test_continuous_actions_are_refused() -> None:
    done = lab("algo=sarsa", "env=pendulum")
    assert done.returncode == 2
    assert "algo=sarsa supports Discrete actions only, and those of env.id=Pendulum-v1" in done.stderr
