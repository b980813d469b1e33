"""GPUs leased to jobs."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from lab.errors import LabError
from lab.launch import gpus
from lab.launch.gpus import Gpus, visible


def test_the_gpu_with_the_fewest_jobs_is_next() -> None:
    leases = Gpus(["0", "1", "2"], per_gpu=2)
    assert leases.room == 6
    with ExitStack() as held:
        assert [held.enter_context(leases.leased()) for _ in range(6)] == ["0", "1", "2", "0", "1", "2"]


def test_a_job_waits_until_a_gpu_is_given_back() -> None:
    leases, order = Gpus(["0"]), []

    def second() -> None:
        with leases.leased():
            order.append("second")

    with leases.leased():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_memory_decides_which_gpu_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "free_memory", lambda: {"0": 100, "1": 9000})
    leases = Gpus(["0", "1"], per_gpu=2, memory=1000)
    with leases.leased() as first, leases.leased() as second:
        assert (first, second) == ("1", "1")
    greedy = Gpus(["0", "1"], memory=10_000)
    with pytest.raises(LabError, match="more memory than any GPU has free"), greedy.leased():
        pass


@pytest.mark.parametrize(("value", "names"), [("0, 1", ["0", "1"]), ("", []), ("-1", []), ("GPU-a", ["GPU-a"])])
def test_what_is_visible_is_what_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, value: str, names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible() == names


def test_a_machine_without_the_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert visible() == []
