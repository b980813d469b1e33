import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from lab.algo.algorithm import stack
from lab.algo.exploration import ExplorationSpec
from lab.common.streams import Streams
from lab.errors import LabError
from tests.helpers import specs

USUAL = ExplorationSpec("epsilon_greedy", start=1.0, final=0.1, schedule="linear", fraction=0.5, cycles=2)


def made(sessions: int = 1, **changed: Any) -> ExplorationSpec:
    return stack([dataclasses.replace(USUAL, **changed)] * sessions, torch.device("cpu"), "algo.exploration")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.55, 0.1, 0.1]),
        ("exponential", [1.0, 0.1**0.5, 0.1, 0.1]),
        ("cosine", [1.0, 0.55, 0.1, 0.1]),
        ("periodic", [1.0, 1.0, 0.1, 0.1]),
    ],
)
def test_values_over_a_session(schedule: str, expected: list[float]) -> None:
    actual = [made(schedule=schedule).scheduled_values(progress)[0] for progress in (0.0, 0.25, 0.5, 1.0)]
    assert actual == pytest.approx(expected)


def test_a_periodic_schedule_falls_and_begins_again() -> None:
    spec = made(schedule="periodic")
    actual = [spec.scheduled_values(progress)[0] for progress in (0.0, 0.125, 0.2499, 0.25, 0.375, 0.4999)]
    assert actual == pytest.approx([1.0, 0.55, 0.1, 1.0, 0.55, 0.1], abs=1e-3)


def test_actions_are_random_as_often_as_asked_for() -> None:
    spec = made(2, start=0.3, schedule="constant")
    values = torch.tensor([0.0, 5.0, 1.0])
    noise = spec.draw_noise((500, 20), 3, [Streams.spawn(0), Streams.spawn(1)], 0.0)
    assert noise.shape == (500, 2, 20, 3)
    action = (values + noise).argmax(-1)
    for s in range(2):
        frequencies = np.bincount(action[:, s].flatten(), minlength=3) / 10_000
        assert frequencies == pytest.approx([0.1, 0.8, 0.1], abs=0.015)


def test_actions_are_as_likely_as_a_softmax_of_their_values() -> None:
    spec = made(method="boltzmann", start=2.0, schedule="constant")
    values = torch.tensor([0.0, 3.0, 1.0])
    action = (values + spec.draw_noise((1000, 20), 3, [Streams.spawn(0)], 0.0)).argmax(-1)
    frequencies = np.bincount(action.flatten(), minlength=3) / 20_000
    assert frequencies == pytest.approx((values / 2).softmax(0).numpy(), abs=0.015)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "greedy"}, "algo.exploration.method=greedy"),
        ({"start": 1.5}, "algo.exploration.start=1.5 .* from 0 to 1"),
        ({"method": "boltzmann", "final": 0.0}, "algo.exploration.final=0.0 .* above 0"),
        ({"schedule": "exponential", "final": 0.0}, "above 0 if the schedule is exponential"),
        ({"fraction": 0.0}, "algo.exploration.fraction=0.0"),
        ({"cycles": 0}, "algo.exploration.cycles=0"),
    ],
)
def test_mistakes_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        specs("algo=dqn", *(f"algo.exploration.{key}={value}" for key, value in changed.items()))
