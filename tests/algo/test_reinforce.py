"""REINFORCE: steps from whole episodes against a reference that goes through them one by one."""

from __future__ import annotations

import itertools

import pytest
import torch

from lab.env.vector import probe
from lab.errors import LabError
from lab.memory.rollout import Raw, Rollout, Statistics
from lab.training.agent import Agent
from tests.algo.steps import made_up
from tests.algo.test_learning_step import ENTROPY, GAMMA, LR, NORM, VALUE, E, Reference, T, same_weights, step
from tests.helpers import specs

HORIZONS, KEPT = 20, 66  # 66 is the least that whole horizons of 6 make of 64


def make(algo: str, env: str, *overrides: str) -> tuple[Agent, Rollout]:
    """Return an agent, and the steps of many horizons, some of whose episodes are longer than what is kept."""
    settings = (
        f"algo={algo}", f"env={env}", f"algo.horizon={T}", f"env.num_envs={E}", f"algo.gamma={GAMMA}", f"algo.lr={LR}",
        f"algo.entropy_coef={ENTROPY}", f"algo.value_coef={VALUE}", f"algo.optimizer.max_grad_norm={NORM}", "~tuned",
        "net.hidden=[8]", "net.activation=tanh", "algo.policy_gain=1.0", "seed=3",
    )  # fmt: skip
    made = specs(*settings, *overrides)
    spaces = probe(made[0].env)
    agent = Agent(made, spaces, torch.device("cpu"))
    agent.algorithm.allocate(E)
    return agent, made_up(agent, spaces, T * HORIZONS, E, 0.03)


def horizons(steps: Rollout) -> list[Rollout]:
    """Return the rollouts of the horizons with a learning step."""
    names = ("action", "reward", "terminated", "truncated", "valid")
    return [
        Rollout(
            observation=steps.observation[h * T : (h + 1) * T + 1],
            carry=steps.carry,
            **{name: getattr(steps, name)[h * T : (h + 1) * T] for name in names},
        )
        for h in range(HORIZONS)
    ]


def episodes(steps: Rollout, horizon: int) -> list[tuple[int, int, float]]:
    """Return step, environment and return of every step of the episodes that ended in a horizon, as far as kept."""
    actual = []
    newest = range(horizon * T, (horizon + 1) * T)
    for e, end in itertools.product(range(E), newest):
        if not steps.done[end, 0, e]:
            continue
        total, t = 0.0, end
        while t > newest.stop - KEPT - 1 and t >= 0 and steps.valid[t, 0, e] and (t == end or not steps.done[t, 0, e]):
            total = float(steps.reward[t, 0, e]) + GAMMA * total
            actual.append((t, e, total))
            t -= 1
    return actual


@pytest.mark.parametrize(
    ("env", "overrides"),
    [
        ("acrobot", ()),
        ("pendulum", ("algo.normalize_advantage=true",)),
        ("acrobot", ("algo.baseline=false",)),
    ],
)
def test_steps_from_whole_episodes(env: str, overrides: tuple[str, ...]) -> None:
    agent, steps = make("reinforce", env, *overrides, "algo.episode_steps=60")
    reference, num_updates, cut_off = Reference(agent), 0, 0
    optimizer = torch.optim.Adam(reference.parameters(), LR, eps=1e-5)
    for horizon, rollout in enumerate(horizons(steps)):
        actual = episodes(steps, horizon)
        metrics = agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
        assert metrics["steps"].tolist() == [float(bool(actual))]
        if actual:
            observation = torch.stack([steps.observation[t, 0, e] for t, e, _ in actual])
            action = torch.stack([steps.action[t, 0, e] for t, e, _ in actual])
            returns = torch.tensor([total for *_, total in actual])
            dist, loss, advantage = reference.dist(observation), torch.zeros(()), returns
            if agent.algorithm.has_value:
                value = reference.value(observation)
                advantage, loss = returns - value.detach(), VALUE * 0.5 * (value - returns).square().mean()
            if "algo.normalize_advantage=true" in overrides:
                advantage = (advantage - advantage.mean()) / (advantage.std(unbiased=False) + 1e-8)
            loss = loss - (dist.log_prob(action) * advantage).mean() - ENTROPY * dist.entropy().mean()
            step(reference, optimizer, loss)
            num_updates += 1
            cut_off += min(t for t, *_ in actual) == (horizon + 1) * T - KEPT
        same_weights(agent, reference)
    assert HORIZONS / 3 < num_updates < HORIZONS
    assert cut_off, "an episode is longer than what is kept"
    assert any("value" in name for name in agent.algorithm.weights(0)) == agent.algorithm.has_value


def test_without_an_episode_that_ended_nothing_changes() -> None:
    agent, steps = make("reinforce", "acrobot")
    learner = agent.algorithm.learners["agent"]
    rollouts = horizons(steps)
    for rollout in rollouts[:5]:
        agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
    before, state = learner.parameters.values.clone(), learner.optimizer.session(0)
    rollouts[5].terminated.zero_()
    rollouts[5].truncated.zero_()
    assert agent.algorithm.learn(rollouts[5], agent.streams, 0.0, diagnose=True)["steps"].tolist() == [0.0]
    assert torch.equal(learner.parameters.values, before)
    assert all(torch.equal(value, state[name]) for name, value in learner.optimizer.session(0).items())


def test_episodes_that_environments_broke_off_are_left_out() -> None:
    agent, steps = make("reinforce", "acrobot", "algo.baseline=false")
    steps.terminated.zero_()
    steps.truncated.zero_()
    steps.valid.fill_(1.0)
    rollouts = horizons(steps)
    rollouts[2].terminated[-1] = 1.0
    for rollout in rollouts[:3]:
        if rollout is rollouts[1]:
            agent.algorithm.replay.cut_episodes(0)
        agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
    reference, _ = make("reinforce", "acrobot", "algo.baseline=false")
    for rollout in rollouts[1:3]:
        reference.algorithm.learn(rollout, reference.streams, 0.0, diagnose=False)
    values = [each.algorithm.learners["agent"].parameters.values for each in (agent, reference)]
    assert torch.allclose(*values, atol=1e-7)


def test_its_numbers_are_not_those_of_a2c() -> None:
    ours, steps = make("reinforce", "acrobot")
    theirs, _ = make("a2c", "acrobot", "algo.gae_lambda=1", f"algo.n_step={T}")
    for rollout in horizons(steps)[:4]:
        for agent in (ours, theirs):
            agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
    one, other = (agent.algorithm.learners["agent"].parameters.values for agent in (ours, theirs))
    assert not torch.allclose(one, other, atol=1e-3)


def test_rewards_of_earlier_horizons_are_scaled_by_the_statistics_of_now() -> None:
    agent, steps = make("reinforce", "acrobot", "algo.baseline=false")
    learner = agent.algorithm.learners["agent"]
    weights, state = learner.parameters.values.clone(), learner.optimizer.session(0)
    for index, rollout in enumerate(horizons(steps)[:6]):
        now = Statistics(1.0, reward_deviation=torch.tensor([[0.5 + index]]))
        rollout.raw = Raw(rollout.observation, rollout.reward, now)
        rollout.reward = torch.full_like(rollout.reward, float("nan"))
        agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
        # The same as if all rewards had been scaled by these statistics from the start.
        other, scaled = make("reinforce", "acrobot", "algo.baseline=false")
        scaled.reward = (steps.reward / (0.5 + index)).clamp(-1, 1)
        *earlier, last = horizons(scaled)[: index + 1]
        for before in earlier:
            other.algorithm.replay.add(before)
        other.algorithm.learners["agent"].parameters.values.copy_(weights)
        other.algorithm.learners["agent"].optimizer.restore(0, state)
        other.algorithm.learn(last, other.streams, 0.0, diagnose=False)
        assert torch.equal(other.algorithm.learners["agent"].parameters.values, learner.parameters.values)
        weights, state = learner.parameters.values.clone(), learner.optimizer.session(0)


def test_values_that_are_not_allowed() -> None:
    with pytest.raises(LabError, match=r"algo.episode_steps must be a whole number, 1 or more"):
        specs("algo=reinforce", "algo.episode_steps=0")
