"""Schedules by hand, and those of torch: the learning rates that they give an optimizer of torch, by Session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lab.errors import LabError
from lab.net.schedule import NAMES, TorchSchedule, scheduled
from tests.helpers import specs

START = torch.tensor([[0.5], [0.25]])
KINDS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 4]},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "OneCycleLR": {"max_lr": 1.0, "total_steps": 20},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3},
    "PolynomialLR": {"total_iters": 5, "power": 2.0},
}


def test_schedules_by_hand() -> None:
    assert scheduled("constant", 4.0, 1.0, 0.5) == 4.0
    assert scheduled("linear", 4.0, 1.0, 0.5) == 2.5
    assert scheduled("exponential", 4.0, 1.0, 0.5) == 2.0
    assert scheduled("cosine", 4.0, 1.0, 0.25) == pytest.approx(1 + 3 * 0.5 * (1 + 2**-0.5))


def test_law_1_of_schedules() -> None:
    start = torch.linspace(0.1, 2, 33).unsqueeze(1)
    final = torch.linspace(0.01, 1, 33).unsqueeze(1)
    for name in NAMES:
        for fraction_done in (0.0, 0.123, 0.7):
            stacked = scheduled(name, start, final, fraction_done)
            for s in range(33):
                assert torch.equal(stacked[s], scheduled(name, start[s : s + 1], final[s : s + 1], fraction_done)[0])


@pytest.mark.parametrize("name", NAMES)
def test_schedules_begin_at_the_start_and_finish_at_the_end(name: str) -> None:
    assert scheduled(name, 4.0, 1.0, 0.0) == 4.0
    assert scheduled(name, 4.0, 1.0, 1.0) == pytest.approx(4.0 if name == "constant" else 1.0)


def make(name: str) -> TorchSchedule:
    return TorchSchedule("algo.optimizer.lr_schedule", f"torch.optim.lr_scheduler.{name}", KINDS[name], START)


def test_rates_by_hand() -> None:
    schedule = make("StepLR")
    rates = [schedule.next().flatten().tolist() for _ in range(5)]
    assert [first for first, _ in rates] == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])
    assert [second for _, second in rates] == pytest.approx([0.25, 0.25, 0.025, 0.025, 0.0025])
    assert schedule.next().shape == (2, 1)


@pytest.mark.parametrize("name", KINDS)
def test_rates_are_those_of_an_optimizer_in_torch(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **KINDS[name])
    ours = make(name)
    for _ in range(10):
        assert float(ours.next()[1, 0]) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", KINDS)
def test_state_is_saved_and_restored(name: str, tmp_path: Path) -> None:
    whole, parts = make(name), make(name)
    for _ in range(3):
        whole.next()
        parts.next()
    again = make(name)
    for s in range(2):
        torch.save(parts.session(s), tmp_path / "state.pt")
        again.restore(s, torch.load(tmp_path / "state.pt", weights_only=True))
    parts.next()
    for _ in range(8):
        assert torch.equal(whole.next(), again.next())


def test_a_schedule_that_is_over_says_so() -> None:
    kwargs = {"max_lr": 1.0, "total_steps": 3}
    schedule = TorchSchedule("key", "torch.optim.lr_scheduler.OneCycleLR", kwargs, START)
    with pytest.raises(LabError, match="OneCycleLR was over before the Session was"):
        for _ in range(5):
            schedule.next()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ("=torch.optim.lr_scheduler.StepLr", r"has no LRScheduler of this name. Did you mean 'StepLR'\?"),
        ("=torch.optim.lr_scheduler.StepLR", "cannot be used with algo.optimizer.lr_schedule_kwargs={}: .*step_size"),
        ("=torch.optim.lr_scheduler.ReduceLROnPlateau", "cannot be used with .*metrics"),
        ("=nothing.Here", "cannot be imported"),
        ("_kwargs={gamma:2}", "algo.optimizer.lr_schedule_kwargs must be {} with algo.optimizer.lr_schedule=constant"),
    ],
)
@pytest.mark.parametrize("algo", ["a2c", "dqn"])
def test_mistakes_are_sentences(algo: str, changes: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs(f"algo={algo}", "~tuned", f"{'+' if 'kwargs' in changes else ''}algo.optimizer.lr_schedule{changes}")
