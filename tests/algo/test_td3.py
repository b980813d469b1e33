"""TD3: learning steps against a reference written from the paper, learning, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lab.algo.td3 import add_noise
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

RATE, UPDATES, TARGET_NOISE, CLIP = 0.1, 5, 0.8, 0.5
OVERRIDES = (
    f"algo.target_policy_noise={TARGET_NOISE}", f"algo.target_noise_clip={CLIP}", f"algo.tau={RATE}",
    f"algo.gradient_steps={UPDATES}",
)  # fmt: skip


def test_learning_steps() -> None:
    agent, rollout = make("td3", "pendulum", *OVERRIDES)
    parts = plain_parts(agent)
    assert len(parts) == 6
    critics = nn.ModuleList([parts["critic.q1"], parts["critic.q2"]])
    of_critics = torch.optim.Adam(critics.parameters(), LR)
    of_actor = torch.optim.Adam(parts["actor"].parameters(), LR)

    def value(name: str, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return parts[name](torch.cat([observation, action], -1))[:, 0]

    stream = copy.deepcopy(agent.streams[0].minibatches)
    uniforms = stream.random((UPDATES, BATCH))
    clipped = 0
    for step, row in enumerate(uniforms, start=1):
        observation, action, reward, discount, next_observation = drawn(rollout, row)
        noise = stream.standard_normal((2, BATCH, 1), dtype=np.float32)[0]
        noise = TARGET_NOISE * torch.from_numpy(noise)[is_valid(rollout, row)]
        clipped += int((noise.abs() > CLIP).sum())
        with torch.no_grad():
            next_action = (torch.tanh(parts["target_actor"](next_observation)) + noise.clamp(-CLIP, CLIP)).clamp(-1, 1)
            least = torch.min(*(value(f"target.{twin}", next_observation, next_action) for twin in ("q1", "q2")))
            target = reward + discount * least
        loss = sum(
            0.5 * (value(f"critic.{twin}", observation, action) - target).square().mean() for twin in ("q1", "q2")
        )
        optimizer_step(of_critics, loss)
        if step % 2 == 0:
            optimizer_step(of_actor, -value("critic.q1", observation, torch.tanh(parts["actor"](observation))).mean())
            for name in ("actor", "critic.q1", "critic.q2"):
                target_name = "target_actor" if name == "actor" else name.replace("critic", "target")
                polyak(parts[target_name], parts[name], RATE)
    assert clipped > 5
    metrics = agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    same(agent, parts)
    assert set(agent.algorithm.METRICS) == set(metrics) - {"steps"}


def test_metrics_of_the_policy_are_those_of_its_last_step() -> None:
    agent, rollout = make("td3", "pendulum", "algo.gradient_steps=5", "algo.policy_delay=3")
    algorithm, seen = agent.algorithm, []
    original = algorithm.update_actor
    algorithm.update_actor = lambda *arguments: seen.append(original(*arguments)) or seen[-1]
    metrics = algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    assert len(seen) == 1
    assert torch.equal(metrics["actor_loss"], seen[0]["actor_loss"])
    assert metrics["steps"].tolist() == [5.0]


def test_the_delay_goes_on_where_it_was() -> None:
    agent, rollout = make("td3", "pendulum", "algo.gradient_steps=3")
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
    other, _ = make("td3", "pendulum")
    other.algorithm.restore(0, agent.algorithm.state(0))
    assert other.algorithm.num_updates == 3


def test_noise_explores_around_the_actions_of_the_policy() -> None:
    agent, rollout = make("td3", "pendulum", "algo.exploration_noise=0.2")
    algorithm, carry = agent.algorithm, torch.zeros(1, E, 0)
    noise = algorithm.draw_noise(2000, E, agent.streams, 0.0)
    best = algorithm.act(rollout.observation[0], None, carry)[0]
    actions = torch.stack([algorithm.act(rollout.observation[0], part, carry)[0] for part in noise])
    assert float((actions - best).std()) == pytest.approx(0.2, abs=0.01)
    assert torch.allclose(actions.mean(0), best, atol=0.02)


def test_disturbed_actions_stay_between_their_bounds() -> None:
    actual = add_noise(torch.tensor([0.9, -0.9, 0.5]), torch.tensor([0.3, -0.3, 0.25]))
    assert actual.tolist() == [1.0, -1.0, 0.75]


def test_it_learns(tmp_path: Path) -> None:
    overrides = ("algo=td3", "algo.horizon=1", "env.num_envs=4", "algo.learning_starts=200", "algo.batch_size=64",
             "net.hidden=[32]", "env=gymnasium", "eval.episodes=20", "log.every=1000", "algo.lr=3e-3",
             "algo.gamma=0.5", "algo.gradient_steps=1", "frames=3000", "eval.every=3000")  # fmt: skip
    assert learned(tmp_path, *overrides, "env.id=tests.envs:Target-v0") > -2.0


@pytest.mark.parametrize(
    ("word", "sentence"),
    {
        "algo.exploration_noise=-1": "algo.exploration_noise must be a number, 0 or more",
        "algo.target_policy_noise=-1": "algo.target_policy_noise must be a number, 0 or more",
        "algo.target_noise_clip=-1": "algo.target_noise_clip must be a number, 0 or more",
        "algo.tau=2": "algo.tau must be a number above 0, up to 1",
    }.items(),
)
def test_values_that_are_not_allowed(word: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs("algo=td3", word)


@pytest.mark.parametrize("env", ["CartPole-v1", "tests.envs:Single-v0"])
def test_actions_that_it_cannot_serve(env: str) -> None:
    spec = specs("algo=td3", "env=gymnasium", f"env.id={env}")[0]
    with pytest.raises(LabError, match=r"algo=td3 supports bounded Box actions only"):
        spec.algo.check_spaces(probe(spec.env), spec.env)
