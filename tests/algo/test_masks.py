"""Action masks in policies, action values and exploration, by hand, and that no invalid action is ever taken."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import tensor

from lab.common.streams import Streams
from lab.env.vector import probe
from lab.net.distribution import INVALID, ActionHead, mask_invalid
from lab.training.agent import Agent
from tests.helpers import ALGORITHMS, CHOICE, serves, specs, train

RULES = ("env=gymnasium", "env.id=tests.envs:Rules-v0", "name=rules", "env.action_mask=true", "algo.gamma=0.5")
ROW = tensor([[[1.0, 0, 1, 0, 1, 0.3, -0.2]]])  # a mask of five actions, and an observation of two numbers
VALID = ROW[..., :5]


def algorithm(*overrides: str) -> Any:
    spec = specs(*RULES, *overrides)[0]
    return Agent([spec], probe(spec.env), torch.device("cpu")).algorithm


def give(algorithm: Any, **outputs: list[float]) -> None:
    """Let a network return these outputs for every observation."""
    for name, values in outputs.items():
        head = algorithm.network.heads[name]
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(tensor(values).view_as(head.bias))


def test_a_policy_by_hand() -> None:
    policy = algorithm("algo=ppo").head.forward(tensor([[[math.log(2), 5.0, 0.0, 9.0, 0.0]]]), VALID)
    assert torch.allclose(policy.log_probs.exp(), tensor([[[0.5, 0, 0.25, 0, 0.25]]]))
    assert torch.allclose(policy.entropy(), tensor([[1.5 * math.log(2)]]))
    assert policy.mode().item() == 0
    assert policy.log_prob(tensor([[2]])).item() == pytest.approx(math.log(0.25))
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(algorithm("algo=ppo").head.noise(rng, (1, 4000)))
    drawn = policy.sample(noise)[0].bincount(minlength=5) / 4000
    assert torch.allclose(drawn, tensor([0.5, 0, 0.25, 0, 0.25]), atol=0.03)


def test_the_gradient_of_an_invalid_logit_is_zero() -> None:
    logits = torch.zeros(1, 1, 5, requires_grad=True)
    policy = algorithm("algo=ppo").head.forward(logits, VALID)
    (policy.log_prob(tensor([[0]])) + policy.entropy()).sum().backward()
    assert torch.allclose(logits.grad, tensor([[[2 / 3, 0, -1 / 3, 0, -1 / 3]]]))


def test_several_choices_have_a_mask_each() -> None:
    spec = specs("algo=ppo", *RULES, "+env.kwargs.choices=true")[0]
    head = ActionHead(probe(spec.env).action, 0.0, 1)
    policy = head.forward(torch.zeros(1, 1, 8), tensor([[[1.0, 0, 0, 0, 1, 0, 1, 0]]]))
    assert policy.entropy().item() == pytest.approx(math.log(2))
    assert policy.mode().tolist() == [[[0, 1]]]


@pytest.mark.parametrize("algo", ["dqn", "sarsa", "pqn"])
def test_values_and_the_mean_of_a_dueling_network_by_hand(algo: str) -> None:
    made = algorithm(f"algo={algo}", "algo.dueling=true")
    give(made, advantage=[1.0, 100, 2, 100, 6], value=[10.0])
    assert made.q_values(ROW).tolist() == [[[8.0, INVALID, 9.0, INVALID, 13.0]]]
    assert made.choose(ROW, None, None)[0].item() == 4
    give(made, advantage=[7.0, 100, 2, 100, 6], value=[10.0])
    assert made.choose(ROW, None, None)[0].item() == 0


@pytest.mark.parametrize("distribution", ["categorical", "quantile"])
def test_the_values_of_a_distribution(distribution: str) -> None:
    made = algorithm("algo=dqn", f"algo.distribution={distribution}", "algo.atoms=3", "algo.dueling=false")
    give(made, advantage=[float(number) for number in range(15)])
    values = made.q_values(ROW)[0, 0].tolist()
    assert [value == INVALID for value in values] == [False, True, False, True, False]
    assert made.choose(ROW, None, None)[0].item() in (0, 2, 4)


@pytest.mark.parametrize("method", ["epsilon_greedy", "boltzmann"])
def test_exploration_draws_among_valid_actions(method: str) -> None:
    made = algorithm("algo=dqn", f"algo.exploration.method={method}", "algo.exploration.start=1")
    give(made, advantage=[0.0, 3, 0, -2, 0])
    noise = made.exploration.draw_noise((500, 4), 5, [Streams.spawn(0)], 0.0, masked=True)
    rows = ROW.expand(1, 2000, 7)
    drawn = made.choose(rows, noise.view(1, 2000, 5), None)[0][0].bincount(minlength=5) / 2000
    assert torch.allclose(drawn, tensor([1 / 3, 0, 1 / 3, 0, 1 / 3]), atol=0.04)


@pytest.mark.parametrize("algo", ["dqn", "sarsa", "pqn"])
def test_values_may_be_far_below_zero(algo: str) -> None:
    made = algorithm(f"algo={algo}", "algo.dueling=false")
    give(made, advantage=[-3e8, 5, -2e8, 5, -4e8])
    assert made.choose(ROW, None, None)[0].item() == 2
    assert made.q_values(ROW).amax().item() == -2e8
    noise = made.exploration.draw_noise((1, 1), 5, [Streams.spawn(0)], 0.0, masked=True)
    assert made.choose(ROW, noise[0], None)[0].item() in (0, 2, 4)
    made.exploration.method = "boltzmann"
    expected = made.exploration.expectation(made.q_values(ROW), 0.0, VALID)
    assert expected.item() == -2e8


def test_the_expected_value_of_exploration() -> None:
    exploration = specs("algo=sarsa", "algo.exploration.start=0.5", "algo.exploration.schedule=constant")[0].algo
    values = mask_invalid(tensor([[[1.0, 9, 2, 9, 6]]]), VALID)
    assert exploration.exploration.expectation(values, 0.0, VALID).item() == pytest.approx(0.5 * 6 + 0.5 * 3)
    exploration.exploration.method = "boltzmann"
    assert exploration.exploration.expectation(values, 0.0, VALID).item() == pytest.approx(5.9977, abs=1e-3)


@pytest.mark.parametrize("double", [False, True])
def test_the_target_of_dqn_by_hand(double: bool) -> None:
    made = algorithm("algo=dqn", f"algo.double={double}".lower(), "algo.dueling=false", "algo.loss=mse")
    give(made, advantage=[1.0, 50, 2, 50, 4])
    made.targets["target"].polyak_update(made.learners["q"].parameters, tensor([[1.0]]))
    from lab.memory.replay import Batch

    one = tensor([[1.0]])
    batch = Batch(ROW, tensor([[2]]), one, 0.5 * one, ROW, one)
    outputs, loss, error = made.losses(batch)
    assert (outputs.item(), error.item()) == (2.0, 2.0 - (1 + 0.5 * 4))
    assert loss.item() == 1.0


def test_sac_by_hand() -> None:
    made = algorithm("algo=sac", "algo.target_entropy_fraction=0.5")
    head = made.actor.heads["policy"]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(tensor([0.0, 9, 0, 9, 0]).view_as(head.bias))
        for name in ("q1", "q2"):
            critic = made.critic[name].heads["value"]
            critic.weight.zero_()
            critic.bias.copy_(tensor([1.0, 500, 2, 500, 3]).view_as(critic.bias))
        made.log_temperature.fill_(math.log(0.1))
    value, log_prob = made.soft_value(made.critic, ROW, None)
    assert log_prob.item() == pytest.approx(-math.log(3))
    assert value.item() == pytest.approx(2 + 0.1 * math.log(3))
    assert made.resolve_target_entropy(ROW).item() == pytest.approx(0.5 * math.log(3))
    made.acts_randomly = True
    noise = torch.from_numpy(made.draw(np.random.default_rng(0), (1, 2000)))
    drawn = made.act(ROW.expand(1, 2000, 7), noise, torch.zeros(1, 2000, 0))[0][0].bincount(minlength=5) / 2000
    assert torch.allclose(drawn, tensor([1 / 3, 0, 1 / 3, 0, 1 / 3]), atol=0.04)


USUAL = ("ppo", "dqn", "sac")
CASES = [
    pytest.param(algo, (), marks=() if algo in USUAL else pytest.mark.slow)
    for algo in ALGORITHMS
    if serves(algo, "", CHOICE)
]
CASES += [
    pytest.param("dqn", ("algo.exploration.method=boltzmann",), marks=pytest.mark.slow),
    pytest.param("ppo", ("+env.kwargs.choices=true",)),
    pytest.param("a2c", ("net=gru", "algo.sil.gradient_steps=0"), marks=pytest.mark.slow),
    pytest.param("ppo", ("algo.sil.gradient_steps=2", "algo.sil.batch_size=16"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("algo", "more"), CASES)
def test_an_invalid_action_is_never_taken(tmp_path: Path, algo: str, more: tuple[str, ...]) -> None:
    """The environment raises at an invalid action: in training, exploration and evaluation."""
    chosen = ["algo.horizon=64", "algo.batch_size=128"] if algo == "ppo" else []
    if hasattr(specs(f"algo={algo}")[0].algo, "learning_starts"):
        chosen += ["algo.learning_starts=300", "algo.batch_size=16", "algo.memory.size=1000"]
    directory = train(tmp_path, f"algo={algo}", *RULES, *chosen, *more, "mode=dev", "frames=1000")[0]
    status = directory.read_status()
    assert (status["state"], status["error"]) == ("completed", None)
    with directory.metrics.open() as file:
        assert any(row["eval_return"] for row in csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "frames"), [("ppo", 20_000), ("dqn", 10_000)])
def test_taxi_is_learned_faster_with_masks(tmp_path: Path, algo: str, frames: int) -> None:
    returns = {}
    for masked in (False, True):
        chosen = (f"algo={algo}", "env=gymnasium", "env.id=Taxi-v4", f"env.action_mask={masked}".lower())
        directories = train(tmp_path / str(masked), *chosen, f"frames={frames}", "seed=[0,1]", "eval.every=0")
        tables = [list(csv.DictReader(directory.episodes.read_text().splitlines())) for directory in directories]
        returns[masked] = np.mean([float(row["return"]) for rows in tables for row in rows[len(rows) // 2 :]])
    assert returns[True] > returns[False] + 20, returns
