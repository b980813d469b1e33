"""A horizon of made-up steps, and networks from torch's own layers, for references of value-based algorithms."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from lab.env.vector import Spaces, probe
from lab.memory.rollout import Rollout
from lab.training.agent import Agent
from tests.helpers import specs

T, E = 7, 4


def horizon(*overrides: str, seed: int = 3) -> tuple[Agent, Rollout]:
    """Make an agent and a horizon of steps of which some end an episode, for either reason."""
    settings = (f"algo.horizon={T}", f"env.num_envs={E}", "~tuned", "net.hidden=[8]", "net.activation=tanh")
    made = specs(*settings, *overrides, f"seed={seed}")
    spaces = probe(made[0].env)
    agent = Agent(made, spaces, torch.device("cpu"))
    rng = np.random.default_rng(seed)
    size = spaces.observation.shape[0]
    ends = torch.tensor(rng.choice(3, size=(T, 1, E), p=[0.6, 0.2, 0.2]))
    valid = torch.cat([torch.ones(1, 1, E, dtype=torch.bool), ends[:-1] == 0])
    ends = ends * valid  # nothing ends in the step in which an environment is reset
    valid = torch.cat([torch.ones(1, 1, E, dtype=torch.bool), ends[:-1] == 0])
    rollout = Rollout(
        observation=torch.tensor(rng.standard_normal((T + 1, 1, E, size)), dtype=torch.float32),
        action=torch.tensor(rng.integers(int(spaces.action.n), size=(T, 1, E))),
        reward=torch.tensor(rng.standard_normal((T, 1, E)), dtype=torch.float32),
        terminated=(ends == 1).float(),
        truncated=(ends == 2).float(),
        valid=valid.float(),
        carry=torch.zeros(1, E, 0),
    )
    assert rollout.terminated.any() and rollout.truncated.any() and not rollout.valid.all()
    return agent, rollout


def made_up(agent: Agent, spaces: Spaces, steps: int, envs: int, end_probability: float = 0.4) -> Rollout:
    """Return random steps in which the agent chose the actions, and some end an episode, for either reason."""
    rng = np.random.default_rng(0)
    shape = (steps + 1, 1, envs, *spaces.observation.shape)
    observation = torch.tensor(rng.standard_normal(shape), dtype=torch.float32)
    noise, carry = agent.algorithm.draw_noise(steps, envs, agent.streams, 0.0), torch.zeros(1, envs, 0)
    action = torch.stack([agent.algorithm.act(observation[t], noise[t], carry)[0] for t in range(steps)])
    probabilities = [1 - end_probability, end_probability / 2, end_probability / 2]
    ends = torch.tensor(rng.choice(3, size=(steps, 1, envs), p=probabilities))
    valid = torch.cat([torch.ones(1, 1, envs, dtype=torch.bool), ~(ends > 0)[:-1]])
    return Rollout(
        observation=observation,
        action=action,
        reward=torch.tensor(rng.standard_normal((steps, 1, envs)), dtype=torch.float32) * valid,
        terminated=((ends == 1) & valid).float(),
        truncated=((ends == 2) & valid).float(),
        valid=valid.float(),
        carry=carry,
    )


def plain(agent: Agent, output: str = "advantage", prefix: str = "q") -> nn.Sequential:
    """Return one output of an agent's network, of one hidden layer, as torch's own layers."""
    values = agent.algorithm.weights(0)
    layers: list[nn.Module] = []
    for name in (f"{prefix}.trunks.{output}.0", f"{prefix}.heads.{output}"):
        weight, bias = values[f"{name}.weight"], values[f"{name}.bias"][0]
        layer = nn.Linear(weight.numel() // len(bias), len(bias))
        layer.weight.data = (weight if weight.shape == layer.weight.shape else weight.T).clone()
        layer.bias.data = bias.clone()
        layers.append(layer)
        if f"{prefix}.trunks.{output}.1.weight" in values and "trunks" in name:
            layers.append(nn.LayerNorm(len(bias)))
            for part in ("weight", "bias"):
                getattr(layers[-1], part).data = values[f"{prefix}.trunks.{output}.1.{part}"][0].clone()
        layers.append(nn.Tanh())
    return nn.Sequential(*layers[:-1])


def same(agent: Agent, reference: nn.Sequential) -> None:
    """Compare the network of an agent with a reference."""
    for ours, theirs in zip(plain(agent).parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-6), (ours - theirs).abs().max()


def forward_returns(rollout: Rollout, next_value: torch.Tensor, gamma: float, lambda_: float) -> torch.Tensor:
    """Return lambda-returns [T, E] as weighted sums of n-step returns (Sutton & Barto 2018, equation 12.3).

    Args:
        rollout: of one Session.
        next_value: what completes the return after each step, [T, E].
        gamma: discount.
        lambda_: decay of longer returns.
    """
    returns = torch.zeros(T, E)
    for e in range(E):
        for t in range(T):
            rewards, completed = 0.0, []
            for k in range(t, T):
                rewards += gamma ** (k - t) * float(rollout.reward[k, 0, e])
                going = 0.0 if rollout.terminated[k, 0, e] else 1.0
                completed.append(rewards + gamma ** (k - t + 1) * going * float(next_value[k, e]))
                if rollout.done[k, 0, e]:
                    break
            total = sum((1 - lambda_) * lambda_**n * value for n, value in enumerate(completed[:-1]))
            returns[t, e] = total + lambda_ ** (len(completed) - 1) * completed[-1]
    return returns


def minibatch_steps(
    agent: Agent,
    rollout: Rollout,
    returns: torch.Tensor,
    epochs: int,
    batch_size: int,
    lr: float,
    max_norm: float,
) -> nn.Sequential:
    """Return the network after steps down the squared error, in the order that the agent is about to draw."""
    reference = plain(agent)
    stream = copy.deepcopy(agent.streams[0].minibatches)
    optimizer = torch.optim.Adam(reference.parameters(), lr, eps=1e-5)
    observation, action = rollout.observation[:-1, 0].flatten(0, 1), rollout.action[:, 0].flatten()
    target, is_valid = returns.flatten(), rollout.valid[:, 0].flatten() > 0
    for _ in range(epochs):
        for chosen in torch.from_numpy(stream.permutation(T * E)).split(batch_size):
            chosen = chosen[is_valid[chosen]]
            value = reference(observation[chosen])[torch.arange(len(chosen)), action[chosen]]
            optimizer.zero_grad()
            (0.5 * (value - target[chosen]) ** 2).mean().backward()
            nn.utils.clip_grad_norm_(reference.parameters(), max_norm)
            optimizer.step()
    return reference
