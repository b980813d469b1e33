"""SAC: learning steps against a reference written from the papers, learning, and what it refuses."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions, nn

from lab.env.spec import EnvSpec
from lab.env.vector import probe
from lab.errors import LabError
from tests.algo.off_policy import (
    BATCH,
    LR,
    E,
    drawn,
    is_valid,
    learned,
    make,
    optimizer_step,
    plain_parts,
    polyak,
    same,
)
from tests.helpers import specs

TEMPERATURE, TEMPERATURE_LR, RATE, UPDATES = 0.4, 3e-2, 0.1, 4
OVERRIDES = (
    f"algo.temperature={TEMPERATURE}", f"algo.temperature_lr={TEMPERATURE_LR}", f"algo.tau={RATE}",
    f"algo.gradient_steps={UPDATES}", "algo.policy_delay=2",
)  # fmt: skip


class BoxActions:
    """Draws of actions by a squashed normal distribution, from torch's own."""

    target = -1.0

    def draw(self, stream: np.random.Generator) -> np.ndarray:
        return stream.standard_normal((2, BATCH, 1), dtype=np.float32)

    def value_and_log_prob(self, parts, group, observation, noise):
        mean, log_std = parts["actor"](observation).split(1, -1)
        normal = distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        squashed = distributions.TransformedDistribution(normal, distributions.TanhTransform(cache_size=1))
        action = squashed.transforms[0](mean + normal.scale * noise)
        value = torch.min(*(q[:, 0] for q in self.values(parts, group, observation, action)))
        return value, squashed.log_prob(action).sum(-1)

    def values(self, parts, group, observation, action):
        both = torch.cat([observation, action], -1)
        return [parts[f"{group}.{twin}"](both) for twin in ("q1", "q2")]

    def gather_actions(self, parts, observation, action):
        return [values[:, 0] for values in self.values(parts, "critic", observation, action)]


class DiscreteActions:
    """Expectations over all choices, one after the other."""

    target = 0.7 * math.log(3)

    def draw(self, stream: np.random.Generator) -> np.ndarray:
        return stream.standard_exponential((2, BATCH, 3), dtype=np.float32)

    def value_and_log_prob(self, parts, group, observation, noise):
        probabilities = parts["actor"](observation).softmax(-1)
        q1, q2 = (parts[f"{group}.{twin}"](observation) for twin in ("q1", "q2"))
        value, log_prob = 0.0, 0.0
        for a in range(3):
            value = value + probabilities[:, a] * torch.min(q1[:, a], q2[:, a])
            log_prob = log_prob + probabilities[:, a] * probabilities[:, a].log()
        return value, log_prob

    def gather_actions(self, parts, observation, action):
        values = (parts[f"critic.{twin}"](observation) for twin in ("q1", "q2"))
        return [value[torch.arange(len(action)), action] for value in values]


@pytest.mark.parametrize("learn_temperature", [True, False])
@pytest.mark.parametrize(("env", "kind"), [("pendulum", BoxActions()), ("acrobot", DiscreteActions())])
def test_learning_steps(env: str, kind: BoxActions | DiscreteActions, learn_temperature: bool) -> None:
    overrides = [
        *OVERRIDES,
        "algo.target_entropy_fraction=0.7",
        f"algo.learn_temperature={str(learn_temperature).lower()}",
    ]
    agent, rollout = make("sac", env, *overrides)
    parts = plain_parts(agent)
    critics = nn.ModuleList([parts["critic.q1"], parts["critic.q2"]])
    log_temperature = torch.tensor(math.log(TEMPERATURE), requires_grad=True)
    optimizers = [
        torch.optim.Adam(critics.parameters(), LR),
        torch.optim.Adam(parts["actor"].parameters(), LR),
        torch.optim.Adam([log_temperature], TEMPERATURE_LR),
    ]

    stream = copy.deepcopy(agent.streams[0].minibatches)
    uniforms = stream.random((UPDATES, BATCH))
    for step, row in enumerate(uniforms, start=1):
        valid = is_valid(rollout, row)
        observation, action, reward, discount, next_observation = drawn(rollout, row)
        next_noise, noise = (torch.from_numpy(part)[valid] for part in kind.draw(stream))
        temperature = float(log_temperature.detach().exp())
        with torch.no_grad():
            value, log_prob = kind.value_and_log_prob(parts, "target", next_observation, next_noise)
            target = reward + discount * (value - temperature * log_prob)
        loss = sum(
            0.5 * (values - target).square().mean() for values in kind.gather_actions(parts, observation, action)
        )
        optimizer_step(optimizers[0], loss)
        if step % 2 == 0:
            value, log_prob = kind.value_and_log_prob(parts, "critic", observation, noise)
            optimizer_step(optimizers[1], (temperature * log_prob - value).mean())
            if learn_temperature:
                optimizer_step(optimizers[2], -log_temperature * (log_prob.detach().mean() + kind.target))
        for twin in ("q1", "q2"):
            polyak(parts[f"target.{twin}"], parts[f"critic.{twin}"], RATE)
    metrics = agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    same(agent, parts)
    assert agent.algorithm.log_temperature.item() == pytest.approx(log_temperature.item(), abs=1e-5)
    assert metrics["steps"].tolist() == [UPDATES]
    assert set(agent.algorithm.METRICS) == set(metrics) - {"steps"}


def test_the_gradient_of_the_policy_leaves_the_critics_alone() -> None:
    agent, rollout = make("sac", "pendulum")
    algorithm = agent.algorithm
    algorithm.replay.add(rollout)
    batch, _ = algorithm.replay.sample(np.random.default_rng(0).random((1, BATCH)), 0.9, 0.0)
    before = algorithm.learners["critic"].parameters.values.clone()
    policy = algorithm.learners["actor"].parameters.values.clone()
    algorithm.update_actor(batch, torch.randn(1, BATCH, 1), torch.ones(1, 1))
    assert torch.equal(algorithm.learners["critic"].parameters.values, before)
    assert not torch.equal(algorithm.learners["actor"].parameters.values, policy)


def test_actions_are_random_before_learning_starts_and_those_of_the_policy_after() -> None:
    agent, rollout = make("sac", "pendulum", "algo.learning_starts=48")
    algorithm, carry = agent.algorithm, torch.zeros(1, E, 0)
    assert algorithm.is_warming_up
    noise = algorithm.draw_noise(400, E, agent.streams, 0.0)
    actions = torch.stack([algorithm.act(rollout.observation[0], part, carry)[0] for part in noise])
    assert actions.min() < -0.95
    assert actions.max() > 0.95
    assert abs(float(actions.mean())) < 0.05
    assert float(actions.var()) == pytest.approx(1 / 3, abs=0.03), "that of an even distribution"
    assert torch.equal(algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)["steps"], torch.zeros(1))
    algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
    assert not algorithm.is_warming_up
    noise = algorithm.draw_noise(1, E, agent.streams, 0.0)[0]
    chosen = algorithm.act(rollout.observation[0], noise, carry)[0]
    assert torch.equal(chosen, algorithm.choose(rollout.observation[0], noise, None)[0].detach())
    best = algorithm.act(rollout.observation[0], None, carry)[0]
    assert torch.equal(best, algorithm.choose(rollout.observation[0], None, None)[0])


def test_choices_are_even_before_learning_starts() -> None:
    agent, rollout = make("sac", "acrobot", "algo.learning_starts=48")
    noise = agent.algorithm.draw_noise(1000, E, agent.streams, 0.0)
    actions = torch.stack(
        [agent.algorithm.act(rollout.observation[0], part, torch.zeros(1, E, 0))[0] for part in noise]
    )
    assert torch.bincount(actions.flatten(), minlength=3).tolist() == pytest.approx([4000 / 3] * 3, rel=0.1)


def test_twins_have_trunks_of_their_own_however_the_net_shares_its() -> None:
    agent, _ = make("sac", "pendulum", "net.shared=true")
    weights = agent.algorithm.weights(0)
    first, second = (weights[f"critic.{twin}.trunks.value.0.weight"] for twin in ("q1", "q2"))
    assert first.shape == second.shape == (8, 4)
    assert not torch.equal(first, second)


def test_prioritized_replay_is_told_the_errors_of_both_critics() -> None:
    agent, rollout = make(
        "sac", "pendulum", "algo.memory.prioritized=true", "algo.memory.combined=true", "algo.n_step=2"
    )
    seen = []
    replay = agent.algorithm.replay
    original = replay.update_priorities
    replay.update_priorities = lambda position, errors: (seen.append(errors), original(position, errors))
    metrics = agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    assert len(seen) == 4
    assert all(errors.shape == (1, BATCH) and (errors >= 0).all() for errors in seen)
    assert len({round(float(leaf), 6) for leaf in replay._tree.leaves[0] if leaf > 0}) > 5
    assert metrics["td_error"] > 0


SMALL = ("algo.horizon=1", "env.num_envs=4", "algo.learning_starts=200", "algo.batch_size=64", "net.hidden=[32]",
         "env=gymnasium", "eval.episodes=20", "log.every=1000")  # fmt: skip


def test_it_learns_box_actions(tmp_path: Path) -> None:
    overrides = (
        "algo=sac",
        *SMALL,
        "env.id=tests.envs:Target-v0",
        "algo.lr=3e-3",
        "algo.gamma=0.5",
        "algo.gradient_steps=1",
    )
    assert learned(tmp_path, *overrides, "algo.temperature=0.1", "frames=3000", "eval.every=3000") > -2.0


def test_it_learns_discrete_actions(tmp_path: Path) -> None:
    overrides = (
        "algo=sac",
        *SMALL,
        "env.id=tests.envs:Highest-v0",
        "algo.lr=3e-3",
        "algo.gamma=0.5",
        "algo.gradient_steps=1",
    )
    assert learned(tmp_path, *overrides, "algo.temperature=0.1", "frames=3000", "eval.every=3000") == 8.0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    {
        "algo.temperature=0": "algo.temperature=0 is not allowed: algo.temperature must be a number above 0",
        "algo.temperature_lr=0": "algo.temperature_lr must be a number above 0",
        "algo.target_entropy_fraction=1.1": "algo.target_entropy_fraction must be a number above 0, up to 1",
        "algo.tau=0": "algo.tau must be a number above 0, up to 1",
        "algo.policy_delay=0": "algo.policy_delay must be a whole number, 1 or more",
        "algo.lr=-1": "algo.lr must be a number above 0",
    }.items(),
)
def test_values_that_are_not_allowed(overrides: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs("algo=sac", overrides)


@pytest.mark.parametrize("env", ["Pair", "Single"])
def test_actions_that_it_cannot_serve(env: str) -> None:
    spec = specs("algo=sac", "env=gymnasium", f"env.id=tests.envs:{env}-v0")[0]
    assert isinstance(spec.env, EnvSpec)
    with pytest.raises(LabError, match=r"algo=sac supports Discrete and bounded Box actions only"):
        spec.algo.check_spaces(probe(spec.env), spec.env)
