"""Optimizers of torch in a stack: the steps of each Session are those it takes alone, and go on after a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.algo.algorithm import stack
from lab.errors import LabError
from lab.net.optimizer import Optimizer, OptimizerSpec, TorchOptimizers
from lab.run.directory import RunDir
from lab.train.stack import Stack
from tests.helpers import QUIET, go_on, result, specs, train

RATES = torch.tensor([[1e-1], [1e-2], [1e-3]])
KINDS: dict[str, dict[str, Any]] = {
    "RAdam": {"betas": (0.8, 0.95)},
    "AdamW": {"weight_decay": 0.1, "amsgrad": True},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adagrad": {"lr_decay": 0.01},
    "Rprop": {},
    "NAdam": {},
    "ASGD": {"t0": 3},
    "Adafactor": {},
}


def make(name: str, values: torch.Tensor, **kwargs: Any) -> TorchOptimizers:
    return TorchOptimizers(OptimizerSpec(f"torch.optim.{name}", 0.9, 0.99, 1e-8, kwargs), values)


@pytest.mark.parametrize("name", KINDS)
def test_each_session_steps_as_alone_and_one_that_has_stopped_stays_as_it_is(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 64, generator=generator)
    params = [torch.nn.Parameter(row.clone()) for row in values]
    theirs = [
        getattr(torch.optim, name)([param], lr=float(rate), **KINDS[name])
        for param, rate in zip(params, RATES, strict=True)
    ]
    ours = make(name, values, **KINDS[name])
    for number in range(6):
        gradients, active = torch.randn(3, 64, generator=generator), torch.ones(3, 1)
        active[1] = float(number not in (0, 3))
        before = values.clone()
        ours.step(gradients, RATES, active)
        for s, (param, optimizer) in enumerate(zip(params, theirs, strict=True)):
            if active[s]:
                param.grad = gradients[s].clone()
                optimizer.step()
            assert torch.equal(values[s], param)
            assert torch.equal(values[s], before[s]) == (not active[s])


def test_a_rate_that_changes_is_followed() -> None:
    values, gradients = torch.zeros(2, 32), torch.ones(2, 32)
    ours = make("SGD", values)
    ours.step(gradients, torch.tensor([[1.0], [2.0]]), torch.ones(2, 1))
    ours.step(gradients, torch.tensor([[10.0], [20.0]]), torch.ones(2, 1))
    assert values[:, 0].tolist() == [-11.0, -22.0]


def test_torchs_adam_is_ours() -> None:
    first = torch.linspace(-1, 1, 64).view(2, 32).contiguous()
    second = first.clone()
    spec = OptimizerSpec("adam", 0.8, 0.95, 1e-4)
    ours, theirs = Optimizer(spec, first), make("Adam", second, betas=(0.8, 0.95), eps=1e-4)
    for number in range(5):
        for optimizer in (ours, theirs):
            optimizer.step(torch.sin(number + torch.arange(64.0)).view(2, 32), RATES[:2], torch.ones(2, 1))
    assert torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_state_can_be_carried_over(name: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 32, generator=generator), torch.zeros(2, 32)
    ours, other = make(name, first, **KINDS[name]), make(name, second, **KINDS[name])
    for _ in range(3):
        ours.step(torch.randn(2, 32, generator=generator), RATES[:2], torch.ones(2, 1))
    second.copy_(first)
    states = [ours.session(s) for s in range(2)]
    ours.step(torch.randn(2, 32), RATES[:2], torch.ones(2, 1))
    first.copy_(second)
    for s, state in enumerate(states):
        torch.save(state, tmp_path / "state.pt")  # as a checkpoint is, of plain data and tensors
        for optimizer in (ours, other):
            optimizer.restore(s, torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        gradients = torch.randn(2, 32, generator=generator)
        for optimizer in (ours, other):
            optimizer.step(gradients, RATES[:2], torch.ones(2, 1))
    assert torch.equal(first, second)


OWN = (
    "env=cartpole", "~tuned", "algo.optimizer.name=torch.optim.RAdam",
    "algo.lr_schedule=torch.optim.lr_scheduler.OneCycleLR",
    "+algo.lr_schedule_kwargs={max_lr: 0.01, total_steps: 1000}",
)  # fmt: skip
ALGOS = {
    "ppo": ("algo=ppo", "algo.horizon=32", "algo.batch_size=64", "algo.epochs=3", "algo.target_kl=0.001"),
    "dqn": ("algo=dqn", "algo.learning_starts=128", "+algo.optimizer.kwargs.weight_decay=0.01"),
}


def words(algo: str) -> list[str]:
    return [*ALGOS[algo], *OWN, "frames=768"]


@pytest.mark.law
@pytest.mark.parametrize("algo", ["ppo", pytest.param("dqn", marks=pytest.mark.slow)])
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, algo: str) -> None:
    alone = train(tmp_path / "alone", *words(algo), "seed=2")
    stacked = train(tmp_path / "stacked", *words(algo), "seed=[0,1,2,3]")
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.law
@pytest.mark.parametrize("algo", ["dqn", pytest.param("ppo", marks=pytest.mark.slow)])
def test_law_1_killed_and_resumed(tmp_path: Path, algo: str) -> None:
    made = specs(*QUIET, *words(algo), "checkpoint.every=256", "eval.every=0")
    horizons = made[0].frames // (made[0].algo.horizon * made[0].env.num_envs)
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    assert go_on(made, [whole]) == ["completed"]
    assert go_on(made, [parts], (Stack, "conclude", horizons // 2 + 1, killed)) == ["interrupted"]
    assert go_on(made, [parts]) == ["completed"]
    assert result(parts) == result(whole)


def test_every_check_of_a_learning_step_passes(tmp_path: Path) -> None:
    directory = train(tmp_path, *words("ppo"), "mode=dev", "frames=512", "eval.every=0")[0]
    assert directory.read_status()["error"] is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ("name=torch.optim.RAdan", r"torch.optim has no Optimizer of this name. Did you mean 'RAdam'\?"),
        ("name=torch.optim.lr_scheduler.StepLR", "torch.optim.lr_scheduler has no Optimizer of this name"),
        ("name=nothing.Here", "cannot be imported: No module named 'nothing'"),
        ("name=torch.optim.RAdam kwargs={beta:0.5}", "cannot be used with algo.optimizer.kwargs=.* 'beta'"),
        ("name=torch.optim.RAdam kwargs={betas:3}", "cannot be used with .*TypeError"),
        ("name=torch.optim.RAdam kwargs={lr:0.5}", "algo.lr is the learning rate"),
        ("name=torch.optim.LBFGS", "cannot be used with .*closure"),
        ("name=adam kwargs={lr:0.5}", "algo.optimizer.kwargs must be {} with algo.optimizer.name=adam"),
    ],
)
def test_mistakes_are_sentences(changes: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs(*(f"{'+' if word.startswith('kw') else ''}algo.optimizer.{word}" for word in changes.split()))


def test_sessions_of_one_stack_have_the_same_arguments() -> None:
    first = specs(*words("dqn"))[0].algo
    second = replace(first, optimizer=replace(first.optimizer, kwargs={"weight_decay": 0.5}))
    with pytest.raises(LabError, match=r"algo.optimizer.kwargs differs between Sessions of one stack"):
        stack([first, second], torch.device("cpu"), "algo")
