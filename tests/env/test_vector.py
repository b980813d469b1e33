from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.env.make import make_single
from lab.env.spaces import ActionConverter
from lab.env.vector import Environments, probe
from lab.errors import LabError
from tests.helpers import ENVIRONMENTS, OTHER_ATARI, lab, specs

EMPTY = ("env=gymnasium", "env.id=tests.envs:Empty-v0")


def number(low: float, high: float) -> st.SearchStrategy[float]:
    # Training rounds the smallest numbers of this process to zero.
    return st.floats(low, high, allow_subnormal=False)


def env_spec(*overrides: str):
    return specs(*overrides)[0].env


@pytest.mark.parametrize("env", [env for env in ENVIRONMENTS if env not in OTHER_ATARI])
def test_every_environment_steps_and_resets_itself(env: str) -> None:
    spec = env_spec(f"env={env}")
    spaces = probe(spec)
    envs = Environments(spec, 3, np.random.default_rng(0))
    observation = envs.reset()
    assert observation.shape == (3, *spaces.observation.shape)
    shape = {gym.spaces.Discrete: (3,)}.get(type(spaces.action), (3, *(spaces.action.shape or ())))
    for _ in range(30):
        observation, reward, terminated, truncated, _ = envs.step(np.zeros(shape, spaces.action.dtype))
        assert observation.shape == (3, *spaces.observation.shape)
        assert reward.shape == terminated.shape == truncated.shape == (3,)
    envs.close()


def test_the_native_vector_class_is_used_if_there_is_one() -> None:
    for vectorize, native in (("auto", True), ("native", True), ("sync", False)):
        envs = Environments(env_spec(f"env.vectorization_mode={vectorize}"), 2, np.random.default_rng(0))
        assert (type(envs._envs.unwrapped).__name__ == "CartPoleVectorEnv") == native
        envs.close()
    with pytest.raises(LabError, match="no vector implementation"):
        Environments(env_spec("env=pendulum", "env.vectorization_mode=native"), 2, np.random.default_rng(0))


def test_async_steps_as_sync_does() -> None:
    runs = []
    for vectorize in ("sync", "async"):
        envs = Environments(
            env_spec("env=pendulum", f"env.vectorization_mode={vectorize}"), 2, np.random.default_rng(0)
        )
        envs.reset()
        runs.append([envs.step(np.full((2, 1), 0.3))[0].tolist() for _ in range(5)])
        envs.close()
    assert runs[0] == runs[1]


def test_observations_of_any_shape_are_flattened() -> None:
    for env_id, size in (("FrozenLake-v1", 16), ("Blackjack-v1", 32 + 11 + 2)):
        spec = env_spec("env=gymnasium", f"env.id={env_id}")
        assert probe(spec).observation.shape == (size,)
        envs = Environments(spec, 2, np.random.default_rng(0))
        assert envs.reset().shape == (2, size)
        envs.close()


def test_the_autoreset_step_has_no_reward() -> None:
    spec = env_spec("env.vectorization_mode=sync")
    for vectorize in ("sync", "native"):
        envs = Environments(dataclasses.replace(spec, vectorization_mode=vectorize), 1, np.random.default_rng(0))
        envs.reset()
        done = False
        while not done:
            observation, reward, terminated, truncated, _ = envs.step(np.ones(1, np.int64))
            done = bool(terminated[0] or truncated[0])
        assert abs(observation[0, 2]) > 0.2, "the true last observation"
        observation, reward, terminated, truncated, _ = envs.step(np.ones(1, np.int64))
        assert abs(observation[0]).max() <= 0.05
        assert (reward[0], terminated[0], truncated[0]) == (0, False, False)
        envs.close()


def test_actions_are_converted() -> None:
    box = ActionConverter(gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)))
    assert box.convert(np.array([[-1.0, -1.0], [0.0, 0.0], [5.0, 1.0]])).tolist() == [[-2, 0], [0, 0.5], [2, 1]]
    half = ActionConverter(gym.spaces.Box(0.0, np.inf, (1,), np.float32))
    assert half.convert(np.array([[-1.0], [3.0]])).tolist() == [[0.0], [3.0]]
    whole = ActionConverter(gym.spaces.Box(-128, 127, (1,), np.int8))
    assert whole.convert(np.array([[-1.0], [0.0], [1.0]])).tolist() == [[-128], [0], [127]]
    unbounded = ActionConverter(gym.spaces.Box(-np.inf, np.inf, (1,), np.float32))
    assert unbounded.convert(np.array([[7.0]])).tolist() == [[7.0]]
    square = ActionConverter(gym.spaces.Box(-1, 1, (2, 2), np.float32))
    assert square.convert(np.zeros((3, 4))).shape == (3, 2, 2)
    assert ActionConverter(gym.spaces.Discrete(3, start=5)).convert(np.array([0, 2])).tolist() == [5, 7]


@given(number(-10, 10), number(0.01, 10), st.lists(number(-2, 2), min_size=1, max_size=5))
def test_actions_never_leave_the_bounds(low: float, width: float, numbers: list[float]) -> None:
    space = gym.spaces.Box(np.float32(low), np.float32(low) + np.float32(width), (1,), np.float32)
    for action in ActionConverter(space).convert(np.array([[-1.0], [1.0], *([number] for number in numbers)])):
        assert space.contains(action)


@pytest.mark.filterwarnings("ignore:.*latest versioned environment")
def test_an_id_without_a_version_is_the_newest_version() -> None:
    envs = Environments(env_spec("env.id=CartPole"), 2, np.random.default_rng(0))
    assert envs.reset().shape == (2, 4)
    envs.close()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("env.id=CartPole-v9",), "v9.*doesn't exist"),
        (("env.id=Nothing-v0",), "does not exist"),
        (("env.id=nowhere.module:X-v0",), "nowhere"),
        (("+env.kwargs.color=red",), "color"),
        (("env=gymnasium", "env.id=tests.envs:Text-v0"), "Discrete, MultiDiscrete, MultiBinary or Box"),
        ((*EMPTY, "+env.kwargs.space=dict"), r"observations with an empty Dict or Tuple: Dict\(\)"),
        (
            (*EMPTY, "+env.kwargs.space=part"),
            r"observations with an empty Dict or Tuple: Dict\('position': .*Tuple\(\)",
        ),
        ((*EMPTY, "+env.kwargs.space=box"), r"observations without any number: Box\(.*\(3, 0\)"),
        ((*EMPTY, "+env.kwargs.space=image"), r"observations without any number: Box\(.*\(0, 8, 3\)"),
        ((*EMPTY, "+env.kwargs.space=action"), r"action space Box\(.*\(0,\), float32\), in which there is nothing"),
    ],
)
def test_environments_that_cannot_be_made(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        probe(env_spec(*overrides))


@pytest.mark.parametrize("mode", ["native", "sync"])
def test_episodes_are_cut(mode: str) -> None:
    spec = env_spec(f"env.vectorization_mode={mode}", "env.max_episode_steps=5")
    envs = Environments(spec, 2, np.random.default_rng(0))
    envs.reset()
    ends = [envs.step(np.array([step % 2, step % 2]))[3].all() for step in range(5)]
    assert ends == [False] * 4 + [True]
    assert envs.time_limit == 5
    envs.close()


def test_the_time_limit_is_that_of_the_environment_by_default() -> None:
    limits = {"CartPole-v1": 500, "Blackjack-v1": None}
    for env_id, limit in limits.items():
        assert (
            Environments(env_spec("env=gymnasium", f"env.id={env_id}"), 1, np.random.default_rng(0)).time_limit == limit
        )


def test_an_empty_space_is_a_sentence_of_the_command_line(tmp_path: Path) -> None:
    done = lab(*EMPTY, "+env.kwargs.space=dict", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert done.stderr == "Error: env.id=tests.envs:Empty-v0 has observations with an empty Dict or Tuple: Dict().\n"
    assert not (tmp_path / "run").exists()


def test_an_environment_can_be_rendered() -> None:
    env = make_single(env_spec(), "rgb_array")
    env.reset(seed=0)
    assert env.render().shape[2] == 3
    env.close()


def test_async_environments_are_closed_during_a_step() -> None:
    envs = Environments(env_spec("env=pendulum", "env.vectorization_mode=async"), 2, np.random.default_rng(0))
    envs.reset()
    workers = envs._base.processes
    envs._base.step_async(np.zeros((2, 1), np.float32))
    assert envs._base.parent_pipes[0].recv()  # one of the answers is missing now
    envs.close()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
