"""Self-imitation: whole steps against a slow reference, and what it is for."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lab.algo.sil import SelfImitation
from lab.errors import LabError
from tests.algo.steps import E, T, horizon, plain
from tests.helpers import specs, train

GAMMA, LR, POLICY, VALUE, NORM = 0.9, 1e-2, 0.7, 0.3, 0.5
OFF = ("env=acrobot", f"algo.gamma={GAMMA}", f"algo.lr={LR}", f"algo.optimizer.max_grad_norm={NORM}")
PPO = ("algo.batch_size=14", "algo.epochs=2")
ON = (
    "algo.sil.gradient_steps=3",
    "algo.sil.batch_size=8",
    f"algo.sil.policy_coef={POLICY}",
    f"algo.sil.value_coef={VALUE}",
)
EVEN = ("algo.sil.memory.beta=0.4", "algo.sil.memory.beta_final=0.4")


def overrides(algo: str) -> tuple[str, ...]:
    return (f"algo={algo}", *OFF, *(PPO if algo == "ppo" else (f"algo.n_step={T}",)))


@pytest.mark.parametrize("prioritized", [True, False])
@pytest.mark.parametrize("algo", ["a2c", "ppo"])
def test_steps_of_self_imitation(algo: str, prioritized: bool) -> None:
    flag = f"algo.sil.memory.prioritized={str(prioritized).lower()}"
    agent, rollout = horizon(*overrides(algo), *ON, *EVEN, flag)
    usual, _ = horizon(*overrides(algo))
    agent.algorithm.allocate(E)
    with torch.no_grad():
        before = plain(agent, "value", "network")(rollout.observation[1:, 0])[..., 0]

    steps = usual.algorithm.learn(rollout, usual.streams, 0.0, diagnose=True)["steps"]
    stream = copy.deepcopy(usual.streams[0].minibatches)
    policy, value = (plain(usual, name, "network") for name in ("policy", "value"))
    state = usual.algorithm.learners["agent"].optimizer.session(0)
    metrics = agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)

    # Steps of finished episodes in the order of the memory, step by step and environment by environment.
    past: list[tuple[int, int, float]] = []
    for t in range(T):
        for e in range(E):
            total, factor = 0.0, 1.0
            for k in range(t, T):
                total += factor * float(rollout.reward[k, 0, e])
                factor *= GAMMA
                if rollout.done[k, 0, e]:
                    total += factor * float(before[k, e]) * (1 - float(rollout.terminated[k, 0, e]))
                    if rollout.valid[t, 0, e]:
                        past.append((t, e, total))
                    break
    assert 5 < len(past) < T * E

    optimizer = torch.optim.Adam([*policy.parameters(), *value.parameters()], LR, eps=1e-5)
    resume(optimizer, agent, state, steps, policy, value)
    priority = np.ones(len(past))
    for uniforms in stream.random((3, 8)):
        strata = (np.arange(8) + uniforms) / 8
        drawn = np.searchsorted(priority.cumsum(), strata * priority.sum(), side="right")
        probability = priority[drawn] / priority.sum()
        weight = torch.tensor((len(past) * probability) ** -0.4, dtype=torch.float32)
        weight /= weight.max()
        observation = torch.stack([rollout.observation[past[i][0], 0, past[i][1]] for i in drawn])
        action = torch.stack([rollout.action[past[i][0], 0, past[i][1]] for i in drawn])
        returns = torch.tensor([past[i][2] for i in drawn])
        better = (returns - value(observation)[:, 0]).clamp(min=0)
        log_prob = torch.distributions.Categorical(logits=policy(observation)).log_prob(action)
        loss = POLICY * (-log_prob * better.detach() * weight).mean() + VALUE * (0.5 * better**2 * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*policy.parameters(), *value.parameters()], NORM)
        optimizer.step()
        if prioritized:
            priority[drawn] = (better.detach().numpy().astype(np.float64) + 1e-6) ** 0.6
    for name, reference in (("policy", policy), ("value", value)):
        for ours, theirs in zip(plain(agent, name, "network").parameters(), reference.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=5e-6), (ours - theirs).abs().max()
    assert metrics["steps"].tolist() == [4.0 if algo == "a2c" else 7.0]
    assert 0 < metrics["sil_better_fraction"].item() <= 1


def resume(optimizer, agent, state, steps: torch.Tensor, policy: nn.Sequential, value: nn.Sequential) -> None:
    """Give an optimizer of torch the moments that ours had."""
    parameters = agent.algorithm.learners["agent"].parameters
    start = 0
    for name, leaf in parameters.named.items():
        size = leaf[0].numel()
        module = policy if ".policy." in name or name.endswith("policy") else value
        layer = module[2 if "heads" in name else 0]
        theirs = layer.weight if name.endswith("weight") else layer.bias
        moments = []
        for kind in ("mean", "square"):
            actual = state[kind][start : start + size].view(leaf.shape[1:])
            actual = actual[0] if theirs.ndim == 1 else actual
            moments.append((actual if actual.shape == theirs.shape else actual.T).clone().contiguous())
        optimizer.state[theirs] = {"step": steps[0].clone(), "exp_avg": moments[0], "exp_avg_sq": moments[1]}
        start += size + -size % 32


@pytest.mark.parametrize("algo", ["a2c", "ppo"])
def test_there_is_no_memory_no_metric_and_no_draw_without_it(algo: str) -> None:
    agent, rollout = horizon(*overrides(algo))
    agent.algorithm.allocate(E)
    assert agent.algorithm.replay is None
    assert not set(agent.algorithm.metrics) & set(SelfImitation.METRICS)
    assert not set(agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)) & set(SelfImitation.METRICS)
    assert set(horizon(*overrides(algo), *ON)[0].algorithm.metrics) >= set(SelfImitation.METRICS)


def test_nothing_is_imitated_before_an_episode_has_ended() -> None:
    agent, rollout = horizon(*overrides("a2c"), *ON)
    usual, _ = horizon(*overrides("a2c"))
    agent.algorithm.allocate(E)
    rollout.terminated.zero_()
    rollout.truncated.zero_()
    rollout.valid.fill_(1.0)
    metrics = [one.algorithm.learn(rollout, one.streams, 0.0, diagnose=True) for one in (agent, usual)]
    assert metrics[0]["steps"].tolist() == metrics[1]["steps"].tolist() == [1.0]
    values = [one.algorithm.learners["agent"].parameters.values for one in (agent, usual)]
    assert torch.equal(*values)


def test_returns_below_the_value_teach_nothing() -> None:
    agent, rollout = horizon(*overrides("a2c"), *ON, "algo.optimizer.name=sgd", "algo.optimizer.beta1=0")
    usual, _ = horizon(*overrides("a2c"), "algo.optimizer.name=sgd", "algo.optimizer.beta1=0")
    agent.algorithm.allocate(E)
    rollout.reward.fill_(-100.0)
    for one in (agent, usual):
        metrics = one.algorithm.learn(rollout, one.streams, 0.0, diagnose=True)
        if one is agent:
            assert [metrics[name].item() for name in SelfImitation.METRICS] == [0.0, 0.0, 0.0]
            assert metrics["steps"].tolist() == [4.0]
    assert torch.equal(*(one.algorithm.learners["agent"].parameters.values for one in (agent, usual)))


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("algo.sil.gradient_steps=-1", "algo.sil.gradient_steps must be a whole number, 0 or more"),
        ("algo.sil.batch_size=0", "algo.sil.batch_size must be a whole number, 1 or more"),
        ("algo.sil.memory.combined=true", "false, as the newest step has no return yet"),
        ("algo.sil.memory.alpha=2", "algo.sil.memory.alpha must be a number from 0 to 1"),
        ("algo.sil.memory.size=10", r"algo.sil.memory.size must be 1024 or more \(a horizon\)"),
    ],
)
def test_mistakes_are_refused(mistake: str, sentence: str) -> None:
    settings = ("algo.horizon=128", "algo.batch_size=128", "env.num_envs=8")
    changed = [] if mistake.startswith("algo.sil.gradient_steps") else ["algo.sil.gradient_steps=1"]
    with pytest.raises(LabError, match=sentence):
        specs("algo=ppo", "env=cartpole", *settings, *changed, mistake)


def test_it_learns_what_is_rarely_rewarded_sooner(tmp_path: Path) -> None:
    chosen = (
        "env=gymnasium", "env.id=tests.envs:Corridor-v0", "name=corridor", "algo=a2c", "algo.horizon=16",
        "algo.lr=2e-3", "algo.entropy_coef=0.01", "net.hidden=[16]", "frames=8000", "eval.every=0", "seed=[0,1,2,3]",
    )  # fmt: skip
    reached = {}
    for updates in (0, 4):
        directories = train(
            tmp_path / str(updates), *chosen, f"algo.sil.gradient_steps={updates}", "algo.sil.batch_size=64"
        )
        actual = [directory.episodes.read_text().splitlines()[-50:] for directory in directories]
        reached[updates] = [np.mean([float(row.split(",")[1]) for row in rows]) for rows in actual]
    assert min(reached[4]) > 0.8, reached
    assert np.mean(reached[0]) < 0.4, reached
