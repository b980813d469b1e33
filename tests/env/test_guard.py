"""The process is protected from environments that change its settings, exit, or hang in close."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lab.env.guard import ProcessSettings, close, guard, hanging, pop_notices
from lab.errors import LabError
from tests.helpers import lab, result, train
from tests.rogue_process import CHANGES

SLOW = (pytest.mark.slow, pytest.mark.law)
OVERRIDES = (
    "env=gymnasium", "env.id=tests.rogue_process:Changes-v0", "name=changes", "env.num_envs=2", "frames=600",
    "algo.horizon=16", "eval.every=300", "checkpoint.every=300", "env.normalize_observations=true",
)  # fmt: skip
CLOSES = (
    "env=gymnasium", "env.id=tests.rogue_process:Closes-v0", "name=closes", "env.num_envs=2", "frames=600",
    "algo.horizon=16", "eval.every=200",
)  # fmt: skip


@pytest.fixture(autouse=True)
def protect() -> Iterator[None]:
    """Restore the settings of this process, also if a test fails."""
    before, limit, cwd = ProcessSettings(), sys.getrecursionlimit(), Path.cwd()
    with warnings.catch_warnings():
        yield
    before.restore()
    sys.setrecursionlimit(limit)
    os.chdir(cwd)
    hanging.clear()
    pop_notices()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return result(train(tmp_path_factory.mktemp("nothing"), *OVERRIDES, "+env.kwargs.what=nothing")[0])


@pytest.mark.law
@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=() if what in ("dtype", "seterr", "chdir") else SLOW) for what in CHANGES],
)
def test_law_1_an_environment_that_changes_settings_changes_no_result(
    tmp_path: Path, what: str, expected: dict[str, str]
) -> None:
    directory = train(tmp_path, *OVERRIDES, f"+env.kwargs.what={what}")[0]
    assert directory.read_status()["state"] == "completed", directory.read_status()["error"]
    if what != "rounding":  # also changes the numbers of the environment next to it in the same step
        assert result(directory) == expected
    lines = [line for line in directory.log.read_text().splitlines() if "put back" in line]
    quiet = what in ("nothing", "chdir", "denormal", "warnings")  # warnings are errors in tests anyway
    assert len(lines) == (0 if quiet else 1), "logged once"


def test_changed_settings_are_restored_with_a_notice() -> None:
    settings, small = ProcessSettings(flush_denormal=True), 1e-16
    for what in ("threads", "dtype", "grad", "deterministic", "seterr", "rounding", "warnings", "umask", "recursion"):
        CHANGES[what]()
    settings.restore()
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert sys.getrecursionlimit() > 150
    assert small + 1.0 == 1.0, "rounds to nearest"
    lines = pop_notices()
    assert any("torch.set_default_dtype from torch.float32 to torch.float64" in text for text in lines)
    settings.restore()
    assert pop_notices() == []


def test_exits_become_errors() -> None:
    for error, sentence in (
        (SystemExit(3), r"env.id=x called sys.exit\(3\)"),
        (SystemExit(), r"env.id=x called sys.exit\(\)"),
        (GeneratorExit(), "env.id=x raised GeneratorExit"),
    ):
        with pytest.raises(LabError, match=sentence), guard("env.id=x"):
            raise error
    with pytest.raises(KeyboardInterrupt), guard("env.id=x"):
        raise KeyboardInterrupt  # without handlers, it may be the user's


def test_only_the_users_ctrl_c_passes() -> None:
    from lab.common.signals import stop_signals

    with stop_signals():
        with pytest.raises(LabError, match="raised KeyboardInterrupt"), guard("env.id=x"):
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), guard("env.id=x"):
            signal.raise_signal(signal.SIGINT)


def test_signal_handlers_are_restored() -> None:
    from lab.common.signals import stop_signals

    with stop_signals() as stop:
        with guard("env.id=x"):
            CHANGES["signals"]()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
    assert any("handled the signals" in text for text in pop_notices())


def test_problems_of_close_are_notices_and_one_that_hangs_is_not_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def hang() -> None:
        calls.append("hang")
        time.sleep(0.5)

    def broken() -> None:
        calls.append("broken")
        raise RuntimeError("no")

    close("a", broken, lambda: calls.append("good"))
    assert calls == ["broken", "good"], "both are called"
    assert pop_notices() == ["close() of a raised RuntimeError: no."]
    close("a", broken, seconds=1)
    start = time.monotonic()
    close("b", hang, seconds=0.1)
    close("b", hang, seconds=0.1)
    assert time.monotonic() - start < 0.4
    assert calls.count("hang") == 1
    assert "did not return within 0.1 seconds" in pop_notices()[1]


@pytest.mark.parametrize("vectorize", ["sync", pytest.param("async", marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["hangs", "raises", "exits"])
def test_a_session_completes_although_close_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, vectorize: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(close, "__kwdefaults__", {"seconds": 0.2})
    start = time.monotonic()
    directory = train(tmp_path, *CLOSES, f"+env.kwargs.way={way}", f"env.vectorization_mode={vectorize}")[0]
    assert time.monotonic() - start < 20
    assert directory.read_status()["state"] == "completed", directory.read_status()["error"]
    lines = [line for line in directory.log.read_text().splitlines() if "close()" in line]
    assert len(lines) == 1, lines
    sentence = {"hangs": "did not return", "raises": "raised RuntimeError: it will not close", "exits": "SystemExit"}
    assert sentence[way] in lines[0]
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["destructor raises", "atexit raises", "atexit hangs", "thread stays"])
def test_the_process_ends_although_an_environment_hinders_it(tmp_path: Path, way: str) -> None:
    done = lab(*CLOSES, f"+env.kwargs.way='{way}'", f"hydra.run.dir={tmp_path}/run", timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "completed" in done.stdout
    if way == "atexit raises":
        assert "Ignored: _raise raised RuntimeError: at the end" in done.stderr
