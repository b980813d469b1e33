"""Environments that are closed badly: results are there, it is said once, and nothing waits for them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab.env import closing, notices
from tests.helpers import lab, train

WORDS = (
    "env=gymnasium", "env.id=tests.rogue_process:Closes-v0", "name=closes", "env.num_envs=2", "frames=600",
    "algo.horizon=16", "eval.every=200",
)  # fmt: skip


@pytest.fixture(autouse=True)
def new() -> None:
    closing.hanging.clear()
    notices.take()


def test_what_is_wrong_is_noted_and_what_hangs_is_not_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def hang() -> None:
        calls.append("hang")
        time.sleep(0.5)

    def broken() -> None:
        calls.append("broken")
        raise RuntimeError("no")

    closing.close("a", broken, lambda: calls.append("good"))
    assert calls == ["broken", "good"], "one after another"
    assert notices.take() == ["close() of a raised RuntimeError: no."]
    closing.close("a", broken, seconds=1)
    start = time.monotonic()
    closing.close("b", hang, seconds=0.1)
    closing.close("b", hang, seconds=0.1)
    assert time.monotonic() - start < 0.4
    assert calls.count("hang") == 1
    assert "did not return within 0.1 seconds" in notices.take()[1]


@pytest.mark.parametrize("vectorize", ["sync", pytest.param("async", marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["hangs", "raises", "exits"])
def test_a_session_completes_whatever_close_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, vectorize: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(closing.close, "__kwdefaults__", {"seconds": 0.2})
    start = time.monotonic()
    directory = train(tmp_path, *WORDS, f"+env.kwargs.way={way}", f"env.vectorize={vectorize}")[0]
    assert time.monotonic() - start < 20
    assert directory.read_status()["state"] == "completed", directory.read_status()["error"]
    told = [line for line in directory.log.read_text().splitlines() if "close()" in line]
    assert len(told) == 1, told
    sentence = {"hangs": "did not return", "raises": "raised RuntimeError: it will not close", "exits": "SystemExit"}
    assert sentence[way] in told[0]
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["destructor raises", "atexit raises", "atexit hangs", "thread stays"])
def test_the_end_of_a_process_is_none_of_an_environments_business(tmp_path: Path, way: str) -> None:
    done = lab(*WORDS, f"+env.kwargs.way='{way}'", f"hydra.run.dir={tmp_path}/run", timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "completed" in done.stdout
    if way == "atexit raises":
        assert "Ignored: _raise raised RuntimeError: at the end" in done.stderr
