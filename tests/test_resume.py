"""Law 1 for Sessions that are killed: resumed from their checkpoints, they leave what they would have left."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from lab.run_dir import RunDir
from lab.session import train
from lab.spec import Spec
from tests.helpers import ALGORITHMS, result, specs

KILLS = int(os.environ.get("LAB_KILLS", "1"))  # of each case; CI does few
CASES = {
    "discrete": ("env=cartpole",),
    "continuous": ("env=pendulum",),
    "normalised": ("env=pendulum", "env.normalise_observations=true", "env.normalise_rewards=true"),
}
OFTEN = ("log.tensorboard=false", "log.every=300", "eval.every=900", "eval.episodes=2", "checkpoint.every=500")
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["lab.session"])


def words(algo: str, case: str, seed: str) -> list[str]:
    small = {"ppo": ("algo.horizon=32", "algo.minibatch=128"), "reinforce": ("algo.horizon=32", "~tuned")}
    return [f"algo={algo}", *CASES[case], *small.get(algo, ("algo.horizon=16", "~tuned")), *OFTEN, f"seed={seed}"]


def work(made: list[Spec], paths: list[Path]) -> None:
    from lab.env.vector import probe

    if not made:
        return
    records = train(made, [RunDir(path) for path in paths], probe(made[0].env), show=False)
    assert [record.state for record in records] == ["completed"] * len(made), records[0].error


def in_a_process(made: list[Spec], paths: list[Path], seconds: float | None) -> int:
    """Train in another process, killed after so many seconds; return how it ended."""
    process = CONTEXT.Process(target=work, args=(made, paths))
    process.start()
    process.join(seconds)
    if process.is_alive():
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def check_kills(tmp_path: Path, chosen: list[str], kills: int) -> int:
    """Compare Sessions killed at random moments with the same ones uninterrupted; return how many kills hit."""
    made = specs(*chosen)
    whole = [tmp_path / "whole" / str(spec.seed) for spec in made]
    assert in_a_process(made[:0], [], None) == 0  # starts the process from which the others are forked
    start = time.monotonic()
    assert in_a_process(made, whole, None) == 0
    seconds = time.monotonic() - start
    parts = [tmp_path / "parts" / str(spec.seed) for spec in made]
    moments, hit = random.Random(str(chosen)), 0
    while hit < kills and in_a_process(made, parts, moments.uniform(0.1, 0.1 + seconds / kills)) != 0:
        hit += 1
    if hit == kills:
        assert in_a_process(made, parts, None) == 0
    for one, other in zip(parts, whole, strict=True):
        assert RunDir(one).read_status()["state"] == "completed"
        assert result(RunDir(one)) == result(RunDir(other))
    return hit


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("seed", ["3", "[3,4,5]"], ids=["alone", "stacked"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_law_1_killed_at_any_moment_and_resumed(tmp_path: Path, algo: str, case: str, seed: str) -> None:
    assert check_kills(tmp_path, [*words(algo, case, seed), "frames=12_000"], KILLS) > 0
