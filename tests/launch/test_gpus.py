"""GPUs leased to jobs."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pynvml
import pytest

from lab.errors import LabError
from lab.launch.gpus import GpuPool, visible_gpus


def test_the_gpu_with_the_fewest_jobs_is_next() -> None:
    leases = GpuPool(["0", "1", "2"], per_gpu=2)
    assert leases.slots == 6
    with ExitStack() as held:
        assert [held.enter_context(leases.lease()) for _ in range(6)] == ["0", "1", "2", "0", "1", "2"]


def test_a_job_waits_until_a_gpu_is_given_back() -> None:
    leases, order = GpuPool(["0"]), []

    def second() -> None:
        with leases.lease():
            order.append("second")

    with leases.lease():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


class FakeDriver:
    """NVML of a machine with two GPUs, of which the second has a UUID too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: dict[object, int]) -> None:
        self.free = free
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
        for name in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID"):
            monkeypatch.setattr(pynvml, name, self.find)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(free=handle * 2**20))

    def find(self, name: object) -> int:
        if name not in self.free:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return self.free[name]


def test_memory_decides_which_gpu_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    FakeDriver(monkeypatch, {0: 100, 1: 9000, "GPU-b": 9000})
    names = visible_gpus()
    assert names == ["0", "1"]
    leases = GpuPool(names, per_gpu=2, memory=1000)
    with leases.lease() as first, leases.lease() as second:
        assert (first, second) == ("1", "1")
    with GpuPool(["GPU-b"], memory=9000).lease() as name:
        assert name == "GPU-b"
    with pytest.raises(LabError, match=r"more memory than any GPU has free \(0: 100 MiB, 1: 9,000 MiB\)"):
        GpuPool(names, memory=10_000).lease().__enter__()
    with pytest.raises(LabError, match="the free memory of GPU-x is unknown"):
        GpuPool(["GPU-x"], memory=1).lease().__enter__()


@pytest.mark.parametrize(("value", "names"), [("0, 1", ["0", "1"]), ("", []), ("-1", []), ("GPU-a", ["GPU-a"])])
def test_what_is_visible_is_what_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, value: str, names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == names


def test_a_machine_without_the_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert visible_gpus() == []
