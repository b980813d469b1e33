"""Learning steps of DQN against a reference written from the papers, with plain networks and loops."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lab.env.vector import Environments, probe
from lab.errors import LabError
from lab.memory.replay import Batch
from lab.training.agent import Agent
from lab.training.collect import Collector
from tests.helpers import specs

GAMMA, LR, NORM, B = 0.9, 1e-2, 0.5, 32


def make(*overrides: str) -> Agent:
    settings = (
        "algo=dqn", "env=acrobot", "~tuned", "env.num_envs=2", "net.hidden=[8]", "algo.horizon=4", f"algo.lr={LR}",
        f"algo.gamma={GAMMA}", f"algo.optimizer.max_grad_norm={NORM}", f"algo.batch_size={B}",
        "algo.learning_starts=1000",
        "algo.target_update_interval=1", "algo.tau=0.25", "env.max_episode_steps=9", "seed=3",
    )  # fmt: skip
    made = specs(*settings, *overrides)
    agent = Agent(made, probe(made[0].env), torch.device("cpu"))
    agent.algorithm.allocate(2)
    collector = Collector(agent, [Environments(made[0].env, 2, agent.streams[0].environments)])
    for _ in range(9):
        agent.algorithm.learn(collector.collect(), agent.streams, 0.0, diagnose=False)
    return agent


def gradient_step(agent: Agent, uniforms: np.ndarray) -> tuple[Batch, np.ndarray, dict[str, torch.Tensor]]:
    """Take a gradient step, and return the minibatch, its positions and metrics."""
    algorithm, replay = agent.algorithm, agent.algorithm.replay
    assert replay
    batch, position = replay.sample(uniforms, algorithm.gamma, 0.5)
    algorithm.num_updates += 1
    noise = algorithm.draw_update_noise(agent.streams)
    metrics, errors = algorithm.update(batch, noise, algorithm.active, diagnose=True)
    algorithm.update_targets(algorithm.active)
    replay.update_priorities(position, errors)
    return batch, position, metrics


class Reference(nn.Module):
    """The same network from torch's own layers: [B, D] to values, or atoms, [B, A, N]."""

    def __init__(self, values: dict[str, torch.Tensor], prefix: str, atoms: int) -> None:
        super().__init__()
        self.atoms, self.nets = atoms, nn.ModuleDict()
        for name in ("advantage", "value"):
            if f"{prefix}.heads.{name}.weight" not in values:
                continue
            layers: list[nn.Module] = []
            for layer in (f"{prefix}.trunks.{name}.0", f"{prefix}.heads.{name}"):
                weight, bias = values[f"{layer}.weight"], values[f"{layer}.bias"]
                weight = weight if bias.shape[1] < 16 else weight.T
                linear = nn.Linear(weight.shape[1], weight.shape[0])
                linear.weight.data, linear.bias.data = weight.clone(), bias[0].clone()
                layers += [linear, nn.ReLU()]
            self.nets[name] = nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        advantage = self.nets["advantage"](x).view(len(x), -1, self.atoms)
        if "value" not in self.nets:
            return advantage
        return self.nets["value"](x).view(len(x), 1, self.atoms) + advantage - advantage.mean(1, keepdim=True)


def loss_of(online: Reference, target: Reference, batch: Batch, kind: str, double: bool) -> tuple[torch.Tensor, list]:
    support = torch.linspace(-4, 4, online.atoms)
    losses, errors = [], []
    for b in range(B):
        observation, after = batch.observation[0, b : b + 1], batch.next_observation[0, b : b + 1]
        reward, discount, action = (float(x[0, b]) for x in (batch.reward, batch.discount, batch.action))
        current = online(observation)[0, int(action)]
        with torch.no_grad():
            following, chooser = target(after)[0], (online if double else target)(after)[0]
            if kind == "categorical":
                best = int((chooser.softmax(-1) * support).sum(-1).argmax())
                probabilities = following[best].softmax(-1)
                wanted = torch.zeros(online.atoms)
                for j in range(online.atoms):
                    position = (min(max(reward + discount * float(support[j]), -4), 4) + 4) / (8 / (online.atoms - 1))
                    for i in range(online.atoms):
                        wanted[i] += max(0.0, 1 - abs(position - i)) * probabilities[j]
            else:
                best = int(chooser.mean(-1).argmax())
                wanted = reward + discount * following[best]
        if kind == "categorical":
            loss = -(wanted * current.log_softmax(-1)).sum()
            error = float(loss.detach())
        elif kind == "quantile":
            loss = torch.zeros(())
            for i in range(online.atoms):
                for j in range(online.atoms):
                    u = wanted[j] - current[i]
                    tau = (i + 0.5) / online.atoms
                    huber = 0.5 * u * u if abs(float(u.detach())) <= 1 else u.abs() - 0.5
                    loss = loss + abs(tau - float(u.detach() < 0)) * huber / online.atoms
            error = float(wanted.mean() - current.detach().mean())
        else:
            error = float(current[0].detach() - wanted[0])
            difference = (current - wanted)[0]
            loss = 0.5 * difference**2 if abs(error) <= 1 or kind == "mse" else difference.abs() - 0.5
            loss = 2 * loss if kind == "mse" else loss
        losses.append(loss * batch.weight[0, b])
        errors.append(abs(error))
    return torch.stack(losses).sum(), errors


@pytest.mark.parametrize("kind", ["huber", "mse", "categorical", "quantile"])
@pytest.mark.parametrize("parts", [(), ("double", "dueling", "prioritized", "n")])
def test_two_learning_steps(kind: str, parts: tuple[str, ...]) -> None:
    overrides = ["algo.v_min=-4", "algo.v_max=4", "algo.atoms=5"]
    overrides += [f"algo.loss={kind}" if kind in ("huber", "mse") else f"algo.distribution={kind}"]
    overrides += [f"algo.{name}=true" for name in ("double", "dueling") if name in parts]
    overrides += ["algo.memory.prioritized=true", "algo.n_step=3"] if parts else []
    agent = make(*overrides)
    algorithm, atoms = agent.algorithm, 5 if kind in ("categorical", "quantile") else 1
    assert algorithm.replay
    values = algorithm.weights(0)
    online, target = Reference(values, "q", atoms), Reference(values, "target", atoms)
    optimizer = torch.optim.Adam(online.parameters(), LR)
    for seed in range(2):
        batch, position, metrics = gradient_step(agent, np.random.default_rng(seed).random((1, B)))
        loss, errors = loss_of(online, target, batch, kind, "double" in parts)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(online.parameters(), NORM)
        optimizer.step()
        for one, other in zip(target.parameters(), online.parameters(), strict=True):
            one.data.lerp_(other.data, 0.25)
        assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
        if parts:
            leaves = algorithm.replay._tree.leaves[0, position[0]]  # type: ignore[union-attr]
            wanted = dict(zip(position[0].tolist(), errors, strict=True))
            drawn = [(wanted[place] + 1e-3) ** 0.6 for place in position[0].tolist()]
            assert leaves[leaves > 0] == pytest.approx(np.array(drawn)[leaves > 0], rel=1e-3)
    actual = algorithm.weights(0)
    for prefix, reference in (("q", online), ("target", target)):
        again = Reference(actual, prefix, atoms)
        for (name, one), other in zip(again.named_parameters(), reference.parameters(), strict=True):
            assert torch.allclose(one, other, atol=2e-6), (prefix, name)


def test_noise_is_drawn_for_acting_and_learning_and_left_out_of_evaluation() -> None:
    agent = make("algo.noisy=true", "algo.exploration.start=0", "algo.exploration.final=0")
    algorithm = agent.algorithm
    observation, carry = torch.randn(1, 500, 6), torch.zeros(1, 500, 0)

    def acts() -> torch.Tensor:
        return algorithm.act(observation, algorithm.draw_noise(1, 500, agent.streams, 0.5)[0], carry)[0]

    assert not torch.equal(acts(), acts()), "noise explores"
    assert torch.equal(algorithm.act(observation, None, carry)[0], algorithm.act(observation, None, carry)[0])
    before = copy.deepcopy(algorithm.weights(0))
    gradient_step(agent, np.zeros((1, B)))
    changed = {name for name, value in algorithm.weights(0).items() if not torch.equal(value, before[name])}
    assert {name for name in changed if name.endswith("sigma")} == {
        f"{network}.heads.advantage.{part}_sigma" for network in ("q", "target") for part in ("weight", "bias")
    }


def test_nothing_is_learned_before_it_is_to_start() -> None:
    before, waiting, after = (
        make(f"algo.learning_starts={starts}").algorithm.weights(0) for starts in (1000, 73, 72)
    )  # 72 frames are collected
    assert all(torch.equal(before[name], waiting[name]) for name in before)
    assert not any(torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))


def test_a_copied_target_waits_for_its_step() -> None:
    agent = make("algo.target_update_interval=3", "algo.tau=1.0")
    algorithm = agent.algorithm

    def same() -> bool:
        values = algorithm.weights(0)
        return all(torch.equal(values[name], values[f"target{name[1:]}"]) for name in values if name.startswith("q."))

    actual = []
    for _ in range(6):
        gradient_step(agent, np.zeros((1, B)))
        actual.append(same())
    assert actual == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("algo.distribution=gaussian",), "algo.distribution=gaussian"),
        (("algo.v_max=-200",), r"algo.v_max=-200.0 .* above algo.v_min=-100.0"),
        (("algo.target_update_interval=0",), "algo.target_update_interval=0"),
        (("algo.memory.size=3",), "algo.memory.size=3 .* 24 or more"),
        (("algo.gradient_steps=0",), "algo.gradient_steps=0"),
        (("algo.memory.dtype=int8",), "algo.memory.dtype=int8"),
    ],
)
def test_mistakes_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(LabError, match=message):
        specs("algo=dqn", *overrides)


def test_numbers_for_actions_are_refused() -> None:
    spec = specs("algo=dqn", "env=pendulum")[0]
    with pytest.raises(LabError, match=r"algo=dqn supports Discrete actions only, and those of env.id=Pendulum-v1"):
        spec.algo.check_spaces(probe(spec.env), spec.env)
