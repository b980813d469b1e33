"""The laws, with steps that are really compiled: by default those of one small agent, as each takes some 15 seconds."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest

from lab.common.compilers import find_compiler
from lab.net import library
from lab.run.directory import RunDir
from lab.run.files import read_yaml
from lab.training.collect import Collector
from tests.algo.test_traced import CASES, SMALL, USUAL
from tests.helpers import QUIET, go_on, lab, result, specs, train

A2C = ("algo=a2c", "env=cartpole", "~tuned", "algo.horizon=16", "net.hidden=[7]", "frames=1024", "compile=true")
pytestmark = pytest.mark.skipif(not find_compiler(), reason="needs a C++ compiler")
OFTEN = ("checkpoint.every=48", "eval.episodes=2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of compiled functions, in which all processes of the tests compile each function once."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if folder.name.startswith("popen-") else folder) / "cache"


@pytest.fixture(autouse=True)
def in_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def compiling(directory: RunDir) -> float:
    """Return the seconds that a Session spent on compiling and loading."""
    with directory.timing.open() as file:
        return sum(float(row["compile"]) for row in csv.DictReader(file))


def killed() -> None:
    raise KeyboardInterrupt


def interrupted(folder: Path, *overrides: str, calls: tuple[int, ...]) -> list[RunDir]:
    """Train two Sessions, interrupted in these calls of a step of environments; return their directories."""
    made = specs(*overrides, "seed=[2,5]")
    directories = [RunDir(folder / str(spec.seed)) for spec in made]
    for number in calls:
        assert go_on(made, directories, (Collector, "collect", number, killed)) == ["interrupted"] * 2
    assert go_on(made, directories) == ["completed"] * 2
    return directories


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.timeout(600)
def test_a_compiled_agent_by_the_command_line(tmp_path: Path, cache: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(cache)}
    run = tmp_path / "run"
    done = lab(*QUIET, *A2C, "seed=2", f"hydra.run.dir={run}", env=environment, timeout=250)
    assert done.returncode == 0, done.stderr
    for method in ("choose", "update"):
        assert f"Compiling A2C.{method}: some 20 seconds, once on this machine" in done.stdout + done.stderr
    directory = RunDir(run)
    assert read_yaml(directory.spec)["compile"] is True
    assert compiling(directory) > 1

    stacked = train(tmp_path / "stacked", *A2C, "seed=[0,2]")
    assert compiling(stacked[0]) < 0.3 * compiling(directory), "loaded"
    assert result(stacked[1]) == result(directory), "alone as in a stack"
    parts = interrupted(tmp_path / "parts", *QUIET, *A2C, *OFTEN, calls=(3, 5))
    whole = interrupted(tmp_path / "whole", *QUIET, *A2C, *OFTEN, calls=())
    assert [result(part) for part in parts] == [result(one) for one in whole]
    plain = train(tmp_path / "plain", *A2C, "seed=2", "compile=false")[0]
    assert compiling(plain) == 0
    assert result(plain)["weights"] != result(directory)["weights"]

    done = lab("enjoy", str(run), "episodes=1", env=environment | {"PATH": "", "CXX": ""})
    assert done.returncode == 0, done.stderr


def test_a_request_to_stop_interrupts_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory, made = RunDir(tmp_path / "run"), specs(*QUIET, *A2C, "seed=2")
    asked = (library, "_compile", 1, lambda: signal.raise_signal(signal.SIGTERM))
    assert go_on(made, [directory], asked) == ["interrupted"]
    assert directory.read_status()["frame"] == 0, "the horizon is not finished first"
    assert not list(tmp_path.rglob("*.pt2"))


def test_no_compiler_is_a_sentence_before_the_first_frame(tmp_path: Path) -> None:
    done = lab(*A2C, f"hydra.run.dir={tmp_path / 'run'}", env={"PATH": str(tmp_path), "CXX": ""})
    assert done.returncode == 2
    assert "Error: compile=true is not possible here: no C++ compiler was found" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.law] * (case in USUAL)) for case in CASES])
def test_law_1_of_compiled_agents(tmp_path: Path, case: str) -> None:
    overrides = (*SMALL, *CASES[case], "compile=true")
    alone = train(tmp_path / "alone", *overrides, "seed=2")[0]
    assert alone.read_status()["error"] is None
    stacked = train(tmp_path / "stacked", *overrides, "seed=[0,1,2]")
    assert result(stacked[2]) == result(alone), "alone as in a stack"
    parts = interrupted(tmp_path / "parts", *QUIET, *overrides, *OFTEN, calls=(3, 2))
    whole = interrupted(tmp_path / "whole", *QUIET, *overrides, *OFTEN, calls=())
    assert [result(part) for part in parts] == [result(one) for one in whole]
