"""CrossQ: learning steps against a reference written from the paper, learning, and what it refuses."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions, nn

from lab.errors import LabError
from tests.algo.off_policy import BATCH, LR, drawn, is_valid, learned, make, optimizer_step
from tests.helpers import specs

TEMPERATURE, TEMPERATURE_LR, UPDATES = 0.4, 3e-2, 6


class Norm(nn.Module):
    """Batch normalization, of which the running moments are exponential averages."""

    def __init__(self, weights: dict[str, torch.Tensor], prefix: str) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(weights[f"{prefix}.{key}"][0].clone()) for key in ("weight", "bias"))
        self.mean, self.variance = (weights[f"{prefix}.{key}"][0].clone() for key in ("mean", "variance"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = x.mean(0), x.var(0, unbiased=False)
            self.mean, self.variance = (
                0.99 * old + 0.01 * new.detach() for old, new in ((self.mean, mean), (self.variance, variance))
            )
        return (x - mean) / (variance + 1e-3).sqrt() * self.weight + self.bias


class Dense(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor], prefix: str) -> None:
        super().__init__()
        weight, self.bias = weights[f"{prefix}.weight"], nn.Parameter(weights[f"{prefix}.bias"][0].clone())
        self.weight = nn.Parameter((weight if len(self.bias) < 16 else weight.T).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def network(weights: dict[str, torch.Tensor], prefix: str, output: str) -> nn.Sequential:
    trunk = f"{prefix}.trunks.{output}"
    layers = [Norm(weights, f"{trunk}.0"), Dense(weights, f"{trunk}.1"), nn.Tanh(), Norm(weights, f"{trunk}.3")]
    return nn.Sequential(*layers, Dense(weights, f"{prefix}.heads.{output}")).eval()


def networks(weights: dict[str, torch.Tensor]) -> dict[str, nn.Sequential]:
    twins = {twin: network(weights, f"critic.{twin}", "value") for twin in ("q1", "q2")}
    return {"actor": network(weights, "actor", "policy"), **twins}


class BoxActions:
    target = -1.0

    def draw(self, stream: np.random.Generator) -> np.ndarray:
        return stream.standard_normal((2, BATCH, 1), dtype=np.float32)

    def act(self, actor, observation, noise):
        mean, log_std = actor(observation).split(1, -1)
        before = mean + log_std.exp() * noise
        density = distributions.Normal(mean, log_std.exp()).log_prob(before)
        action = torch.tanh(before)
        return action, (density - (1 - action.square() + 1e-7).log()).sum(-1)

    def inputs(self, observation, action):
        return torch.cat([observation, action], -1)

    def gather_actions(self, values, action):
        return values[:, 0]

    def expectation(self, least, log_prob):
        return least[:, 0], log_prob


class DiscreteActions:
    target = 0.3 * math.log(3)

    def draw(self, stream: np.random.Generator) -> np.ndarray:
        return stream.standard_exponential((2, BATCH, 3), dtype=np.float32)

    def act(self, actor, observation, noise):
        return torch.zeros(len(observation)), actor(observation).log_softmax(-1)

    def inputs(self, observation, action):
        return observation

    def gather_actions(self, values, action):
        return values[torch.arange(len(action)), action]

    def expectation(self, least, log_prob):
        return (log_prob.exp() * least).sum(-1), (log_prob.exp() * log_prob).sum(-1)


@pytest.mark.parametrize(("env", "kind"), [("pendulum", BoxActions()), ("acrobot", DiscreteActions())])
def test_learning_steps(env: str, kind: BoxActions | DiscreteActions) -> None:
    overrides = (
        f"algo.temperature={TEMPERATURE}",
        f"algo.temperature_lr={TEMPERATURE_LR}",
        f"algo.gradient_steps={UPDATES}",
    )
    agent, rollout = make("crossq", env, *overrides)
    parts = networks(agent.algorithm.weights(0))
    actor, twins = parts["actor"], [parts["q1"], parts["q2"]]
    log_temperature = torch.tensor(math.log(TEMPERATURE), requires_grad=True)
    optimizers = [
        torch.optim.Adam([*twins[0].parameters(), *twins[1].parameters()], LR, betas=(0.5, 0.999)),
        torch.optim.Adam(actor.parameters(), LR, betas=(0.5, 0.999)),
        torch.optim.Adam([log_temperature], TEMPERATURE_LR, betas=(0.5, 0.999)),
    ]

    stream = copy.deepcopy(agent.streams[0].minibatches)
    uniforms = stream.random((UPDATES, BATCH))
    for step, row in enumerate(uniforms, start=1):
        observation, action, reward, discount, next_observation = drawn(rollout, row)
        next_noise, noise = (torch.from_numpy(part)[is_valid(rollout, row)] for part in kind.draw(stream))
        temperature = log_temperature.detach().exp()
        with torch.no_grad():
            next_action, log_prob = kind.act(actor, next_observation, next_noise)
        loss, halves = 0.0, []
        joint = torch.cat([kind.inputs(observation, action), kind.inputs(next_observation, next_action)])
        for twin in twins:
            halves.append(twin.train()(joint).split(len(action)))
            twin.eval()
        value, log_prob = kind.expectation(torch.min(halves[0][1], halves[1][1]).detach(), log_prob)
        target = reward + discount * (value - temperature * log_prob)
        for current, _ in halves:
            loss = loss + 0.5 * (kind.gather_actions(current, action) - target).square().mean()
        optimizer_step(optimizers[0], loss)
        if step % 3 == 0:
            proposed, log_prob = kind.act(actor.train(), observation, noise)
            actor.eval()
            least = torch.min(*(twin(kind.inputs(observation, proposed)) for twin in twins))
            if isinstance(kind, DiscreteActions):
                least = least.detach()
            value, log_prob = kind.expectation(least, log_prob)
            optimizer_step(optimizers[1], (temperature * log_prob - value).mean())
            optimizer_step(optimizers[2], -log_temperature * (log_prob.detach().mean() + kind.target))
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    for name, part in networks(agent.algorithm.weights(0)).items():
        for (key, ours), theirs in zip(part.named_parameters(), parts[name].parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=2e-5), f"{name}.{key}: {(ours - theirs).abs().max()}"
        for index in (0, 3):
            assert torch.allclose(part[index].mean, parts[name][index].mean, atol=1e-5)
            assert torch.allclose(part[index].variance, parts[name][index].variance, atol=1e-5)
    assert agent.algorithm.log_temperature.item() == pytest.approx(log_temperature.item(), abs=1e-5)


def test_there_are_no_targets_and_acting_changes_no_moment() -> None:
    agent, rollout = make("crossq", "pendulum")
    algorithm = agent.algorithm
    assert not algorithm.targets
    algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
    before = algorithm.weights(0)
    noise = algorithm.draw_noise(1, 4, agent.streams, 0.0)[0]
    algorithm.act(rollout.observation[0], noise, torch.zeros(1, 4, 0))
    after = algorithm.weights(0)
    assert any("variance" in name for name in before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


SMALL = ("algo=crossq", "algo.horizon=1", "env.num_envs=4", "algo.learning_starts=200", "algo.batch_size=64",
         "net.hidden=[32]", "env=gymnasium", "eval.episodes=20", "log.every=1000", "algo.lr=3e-3", "algo.gamma=0.5",
         "algo.gradient_steps=1", "algo.temperature=0.1", "frames=3000", "eval.every=3000")  # fmt: skip


def test_it_learns_box_actions(tmp_path: Path) -> None:
    assert learned(tmp_path, *SMALL, "env.id=tests.envs:Target-v0") > -2.5


def test_it_learns_discrete_actions(tmp_path: Path) -> None:
    assert learned(tmp_path, *SMALL, "env.id=tests.envs:Highest-v0") == 8.0


def test_batches_are_corrected_after_the_warmup_and_not_before() -> None:
    def weights(warmup: int, calls: int) -> torch.Tensor:
        agent, rollout = make("crossq", "pendulum", f"algo.norm_warmup={warmup}", "algo.gradient_steps=3")
        for _ in range(calls):
            agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=False)
        return agent.algorithm.learners["critic"].parameters.values

    assert torch.equal(weights(6, 2), weights(100_000, 2))
    assert not torch.equal(weights(5, 2), weights(100_000, 2))
    assert not torch.equal(weights(6, 3), weights(100_000, 3))


def test_values_that_are_not_allowed() -> None:
    with pytest.raises(LabError, match=r"algo.norm_warmup must be a whole number, 0 or more"):
        specs("algo=crossq", "algo.norm_warmup=-1")
    with pytest.raises(LabError, match=r"algo.norm=batch is not allowed: algo.norm must be one of batch_renorm, layer"):
        specs("algo=crossq", "algo.norm=batch")
