"""Environments that draw from global generators are reproducible, and independent between seeds."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.env.rng_isolation import GLOBAL_RNGS, RngStates, RngWatch
from lab.env.vector import Environments, cached_dry_run, detect_restore_method
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.spec import Spec
from lab.training.collect import Collector
from tests.helpers import go_on, lab, result, specs

DICE = ("env=gymnasium", "env.id=tests.rogue:Dice-v0", "name=dice")
NATIVE = ("env=gymnasium", "env.id=tests.rogue:OneDie-v0", "name=die")
FEW = (
    "env.num_envs=2", "algo.horizon=16", "frames=480", "log.tensorboard=false", "log.every=160", "eval.every=240",
    "eval.episodes=2", "checkpoint.every=160",
)  # fmt: skip
CASES = {
    "numpy": (*DICE, "+env.kwargs.kind=numpy"),
    "random": (*DICE, "+env.kwargs.kind=random", "env.restore=replay"),
    "torch": (*DICE, "+env.kwargs.kind=torch", "env.restore=reset"),
    "made": (*DICE, "+env.kwargs.at=made"),
    "made, replayed": (*DICE, "+env.kwargs.at=made", "env.restore=replay"),
    "native": NATIVE,
    "always": (*DICE, "+env.kwargs.at=rare", "env.isolate_rng=always"),
    "sampled": ("env=gymnasium", "env.id=tests.rogue:Sampled-v0", "name=sampled"),
    "async": (*DICE, "env.vectorization_mode=async"),
}


def train(folder: Path, made: list[Spec]) -> list[RunDir]:
    directories = [RunDir(folder / str(spec.seed)) for spec in made]
    assert go_on(made, directories) == ["completed"] * len(made), directories[0].read_status()["error"]
    return directories


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("case", CASES)
def test_law_1_holds_for_draws_from_global_generators(tmp_path: Path, case: str) -> None:
    overrides = (*CASES[case], *FEW)
    before = RngWatch()
    stacked = train(tmp_path / "stacked", specs(*overrides, "seed=[0,1]"))
    assert before.changed() == [], "global generators are unchanged"
    (alone,) = train(tmp_path / "alone", specs(*overrides, "seed=1"))
    assert result(stacked[1]) == result(alone), "alone as in a stack"
    assert stacked[0].episodes.read_text() != alone.episodes.read_text(), "seeds are independent"
    parts = [RunDir(tmp_path / "parts" / "1")]
    made = specs(*overrides, "seed=1")
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)  # another process has other states
    assert go_on(made, parts, (Collector, "collect", 12, killed)) == ["interrupted"]
    assert go_on(made, parts) == ["completed"]
    assert result(parts[0]) == result(alone), "resumed as uninterrupted"


def test_environments_in_workers_draw_as_in_one_process() -> None:
    seen = []
    for vectorize in ("sync", "async"):
        spec = specs(*DICE, f"env.vectorization_mode={vectorize}")[0].env
        envs = Environments(spec, 3, np.random.default_rng(0), detect_restore_method(spec))
        seen.append([envs.reset(), *(envs.step(np.zeros(3, np.int64))[0] for _ in range(20))])
        envs.close()
    assert np.array_equal(seen[0], seen[1])
    assert len({float(row[0]) for row in seen[1][0]}) == 3


def test_a_dry_run_detects_the_generators() -> None:
    def shared(*overrides: str) -> tuple[str, ...]:
        return cached_dry_run(specs(*overrides)[0].env).global_rngs

    assert [shared(*DICE, f"+env.kwargs.kind={kind}") for kind in ("numpy", "random", "torch")] == [
        ("numpy.random",), ("random",), ("torch",),
    ]  # fmt: skip
    assert shared(*NATIVE) == shared(*CASES["made"]) == ("numpy.random",)
    assert shared("env=pendulum") == shared("env=cartpole") == ()
    assert cached_dry_run(specs(*DICE)[0].env).repeatable


@pytest.mark.parametrize("kind", ["numpy", "random", "torch"])
@pytest.mark.parametrize("evaluated", [False, True])
def test_a_draw_that_the_dry_run_missed_fails_the_session(tmp_path: Path, kind: str, evaluated: bool) -> None:
    late = ("frames=480", "eval.every=0") if not evaluated else ("frames=32", "eval.every=32", "eval.episodes=1")
    # An environment for evaluation draws at its 150th step: its episodes are made that long.
    long = ("+env.kwargs.length=200",) if evaluated else ()
    overrides = (*DICE, f"+env.kwargs.kind={kind}", "+env.kwargs.at=rare", *FEW, *late, *long)
    directory = RunDir(tmp_path)
    assert go_on(specs(*overrides), [directory]) == ["failed"]
    status = directory.read_status()
    name = {"numpy": "numpy.random"}.get(kind, kind)
    assert f"env.id=tests.rogue:Dice-v0 drew from {name}" in status["error"]
    assert "Set env.isolate_rng=always" in status["error"]
    assert "Traceback" not in status["error"]


def test_a_session_warns_once_about_random_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = train(tmp_path / "dice", specs(*DICE, *FEW))[0]
    (warning,) = directory.read_status()["warnings"]
    assert warning.startswith("env.id=tests.rogue:Dice-v0 draws from numpy.random, which is global to the process")
    assert directory.log.read_text().count("draws from numpy.random") == 1
    unseeded = ("env=gymnasium", "env.id=tests.rogue:Unseeded-v0", "name=unseeded")
    (warning,) = train(tmp_path / "unseeded", specs(*unseeded, *FEW))[0].read_status()["warnings"]
    assert "its results cannot be reproduced" in warning
    assert train(tmp_path / "cartpole", specs(*FEW))[0].read_status()["warnings"] == []


def test_states_are_swapped_in_and_out() -> None:
    def draw() -> list[float]:
        return [np.random.rand(), random.random(), float(torch.rand(()))]  # noqa: NPY002

    own, other = RngStates(GLOBAL_RNGS, 3), RngStates(GLOBAL_RNGS, 3)
    watch = RngWatch()
    with own:
        first = draw()
    with own:
        second = draw()
    assert watch.changed() == []
    with other:
        assert [draw(), draw()] == [first, second]
    with RngStates(GLOBAL_RNGS, 4):
        assert all(one != another for one, another in zip(draw(), first, strict=True))
    with RngStates(["random"], 3):
        draw()
    assert watch.changed() == ["numpy.random", "torch"]
    draw()
    assert watch.changed() == list(GLOBAL_RNGS)


@pytest.mark.slow
@pytest.mark.law
def test_seeds_differ_in_a_sweep_of_forked_workers(tmp_path: Path) -> None:
    overrides = ("env=gymnasium", "env.id=tests.rogue:Dice-v0", "name=dice", "frames=400", "log.tensorboard=false")
    seeds = ("-m", *overrides, "stack=1", "eval.every=0", "seed=0,1,2,3", f"hydra.sweep.dir={tmp_path}")
    done = lab(*seeds)
    assert done.returncode == 0, done.stderr
    assert len({(tmp_path / f"seed-{seed}" / "episodes.csv").read_text() for seed in range(4)}) == 4
    assert done.stdout.count("draws from numpy.random") == 1
    metrics = read_json(tmp_path / "trial.json")["metrics"]["return"]
    assert metrics["std"]["value"] > 0
    played = [lab("enjoy", str(tmp_path / "seed-0"), "episodes=2", "code=here").stdout for _ in range(2)]
    assert played[0] == played[1]
    assert "episode   1" in played[0]
