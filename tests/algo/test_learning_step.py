"""One call of `learn` by each algorithm against a reference written from the papers, with plain networks and loops."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lab.env.vector import probe
from lab.memory.rollout import Rollout
from lab.training.agent import Agent
from tests.algo.steps import made_up
from tests.helpers import specs

T, E = 6, 4
GAMMA, LAM, LR, CLIP, ENTROPY, VALUE, NORM = 0.9, 0.8, 1e-2, 0.2, 0.03, 0.4, 0.7


def make(algo: str, env: str, *overrides: str) -> tuple[Agent, Rollout]:
    settings = (
        f"algo.horizon={T}", f"env.num_envs={E}", f"algo.gamma={GAMMA}", f"algo.lr={LR}",
        "algo.optimizer.lr_schedule=constant",
        f"algo.entropy_coef={ENTROPY}", f"algo.value_coef={VALUE}", f"algo.optimizer.max_grad_norm={NORM}", "~tuned",
        "net.hidden=[8]", "net.activation=tanh", "algo.policy_gain=1.0", "env.normalize_observations=false",
    )  # fmt: skip
    made = specs(f"algo={algo}", f"env={env}", *settings, *overrides, "seed=3")
    spaces = probe(made[0].env)
    agent = Agent(made, spaces, torch.device("cpu"))
    return agent, made_up(agent, spaces, T, E)


class Reference(nn.Module):
    """The same networks from torch's own layers."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        values = agent.algorithm.weights(0)
        self.nets = nn.ModuleDict()
        for name in ("policy", "value") if agent.algorithm.has_value else ("policy",):
            layers: list[nn.Module] = []
            for prefix in (f"network.trunks.{name}.0", f"network.heads.{name}"):
                weight, bias = values[f"{prefix}.weight"], values[f"{prefix}.bias"]
                if weight.shape[1] == bias.shape[1] and weight.shape[0] != bias.shape[1]:
                    weight = weight.T
                layer = nn.Linear(weight.shape[1], weight.shape[0])
                layer.weight.data, layer.bias.data = weight.clone(), bias[0].clone()
                layers += [layer, nn.Tanh()]
            self.nets[name] = nn.Sequential(*layers[:-1])
        self.log_std = nn.Parameter(values["head.log_std"][0].clone()) if "head.log_std" in values else None

    def dist(self, observation: torch.Tensor) -> torch.distributions.Distribution:
        output = self.nets["policy"](observation)
        if self.log_std is None:
            return torch.distributions.Categorical(logits=output)
        return torch.distributions.Independent(torch.distributions.Normal(output, self.log_std.exp()), 1)

    def value(self, observation: torch.Tensor) -> torch.Tensor:
        return self.nets["value"](observation)[..., 0]


def advantages(rollout: Rollout, value: torch.Tensor, lambda_: float) -> torch.Tensor:
    """GAE one environment and one step at a time."""
    result = torch.zeros(T, E)
    for e in range(E):
        following = 0.0
        for t in reversed(range(T)):
            going = 1 - float(rollout.terminated[t, 0, e])
            error = rollout.reward[t, 0, e] + GAMMA * going * value[t + 1, e] - value[t, e]
            linked = going * (1 - float(rollout.truncated[t, 0, e]))
            following = float(error) + GAMMA * lambda_ * linked * following
            result[t, e] = following
    return result


def objective(reference, observation, action, advantage, returns, old=None, value_old=None, value_clip=None):
    dist, value = reference.dist(observation), reference.value(observation)
    log_prob = dist.log_prob(action)
    if old is None:
        policy_loss = -(log_prob * advantage).mean()
    else:
        ratio = (log_prob - old).exp()
        policy_loss = -torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
    error = (value - returns) ** 2
    if value_clip is not None:
        near = value_old + (value - value_old).clamp(-value_clip, value_clip)
        error = torch.max(error, (near - returns) ** 2)
    return policy_loss + VALUE * 0.5 * error.mean() - ENTROPY * dist.entropy().mean()


def step(reference: Reference, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(reference.parameters(), NORM)
    optimizer.step()


def same_weights(agent: Agent, reference: Reference) -> None:
    after = Reference(agent)
    for (name, ours), theirs in zip(after.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-6), f"{name}: {(ours - theirs).abs().max()}"


@pytest.mark.parametrize("env", ["acrobot", "pendulum"])
def test_one_step_of_the_policy_gradient(env: str) -> None:
    agent, rollout = make("a2c", env, f"algo.gae_lambda={LAM}", f"algo.n_step={T}")
    reference = Reference(agent)
    observation = rollout.observation[:, 0]
    value = reference.value(observation).detach()
    advantage = advantages(rollout, value, LAM)
    is_valid = rollout.valid[:, 0] > 0
    optimizer = torch.optim.Adam(reference.parameters(), LR, eps=1e-5)
    loss = objective(
        reference, observation[:-1][is_valid], rollout.action[:, 0][is_valid], advantage[is_valid],
        (advantage + value[:-1])[is_valid],
    )  # fmt: skip
    step(reference, optimizer, loss)
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    same_weights(agent, reference)


def test_a_session_that_has_stopped_is_not_touched_by_its_own_gradient() -> None:
    agent, rollout = make("a2c", "acrobot")
    algorithm = agent.algorithm
    before = algorithm.learners["agent"].parameters.values.clone()
    algorithm.active[0] = 0.0
    rollout.reward[:] = float("nan")
    algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    assert torch.equal(algorithm.learners["agent"].parameters.values, before)
    assert not any(value.isnan().any() for value in algorithm.learners["agent"].optimizer.session(0).values())


@pytest.mark.parametrize("env", ["acrobot", "pendulum"])
@pytest.mark.parametrize("value_clip", [None, 0.1])
def test_two_epochs_of_ppo(env: str, value_clip: float | None) -> None:
    clip = "null" if value_clip is None else value_clip
    overrides = [
        "algo.epochs=2",
        "algo.batch_size=8",
        f"algo.gae_lambda={LAM}",
        f"algo.clip_range={CLIP}",
        f"algo.clip_range_vf={clip}",
    ]
    agent, rollout = make("ppo", env, *overrides)
    reference = Reference(agent)
    observation = rollout.observation[:, 0]
    value = reference.value(observation).detach()
    advantage = advantages(rollout, value, LAM)

    def samples(steps: torch.Tensor) -> torch.Tensor:
        return steps.flatten(0, 1)

    o, a, adv = samples(observation[:-1]), samples(rollout.action[:, 0]), samples(advantage)
    returns, old_value = samples(advantage + value[:-1]), samples(value[:-1])
    is_valid = samples(rollout.valid[:, 0]) > 0
    old = reference.dist(o).log_prob(a).detach()
    optimizer = torch.optim.Adam(reference.parameters(), LR, eps=1e-5)
    stream = copy.deepcopy(agent.streams[0].minibatches)
    for _ in range(2):
        order = torch.from_numpy(stream.permutation(T * E))
        for chosen in order.split(8):
            chosen = chosen[is_valid[chosen]]
            target = adv[chosen]
            target = (target - target.mean()) / (target.std(unbiased=False) + 1e-8)
            loss = objective(
                reference, o[chosen], a[chosen], target, returns[chosen], old[chosen], old_value[chosen], value_clip
            )
            step(reference, optimizer, loss)
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    same_weights(agent, reference)


def test_a_kl_limit_ends_the_update_of_each_session_on_its_own() -> None:
    agent, rollout = make("ppo", "acrobot", "algo.epochs=5", "algo.batch_size=24", "algo.target_kl=1e-9", "algo.lr=0.1")
    single, _ = make("ppo", "acrobot", "algo.epochs=2", "algo.batch_size=24", "algo.lr=0.1")
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    single.algorithm.learn(rollout, single.streams, 0.0, diagnose=True)
    # The first epoch has a KL of 0 before its only step; the second is over the limit, and the last.
    assert torch.equal(
        agent.algorithm.learners["agent"].parameters.values, single.algorithm.learners["agent"].parameters.values
    )
