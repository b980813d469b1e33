"""A process that trains ends as what it is, whatever its environment or a signal does to it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lab.run.directory import RunDir, find_sessions
from lab.run.files import read_json
from tests.helpers import lab, start_lab, wait_for

SLOW = (pytest.mark.slow, pytest.mark.law)
ENDS = (
    "algo=a2c", "algo.horizon=16", "env=gymnasium", "env.id=tests.rogue_process:Ends-v0", "name=ends",
    "env.num_envs=2", "frames=3000", "eval.every=0", "log.every=200", "checkpoint.every=400", "log.tensorboard=false",
    "env.restore=pickle",
)  # fmt: skip
ENDED = "The process ended with exit code {} before its work was done"


def ends(name: str, where: str = "step") -> tuple[str, str]:
    return f"+env.kwargs.way='{name}'", f"+env.kwargs.where={where}"


@pytest.mark.parametrize(
    ("name", "seed", "sentence"),
    [
        ("os._exit(0)", "[0,1]", ENDED.format(0)),
        ("SIGKILL", "0", "The process was killed by SIGKILL"),
        *(
            pytest.param(name, "0", sentence, marks=SLOW)
            for name, sentence in {
                "os._exit(5)": ENDED.format(5),
                "exit(0) of C": ENDED.format(0),
                "execv": ENDED.format(0),
                "thread": ENDED.format(4),
                "abort": "The process was killed by SIGABRT",
                "SIGSEGV": "The process was killed by SIGSEGV",
                "sys.exit(text)": "called sys.exit('that is all')",
                "KeyboardInterrupt": "raised KeyboardInterrupt",
                "GeneratorExit": "raised GeneratorExit",
            }.items()
        ),
    ],
)
def test_law_4_however_an_environment_ends_its_process_the_session_failed(
    tmp_path: Path, name: str, seed: str, sentence: str
) -> None:
    done = lab(*ENDS, *ends(name), f"seed={seed}", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Failed: " in done.stdout
    assert sentence in done.stdout
    sessions = find_sessions(tmp_path)
    assert len(sessions) == (1 if seed == "0" else 2)
    for session in sessions:
        status = read_json(session.status)
        assert status["state"] == "failed"
        assert sentence in status["error"]
        assert status["lost"] == ("was killed" in sentence)
        assert sentence in session.log.read_text()
        assert session.results.exists()
        assert not session.lock.is_held()
    if "was killed" in sentence:
        assert f"python -m lab resume {tmp_path}" in done.stdout


@pytest.mark.parametrize(
    ("where", "name", "sentence", "code"),
    [
        ("constructor", "os._exit(0)", ENDED.format(0), 1),
        pytest.param("reset", "os._exit(5)", ENDED.format(5), 1, marks=SLOW),
        pytest.param("constructor", "sys.exit(0)", "called sys.exit(0)", 2, marks=SLOW),
    ],
)
def test_before_a_session_began_there_is_a_sentence_and_no_directory(
    tmp_path: Path, where: str, name: str, sentence: str, code: int
) -> None:
    done = lab(*ENDS, *ends(name, where), f"hydra.run.dir={tmp_path}/a/b")
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_law_4_in_a_sweep(tmp_path: Path, launcher: str) -> None:
    seeds = ("seed=0,1", "stack=1", f"hydra/launcher={launcher}")
    done = lab("-m", *ENDS, *ends("os._exit(0)"), *seeds, f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    states = [read_json(session.status)["state"] for session in find_sessions(tmp_path)]
    assert states == ["failed"] * (2 if launcher == "local" else 1)
    if launcher == "basic":  # whose jobs run in the process that controls
        assert ENDED.format(0) in done.stderr
        assert f"python -m lab resume {tmp_path}" in done.stderr


LONG = ("frames=10_000_000", "log.every=500", "log.tensorboard=false", "eval.every=0")


def test_the_process_that_trains_ends_with_the_one_that_watches_it(tmp_path: Path) -> None:
    process = start_lab(*LONG, f"hydra.run.dir={tmp_path}")
    directory = RunDir(tmp_path)
    wait_for(directory.metrics.exists, process)
    trainer = read_json(directory.status)["pid"]
    assert trainer != process.pid
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not directory.lock.is_held(), seconds=10)
    assert directory.read_status()["state"] == "interrupted"


@pytest.mark.parametrize(
    ("count", "at_once"),
    [(1, False), pytest.param(2, True, marks=SLOW)],
)
def test_a_ctrl_c_that_the_watching_process_alone_is_sent_counts_once(
    tmp_path: Path, count: int, at_once: bool
) -> None:
    endless = ("env=gymnasium", "env.id=tests.envs:Fated-v0", "+env.kwargs.fate=hangs", "env.restore=pickle")
    chosen = (*endless, "algo.horizon=400", "name=x") if at_once else ()
    # The first Ctrl-C while the learning step is compiled would end the Session without a checkpoint.
    process = start_lab(*LONG, "compile=false", *chosen, f"hydra.run.dir={tmp_path}")
    directory = RunDir(tmp_path)
    wait_for(directory.log.exists if at_once else directory.metrics.exists, process)
    for _ in range(count):
        time.sleep(1.5 if at_once else 0)
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert read_json(directory.status)["state"] == "interrupted"
    assert directory.checkpoint("last").exists() != at_once


MOMENTS = int(os.environ.get("LAB_MOMENTS", "6"))
STARTS: dict[str, tuple[str, ...]] = {
    "session": (*LONG, "env=pendulum", "hydra.run.dir={}"),
    "sweep": ("-m", *LONG, "seed=0,1", "stack=1", "hydra.sweep.dir={}"),
}


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", STARTS)
def test_law_4_a_signal_at_any_moment_of_the_start(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    before = time.monotonic()
    process = start_lab(*(word.format(tmp_path / "whole") for word in STARTS[kind]))
    wait_for(lambda: bool(find_sessions(tmp_path / "whole")), process)
    seconds = time.monotonic() - before
    process.kill()
    process.communicate()
    for moment in range(MOMENTS):
        folder = tmp_path / f"moment-{moment}"
        process = start_lab(*(word.format(folder) for word in STARTS[kind]))
        time.sleep(0.5 + 1.3 * seconds * moment / MOMENTS)
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode in (130, -number), output + errors
        assert "Traceback" not in output + errors
        if process.returncode == 130 and "Interrupted." not in errors:
            assert "interrupted" in output
        assert all(read_json(session.status)["state"] == "interrupted" for session in find_sessions(folder))
        if kind == "session":
            assert not folder.exists() or find_sessions(folder), "no half directory"
