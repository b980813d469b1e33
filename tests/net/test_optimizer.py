"""Optimizers of a stack: each Session steps as with torch's own optimizer alone, and goes on after a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.algo.algorithm import stack
from lab.errors import LabError
from lab.net.optimizer import NAMES, Optimizer, OptimizerSpec, TorchOptimizers
from lab.run.directory import RunDir
from lab.training.stack import Stack
from tests.helpers import QUIET, go_on, result, specs, train

LR = torch.tensor([[1e-1], [1e-2], [1e-3]])
# Arguments for torch's own optimizer, by the name of ours or of torch's class.
KINDS: dict[str, dict[str, Any]] = {
    "adam": {"betas": (0.8, 0.95), "eps": 1e-4},
    "rmsprop": {"momentum": 0.8, "alpha": 0.95, "eps": 1e-4},
    "sgd": {"momentum": 0.8},
    "RAdam": {"betas": (0.8, 0.95)},
    "AdamW": {"weight_decay": 0.1, "amsgrad": True},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adagrad": {"lr_decay": 0.01},
    "Rprop": {},
    "NAdam": {},
    "ASGD": {"t0": 3},
    "Adafactor": {},
}
OURS = {"adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD"}


def make(name: str, values: torch.Tensor) -> Optimizer | TorchOptimizers:
    path = name if name in NAMES else f"torch.optim.{name}"
    kwargs = {} if name in NAMES else KINDS[name]
    spec = OptimizerSpec(path, 1e-3, "constant", 0.0, None, beta1=0.8, beta2=0.95, eps=1e-4, kwargs=kwargs)
    return (TorchOptimizers if spec.is_path else Optimizer)(spec, values)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("name", KINDS)
def test_each_session_steps_as_with_torch_alone_and_stays_as_it_is_outside_the_mask(name: str) -> None:
    values, gradients = random(3, 64), random(6, 3, 64)
    rows = [torch.nn.Parameter(row.clone()) for row in values]
    cls = getattr(torch.optim, OURS.get(name, name))
    theirs = [cls([row], lr=float(lr), **KINDS[name]) for row, lr in zip(rows, LR, strict=True)]
    ours = make(name, values)
    for number in range(6):
        mask = torch.ones(3, 1)
        mask[1] = float(number not in (0, 3))
        before = values.clone()
        ours.step(gradients[number] * mask, LR, mask)
        for s, (row, optimizer) in enumerate(zip(rows, theirs, strict=True)):
            if mask[s]:
                row.grad = gradients[number, s].clone()
                optimizer.step()
            assert torch.allclose(values[s], row, atol=1e-5) if name in NAMES else torch.equal(values[s], row)
            assert torch.equal(values[s], before[s]) == (not mask[s])


@pytest.mark.law
@pytest.mark.parametrize("width", [32, 96, 4096])
@pytest.mark.parametrize("name", NAMES)
def test_law_1_of_an_optimizer(name: str, width: int) -> None:
    stacked, gradients = random(3, width), random(5, 3, width)
    alone = [stacked[s : s + 1].clone() for s in range(3)]
    several, single = make(name, stacked), [make(name, values) for values in alone]
    mask = torch.ones(3, 1)
    for number in range(5):
        mask[1] = float(number != 2)
        several.step(gradients[number] * mask, LR, mask)
        for s, optimizer in enumerate(single):
            optimizer.step((gradients[number] * mask)[s : s + 1], LR[s : s + 1], mask[s : s + 1])
    assert torch.equal(stacked, torch.cat(alone))


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_one_session_does_not_reach_others(name: str) -> None:
    values, expected = random(2, 32), random(2, 32)
    gradients, mask = random(2, 32), torch.ones(2, 1)
    make(name, expected).step(gradients, LR[:2], mask)
    make(name, values).step(torch.stack([gradients[0], gradients[1] * torch.nan]), LR[:2], mask)
    assert torch.equal(values[0], expected[0])
    assert values[1].isnan().all()


def test_a_learning_rate_that_changes() -> None:
    values, gradients = torch.zeros(2, 32), torch.ones(2, 32)
    KINDS["SGD"] = {}
    ours = make("SGD", values)
    ours.step(gradients, torch.tensor([[1.0], [2.0]]), torch.ones(2, 1))
    ours.step(gradients, torch.tensor([[10.0], [20.0]]), torch.ones(2, 1))
    assert values[:, 0].tolist() == [-11.0, -22.0]


@pytest.mark.parametrize("name", KINDS)
def test_state_is_saved_and_restored(name: str, tmp_path: Path) -> None:
    first, second, gradients = random(2, 32), torch.zeros(2, 32), random(5, 2, 32)
    ours, other = make(name, first), make(name, second)
    for number in range(3):
        ours.step(gradients[number], LR[:2], torch.ones(2, 1))
    second.copy_(first)
    for s in range(2):
        torch.save(ours.session(s), tmp_path / "state.pt")  # as in a checkpoint: plain data and tensors
        other.restore(s, torch.load(tmp_path / "state.pt", weights_only=True))
    for number in (3, 4):
        for optimizer in (ours, other):
            optimizer.step(gradients[number], LR[:2], torch.ones(2, 1))
    assert torch.equal(first, second)


OWN = (
    "env=cartpole", "~tuned", "algo.optimizer.name=torch.optim.RAdam", "frames=768",
    "algo.optimizer.lr_schedule=torch.optim.lr_scheduler.OneCycleLR",
    "+algo.optimizer.lr_schedule_kwargs={max_lr: 0.01, total_steps: 1000}",
)  # fmt: skip
ALGOS = {
    "ppo": ("algo=ppo", "algo.horizon=32", "algo.batch_size=64", "algo.epochs=3", "algo.target_kl=0.001", *OWN),
    "dqn": ("algo=dqn", "algo.learning_starts=128", "+algo.optimizer.kwargs.weight_decay=0.01", *OWN),
}


@pytest.mark.law
@pytest.mark.parametrize("algo", ["ppo", pytest.param("dqn", marks=pytest.mark.slow)])
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, algo: str) -> None:
    alone = train(tmp_path / "alone", *ALGOS[algo], "seed=2")
    stacked = train(tmp_path / "stacked", *ALGOS[algo], "seed=[0,1,2,3]")
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.law
@pytest.mark.parametrize("algo", ["dqn", pytest.param("ppo", marks=pytest.mark.slow)])
def test_law_1_killed_and_resumed(tmp_path: Path, algo: str) -> None:
    made = specs(*QUIET, *ALGOS[algo], "checkpoint.every=256", "eval.every=0")
    horizons = made[0].frames // (made[0].algo.horizon * made[0].env.num_envs)
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    assert go_on(made, [whole]) == ["completed"]
    assert go_on(made, [parts], (Stack, "finish_interval", horizons // 2 + 1, killed)) == ["interrupted"]
    assert go_on(made, [parts]) == ["completed"]
    assert result(parts) == result(whole)


def test_every_check_of_a_learning_step_passes(tmp_path: Path) -> None:
    directory = train(tmp_path, *ALGOS["ppo"], "mode=dev", "frames=512", "eval.every=0")[0]
    assert directory.read_status()["error"] is None


def test_the_short_form_of_the_learning_rate() -> None:
    short, long = specs("algo.lr=0.5")[0], specs("algo.lr=0.25", "algo.optimizer.lr=0.5")[0]
    assert short == long, "the learner's own key wins"
    assert short.algo.optimizer.lr == 0.5
    assert "lr" not in short.to_dict()["algo"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ("name=torch.optim.RAdan", r"torch.optim has no Optimizer of this name. Did you mean 'RAdam'\?"),
        ("name=torch.optim.lr_scheduler.StepLR", "it is a class that does not extend torch's Optimizer"),
        ("name=nothing.Here", "cannot be imported: No module named 'nothing'"),
        ("name=torch.optim.RAdam kwargs={beta:0.5}", "cannot be used with algo.optimizer.kwargs=.* 'beta'"),
        ("name=torch.optim.RAdam kwargs={betas:3}", "cannot be used with .*TypeError"),
        ("name=torch.optim.RAdam kwargs={lr:0.5}", "algo.optimizer.lr is the learning rate"),
        ("name=torch.optim.LBFGS", "cannot be used with .*closure"),
        ("name=adam kwargs={lr:0.5}", "algo.optimizer.kwargs must be {} with algo.optimizer.name=adam"),
        ("beta1=1", "algo.optimizer.beta1 must be a number, at least 0 and below 1"),
    ],
)
def test_mistakes_are_sentences(changes: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs(*(f"{'+' if word.startswith('kw') else ''}algo.optimizer.{word}" for word in changes.split()))


def test_sessions_of_one_stack_have_the_same_arguments() -> None:
    first = specs(*ALGOS["dqn"])[0].algo
    second = replace(first, optimizer=replace(first.optimizer, kwargs={"weight_decay": 0.5}))
    with pytest.raises(LabError, match=r"algo.optimizer.kwargs differs between Sessions of one stack"):
        stack([first, second], torch.device("cpu"), "algo")
