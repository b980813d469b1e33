"""Comparison of a Session that was run again with the one before."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch

from lab.command.reproduction import Verdict, compare_machines, compare_sessions, find_decisive, find_divergence
from lab.run import tensor_files
from lab.run.directory import RunDir
from lab.run.provenance import machine
from tests.helpers import train


@pytest.fixture
def pair(tmp_path: Path) -> tuple[RunDir, RunDir]:
    before = train(tmp_path, "frames=600", "algo.horizon=16", "eval.every=0", "log.every=100")[0]
    return before, RunDir(shutil.copytree(before.path, tmp_path / "again"))


def test_a_copy_is_the_same(pair: tuple[RunDir, RunDir]) -> None:
    verdict = compare_sessions("seed-0", *pair)
    assert verdict.is_identical and verdict.is_within(0)
    assert verdict.identical == {"episodes": True, "metrics": True, "weights": True}
    assert (verdict.diverges_at, verdict.difference) == (None, 0.0)


def test_one_bit_of_the_weights_is_seen(pair: tuple[RunDir, RunDir]) -> None:
    path = pair[1].checkpoint("last")
    state = tensor_files.read(path)
    name = next(iter(state["parameters"]))
    weights = state["parameters"][name].clone()
    weights.view(-1)[0] = torch.nextafter(weights.view(-1)[0], torch.tensor(9.0))
    tensor_files.write(path, {**state, "parameters": {**state["parameters"], name: weights}})
    verdict = compare_sessions("seed-0", *pair)
    assert verdict.identical == {"episodes": True, "metrics": True, "weights": False}
    assert not verdict.is_identical and not verdict.is_within(0)
    assert verdict.is_within(0.1), "its return is the same"


def test_metrics_alone_may_differ(pair: tuple[RunDir, RunDir]) -> None:
    lines = pair[1].metrics.read_text().splitlines()
    pair[1].metrics.write_text("\n".join([*lines[:3], lines[3] + "1", *lines[4:]]) + "\n")
    pair[1].update_status(tables={})  # as if it had written them itself
    verdict = compare_sessions("seed-0", *pair)
    assert verdict.identical == {"episodes": True, "metrics": False, "weights": True}
    assert verdict.diverges_at == int(lines[3].split(",")[0])


def test_the_first_row_that_differs_says_where_tables_part(tmp_path: Path) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("frame,return\n10,1.0\n20,2.0\n30,3.0\n")
    for text, frame in (
        ("frame,return\n10,1.0\n20,2.5\n30,3.5\n", 20),
        ("frame,return\n10,1.0\n18,2.0\n30,3.0\n", 18),  # it ended earlier in one of them
        ("frame,return\n10,1.0\n", 20),
        ("frame,return\n10,1.0\n20,2.0\n30,3.0\n40,4.0\n", 40),
        ("frame,return,length\n", 10),
        ("frame,return\n10,1.0\n20,2.0\n30,3.0\n", None),
    ):
        new.write_text(text)
        assert find_divergence(old, new) == frame


def test_a_session_without_a_result_is_not_the_same(pair: tuple[RunDir, RunDir], tmp_path: Path) -> None:
    before, again = pair
    again.write_status("failed", 300, 600, "Traceback\nValueError: of no value")
    verdict = compare_sessions("seed-0", before, again)
    assert verdict.error == "failed at frame 300: ValueError: of no value"
    assert not verdict.is_identical and not verdict.is_within(1e9)
    assert compare_sessions("seed-0", before, RunDir(tmp_path / "none")).error == "did not start"


def test_returns_are_within_a_tolerance_or_not() -> None:
    differs = {"episodes": False, "metrics": False, "weights": False}
    assert Verdict("x", differs, 5, 100.0, 98.0).is_within(2.0)
    assert not Verdict("x", differs, 5, 100.0, 97.9).is_within(2.0)
    assert not Verdict("x", differs, 5, 100.0, 100.0).is_within(0.0), "without a tolerance all must be the same"
    assert not Verdict("x", differs, 5, 100.0, None).is_within(2.0)
    assert Verdict("x", differs, 5, None, None).is_within(2.0)


def test_versions_and_the_machine_are_compared() -> None:
    here = machine("cpu")
    recorded = copy.deepcopy(here)
    assert compare_machines(recorded, here) == {}
    recorded |= {"python": "3.9.0", "gpu": "a GPU", "cpu": {"model": "a CPU", "cores": 1}}
    recorded["packages"] |= {"numpy": "1.0", "gone": "2.0", "lab-rl": "0"}
    del recorded["packages"]["torch"]
    assert compare_machines(recorded, here) == {
        "Python": ("3.9.0", here["python"]),
        "GPU": ("a GPU", None),
        "CPU": ("a CPU", here["cpu"]["model"]),
        "numpy": ("1.0", here["packages"]["numpy"]),
        "gone": ("2.0", None),
    }


def test_packages_decide_numbers_or_do_not() -> None:
    names = ["CPU", "Python", "torch", "Box2D", "aiohttp", "pytest", "My.Env", "own-net", "mine", "a2c"]
    spec = {"env": {"id": "my_env:Mine-v0"}, "net": {"types": ["own_net.nets.Net", "relu"]}, "algo": {"name": "a2c"}}
    expected = {"CPU", "Python", "torch", "Box2D", "My.Env", "own-net", "mine"}
    assert find_decisive(names, spec, ["mine"]) == expected
    assert "PyYAML" in find_decisive(["PyYAML"], {"env": {"id": "yaml:Mine-v0"}}, []), "by the module in it"
