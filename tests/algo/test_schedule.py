import pytest
import torch

from lab.algo.schedule import NAMES, scheduled


def test_schedules_by_hand() -> None:
    assert scheduled("constant", 4.0, 1.0, 0.5) == 4.0
    assert scheduled("linear", 4.0, 1.0, 0.5) == 2.5
    assert scheduled("exponential", 4.0, 1.0, 0.5) == 2.0
    assert scheduled("cosine", 4.0, 1.0, 0.25) == pytest.approx(1 + 3 * 0.5 * (1 + 2**-0.5))


def test_law_1_of_schedules() -> None:
    start = torch.linspace(0.1, 2, 33).unsqueeze(1)
    final = torch.linspace(0.01, 1, 33).unsqueeze(1)
    for name in NAMES:
        for progress in (0.0, 0.123, 0.7):
            stacked = scheduled(name, start, final, progress)
            for s in range(33):
                assert torch.equal(stacked[s], scheduled(name, start[s : s + 1], final[s : s + 1], progress)[0])


@pytest.mark.parametrize("name", NAMES)
def test_schedules_begin_at_the_start_and_finish_at_the_end(name: str) -> None:
    assert scheduled(name, 4.0, 1.0, 0.0) == 4.0
    assert scheduled(name, 4.0, 1.0, 1.0) == pytest.approx(4.0 if name == "constant" else 1.0)
