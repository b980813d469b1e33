"""What the tests of algorithms with a replay memory share: a filled memory, plain networks, and how well one learns."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lab.env.vector import probe
from lab.memory.rollout import Rollout
from lab.training.agent import Agent
from tests.algo.steps import made_up
from tests.helpers import specs, train

T, E, BATCH = 6, 4, 16
GAMMA, LR = 0.9, 1e-2


def make(algo: str, env: str, *overrides: str) -> tuple[Agent, Rollout]:
    """Return an agent with small networks, and a rollout of random steps that its memory has room for."""
    settings = (
        f"algo.horizon={T}", f"env.num_envs={E}", f"algo.gamma={GAMMA}", f"algo.lr={LR}", f"algo.batch_size={BATCH}",
        "~tuned", "algo.learning_starts=0", "algo.memory.size=24", "net.hidden=[8]", "net.activation=tanh",
    )  # fmt: skip
    made = specs(f"algo={algo}", f"env={env}", *settings, *overrides, "seed=3")
    spaces = probe(made[0].env)
    agent = Agent(made, spaces, torch.device("cpu"))
    agent.algorithm.allocate(E)
    return agent, made_up(agent, spaces, T, E)


def optimizer_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Take a step of one of torch's optimizers."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def drawn(rollout: Rollout, uniforms: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return observation, action, reward, discount and next observation of the valid ones among drawn transitions."""
    chosen = [divmod(int(uniform * T * E), E) for uniform in uniforms]
    chosen = [(t, e) for t, e in chosen if rollout.valid[t, 0, e]]
    assert 0 < len(chosen) < len(uniforms)
    return (
        torch.stack([rollout.observation[t, 0, e] for t, e in chosen]),
        torch.stack([rollout.action[t, 0, e] for t, e in chosen]),
        torch.stack([rollout.reward[t, 0, e] for t, e in chosen]),
        torch.stack([GAMMA * (1 - rollout.terminated[t, 0, e]) for t, e in chosen]),
        torch.stack([rollout.observation[t + 1, 0, e] for t, e in chosen]),
    )


def is_valid(rollout: Rollout, uniforms: np.ndarray) -> torch.Tensor:
    """Say which of the drawn transitions are valid."""
    places = [divmod(int(uniform * T * E), E) for uniform in uniforms]
    return torch.tensor([bool(rollout.valid[t, 0, e]) for t, e in places])


def plain(weights: dict[str, torch.Tensor], trunk: str, head: str) -> nn.Sequential:
    """Return the network of one hidden layer, from torch's own layers, that has these weights."""
    layers: list[nn.Module] = []
    for prefix in (f"{trunk}.0", head):
        weight, bias = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
        width = bias.shape[1]
        transposed = width < 16  # as narrow layers are stored
        layer = nn.Linear(weight.shape[1] if transposed else weight.shape[0], width)
        layer.weight.data, layer.bias.data = (weight if transposed else weight.T).clone(), bias[0].clone()
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def plain_parts(agent: Agent) -> dict[str, nn.Sequential]:
    """Return the policy and both critics of an actor-critic algorithm, and their targets, as plain networks."""
    weights = agent.algorithm.weights(0)
    parts = {"actor": plain(weights, "actor.trunks.policy", "actor.heads.policy")}
    for group in ("critic", "target"):
        for twin in ("q1", "q2"):
            if f"{group}.{twin}.heads.value.weight" in weights:
                prefix = f"{group}.{twin}"
                parts[prefix] = plain(weights, f"{prefix}.trunks.value", f"{prefix}.heads.value")
    if "target_actor.heads.policy.weight" in weights:
        parts["target_actor"] = plain(weights, "target_actor.trunks.policy", "target_actor.heads.policy")
    return parts


def same(agent: Agent, parts: dict[str, nn.Sequential]) -> None:
    """Check that an agent's networks are those given."""
    for name, part in plain_parts(agent).items():
        for (key, ours), theirs in zip(part.named_parameters(), parts[name].parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=5e-6), f"{name}.{key}: {(ours - theirs).abs().max()}"


def polyak(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move by a fraction toward another network."""
    for mine, other in zip(target.parameters(), source.parameters(), strict=True):
        mine.data = (1 - rate) * mine.data + rate * other.data


def learned(tmp_path: Path, *overrides: str) -> float:
    """Train, and return the mean return of the last evaluation."""
    directory = train(tmp_path, *overrides)[0]
    assert directory.read_status()["error"] is None
    with directory.metrics.open() as file:
        return float([row["eval_return"] for row in csv.DictReader(file)][-1])
