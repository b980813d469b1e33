"""How many Sessions fit into the memory of a GPU. The numbers of a GPU are made up: these tests need none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lab import session
from lab.env.vector import probe
from lab.run.directory import RunDir
from lab.training import stack_size
from lab.training.stack_size import fit_stack, largest_stack, measure_memory
from tests.helpers import QUIET, result, specs, train_specs

SMALL = ("env=cartpole", "frames=600", "seed=[0,1,2,3,4]", *QUIET)


@pytest.mark.parametrize(
    ("used", "sessions", "free", "stack"),
    [(200, 2, 1000, 8), (200, 2, 999, 7), (500, 1, 100, 1), (0, 2, 10, 16), (3, 2, 0, 1)],
)
def test_a_stack_takes_most_of_the_free_memory(used: int, sessions: int, free: int, stack: int) -> None:
    assert largest_stack(used, sessions, free) == stack


class MadeUpMemory:
    """What torch.cuda would say of the memory of a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, peak: int, free: int) -> None:
        self.peak, self.resets = peak, 0
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))

    def reset(self, device: torch.device) -> None:
        self.resets += 1


@pytest.mark.parametrize("algo", ["a2c", "dqn"])
def test_memory_is_measured_up_to_the_first_learning_step(monkeypatch: pytest.MonkeyPatch, algo: str) -> None:
    memory = MadeUpMemory(monkeypatch, peak=250, free=1000)
    made: list[Any] = specs(f"algo={algo}", *SMALL, "frames=5000")
    learned = []
    original = type(made[0].algo).learn

    def learn(self: Any, *arguments: Any, **options: Any) -> Any:
        metrics = original(self, *arguments, **options)
        learned.append(float(metrics["steps"].max()))
        return metrics

    monkeypatch.setattr(type(made[0].algo), "learn", learn)
    assert measure_memory(made[:2], probe(made[0].env), torch.device("cpu")) == 200
    assert learned[-1] > 0
    assert not any(learned[:-1])
    assert memory.resets == 1
    assert algo != "dqn" or made[0].algo.learning_starts == 1000, "specs stay as they are"


def test_sessions_that_do_not_fit_together_are_trained_one_stack_after_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MadeUpMemory(monkeypatch, peak=250, free=375)  # three Sessions of 100 bytes fit into 80 % of that
    made = specs("algo=a2c", *SMALL)
    spaces = probe(made[0].env)
    assert fit_stack(made, spaces) == 5, "on a CPU, memory is no limit"
    monkeypatch.setattr(stack_size, "measure_memory", lambda *arguments: 200)
    monkeypatch.setattr(stack_size, "prepare_device", lambda *arguments: torch.device("cuda"))
    assert fit_stack(made, spaces) == 3
    stacks: list[int] = []

    class Counted(session.Stack):
        def __init__(self, specs: Any, *arguments: Any) -> None:
            stacks.append(len(specs))
            super().__init__(specs, *arguments)

    monkeypatch.setattr(session, "Stack", Counted)
    directories = [RunDir(tmp_path / f"split/{spec.seed}") for spec in made]
    records = session.train(made, directories, spaces, show=False, fit_memory=True)
    assert stacks == [2, 3]
    assert [record.state for record in records] == ["completed"] * 5
    together = train_specs(tmp_path / "together", specs("algo=a2c", *SMALL))
    assert [result(one) for one in directories] == [result(one) for one in together]
