"""Law 1 on every environment of conf/env, with every algorithm that serves it, and on those of other packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.env.vector import probe
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.training.stack import Stack
from tests.helpers import ALGORITHMS, ATARI, ENVIRONMENTS, OTHER_ATARI, go_on, result, serves, specs

FRAMES = 1_000
IMAGE_FRAMES = 600  # of Atari games, which take longer
SMALL = ("~tuned", "env.num_envs=4", "net.hidden=[16]", "eval.episodes=2", "eval.max_steps=50")
ON_POLICY = {"ppo": ("algo.horizon=32", "algo.batch_size=64")}
OFF_POLICY = ("algo.horizon=4", "algo.memory.size=1000", "algo.batch_size=16")
DEFAULT = [("ppo", "humanoid"), ("sac", "pusher")]  # tested by default; all others are slow


def check_law_1(folder: Path, algo: str, *overrides: str, frames: int = FRAMES) -> None:
    """Compare a Session that is trained alone with one of a stack that is killed and resumed."""
    often = (f"frames={frames}", f"checkpoint.every={frames // 4}", f"eval.every={frames // 2}")
    rows = ("log.tensorboard=false", f"log.every={frames // 4}")
    if hasattr(specs(f"algo={algo}")[0].algo, "learning_starts"):
        learning = (*OFF_POLICY, f"algo.learning_starts={frames // 3}")
    else:
        learning = ON_POLICY.get(algo, ("algo.horizon=32",))
    every = (f"algo={algo}", *SMALL, *often, *rows, *learning, *overrides)
    alone, stack = specs(*every, "seed=1"), specs(*every, "seed=[0,1]")
    try:
        probe(alone[0].env)
    except LabError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        raise
    directories = [RunDir(folder / "stack" / str(spec.seed)) for spec in stack]
    assert go_on(alone, [RunDir(folder / "alone")]) == ["completed"]
    intervals = frames * 2 // 3 // (alone[0].algo.horizon * alone[0].env.num_envs)
    interruption = (Stack, "collect_and_learn", intervals, _kill)
    assert set(go_on(stack, directories, interruption)) == {"interrupted"}
    assert 0 < directories[1].read_status()["frame"] < frames
    assert set(go_on(stack, directories)) == {"completed"}
    assert result(directories[1]) == result(RunDir(folder / "alone"))
    assert result(directories[0])["weights"] != result(directories[1])["weights"]


def _kill() -> None:
    raise KeyboardInterrupt


def marks(algo: str, env: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a pair: CI tests PPO on every environment, and each other algorithm on every third."""
    of_ci = algo == "ppo" or (ALGORITHMS.index(algo) + ENVIRONMENTS.index(env)) % 3 == 0
    return [] if (algo, env) in DEFAULT else [pytest.mark.slow, *([pytest.mark.law] if of_ci else [])]


@pytest.mark.parametrize(
    ("algo", "env"),
    [
        pytest.param(algo, env, marks=marks(algo, env))
        for env in ENVIRONMENTS
        for algo in ALGORITHMS
        if serves(algo, env) and (algo == "ppo" or env not in OTHER_ATARI)
    ],
)
def test_law_1_on_every_environment_alone_and_in_a_stack_that_is_killed(tmp_path: Path, algo: str, env: str) -> None:
    if env in ATARI:
        check_law_1(tmp_path, algo, f"env={env}", "net.filters=[2,4,4]", frames=IMAGE_FRAMES)
    else:
        check_law_1(tmp_path, algo, f"env={env}")


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("env.id=MiniGrid-Empty-5x5-v0", "env.wrappers=[minigrid.wrappers.ImgObsWrapper]"),
        ("env.id=PointMaze_UMaze-v3",),
        ("env.id=AdroitHandDoor-v1",),
        ("env.id=dm_control/cartpole-balance-v0", "env.max_episode_steps=100"),
    ],
    ids=lambda overrides: overrides[0].removeprefix("env.id="),
)
def test_law_1_on_environments_of_other_packages(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    check_law_1(tmp_path, "ppo", "env=gymnasium", *overrides)
