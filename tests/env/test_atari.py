"""Atari games: the usual preprocessing to the byte, and states that go on exactly."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest

from lab.env.make import make_single
from lab.env.vector import Environments, detect_restore_method, probe
from lab.errors import LabError
from tests.helpers import ATARI, lab, specs, train

Step = tuple[np.ndarray, float, bool]


class Reference:
    """The preprocessing as its definition reads, without any thought of speed; only for games that are not sticky."""

    def __init__(self, env: gym.Env[Any, Any], life_ends: bool) -> None:
        self.env, self.life_ends = env, life_ends
        self.pair = np.zeros((2, 210, 160, 3), np.uint8)
        self.lives, self.over = 0, True
        self.fires = "FIRE" in env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]

    def reset(self, seed: int | None = None) -> np.ndarray:
        picture = self.start(seed)
        if self.fires:
            for action in (1, 2):
                picture, _, done = self.play(action)
                if done:
                    self.start(None)
        self.stack = [np.zeros((84, 84), np.uint8)] * 3 + [self.gray(picture)]
        return np.stack(self.stack)

    def start(self, seed: int | None) -> np.ndarray:
        if not self.over:
            picture, _, _ = self.play(0)
        if self.over:
            picture, _ = self.env.reset(seed=seed)
            for _ in range(self.env.unwrapped.np_random.integers(1, 31)):
                picture = self.env.step(0)[0]
        self.over, self.lives = False, self.env.unwrapped.ale.lives()  # type: ignore[attr-defined]
        return picture

    def step(self, action: int) -> Step:
        picture, reward, done = self.play(action)
        self.stack = [*self.stack[1:], self.gray(picture)]
        return np.stack(self.stack), float(np.sign(reward)), done

    def play(self, action: int) -> Step:
        total = 0.0
        for frame in range(4):
            picture, reward, terminated, truncated, _ = self.env.step(action)
            total += float(reward)
            self.over = terminated or truncated
            if frame >= 2:
                self.pair[frame - 2] = picture
            if self.over:
                break
        lives = self.env.unwrapped.ale.lives()  # type: ignore[attr-defined]
        lost = self.life_ends and 0 < lives < self.lives
        self.lives = lives
        return self.pair.max(0), total, self.over or lost

    def gray(self, picture: np.ndarray) -> np.ndarray:
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        return cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)


def wrapped(game: str, *overrides: str, **arguments: Any) -> gym.Env[Any, Any]:
    item = ",".join(f"{key}: {value}" for key, value in {"name": "AtariWrapper", **arguments}.items())
    return make_single(specs(f"env={game}", f"env.wrappers=[{{{item}}}]", *overrides)[0].env)


@pytest.mark.parametrize("life_ends", [False, True])
@pytest.mark.parametrize(
    ("game", "steps"),
    [("breakout", 300), ("mspacman", 600), *(pytest.param(game, 3000, marks=pytest.mark.slow) for game in ATARI)],
)
def test_the_preprocessing_is_that_of_its_definition_to_the_byte(game: str, steps: int, life_ends: bool) -> None:
    env_id = specs(f"env={game}")[0].env.id.replace("ALE/", "").replace("-v5", "NoFrameskip-v4")
    ours = wrapped(game, f"env.id={env_id}", terminal_on_life_loss=str(life_ends).lower())
    reference = Reference(gym.make(env_id, disable_env_checker=True), life_ends)
    np.testing.assert_array_equal(ours.reset(seed=5)[0], reference.reset(5))
    rng, ends, points = np.random.default_rng(5), 0, 0.0
    for _ in range(steps):
        action = int(rng.integers(ours.action_space.n))  # type: ignore[attr-defined]
        observation, reward, terminated, truncated, _ = ours.step(action)
        expected = reference.step(action)
        np.testing.assert_array_equal(observation, expected[0])
        assert (reward, terminated or truncated) == expected[1:]
        points += abs(reward)
        if terminated or truncated:
            ends += 1
            np.testing.assert_array_equal(ours.reset()[0], reference.reset())
    assert points > 0
    assert ends > 0 or game == "enduro"


@pytest.mark.parametrize("game", ["qbert", *(pytest.param(game, marks=pytest.mark.slow) for game in ATARI)])
def test_a_game_goes_on_exactly_from_its_pickle(game: str) -> None:
    """With sticky actions, after the loss of lives and in a later game than the first."""
    env = wrapped(game, terminal_on_life_loss="true")
    rng, done, twins, compared = np.random.default_rng(1), False, list[Any](), 0
    env.reset(seed=1)
    for step in range(600):
        if step in (250, 400):
            twins = [pickle.loads(pickle.dumps(env))]
        action = int(rng.integers(env.action_space.n))  # type: ignore[attr-defined]
        results = [one.reset() if done else one.step(action) for one in (env, *twins)]
        done = not done and (results[0][2] or results[0][3])
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][0], other[0])
            np.testing.assert_equal(results[0][1:], other[1:])
            compared += 1
    assert compared == 350


def test_an_atari_game_is_restored_by_its_pickle_and_knows_its_limit() -> None:
    spec = specs("env=pong")[0].env
    assert detect_restore_method(spec) == "pickle"
    assert Environments(spec, 1, np.random.default_rng(0)).time_limit == 27_000


@pytest.mark.parametrize(
    ("overrides", "frames"),
    [
        (("env=pong", "env.wrappers=[{name: AtariWrapper, frame_stack: 3}]"), 3),
        (("env=atari", "env.id=ale_py:ALE/Pong-v5"), 4),
        (("env=atari", "env.id=ALE/Pong"), 4),
        (("env=pong", "env.wrappers=[AtariWrapper, {name: TransformReward, func: math.exp}]"), 4),
        (("env=pong", "env.wrappers=[AtariWrapper, {name: ResizeObservation, shape: [4, 84]}]"), 1),
        (("env=cartpole", "env.wrappers=[{name: FrameStackObservation, stack_size: 5}]"), 5),
        (("env=cartpole", "env.wrappers=[{name: VecFrameStack, n_stack: 5}]"), 5),
        (
            ("env=gymnasium", "env.id=tests.envs:Picture-v0", "env.wrappers=[{name: VecFrameStack, n_stack: 5}]"),
            1,
        ),  # along the last axis
        (("env=cartpole",), 1),
    ],
)
def test_memories_know_how_many_frames_are_stacked(overrides: tuple[str, ...], frames: int) -> None:
    assert probe(specs(*overrides)[0].env).frame_stack == frames


def test_a_game_without_the_wrapper_has_one_shape(tmp_path: Path) -> None:
    overrides = ("env=gymnasium", "env.id=ALE/Pong-v5", "+env.kwargs.obs_type=ram", "name=ram", "env.num_envs=2")
    assert probe(specs(*overrides[:2])[0].env).observation.shape == (210, 160, 3)
    assert probe(specs(*overrides)[0].env).observation.shape == (128,)
    directory = train(tmp_path, *overrides, "frames=40", "algo.horizon=10", "eval.every=0")[0]
    assert directory.read_status()["state"] == "completed"


def test_processes_give_the_same_as_one() -> None:
    runs = []
    for mode in ("sync", "async"):
        envs = Environments(specs("env=pong", f"env.vectorization_mode={mode}")[0].env, 2, np.random.default_rng(0))
        observations = [envs.reset(), *(envs.step(np.array([step % 6, 3])).observation for step in range(8))]
        runs.append(np.stack(observations))
        envs.close()
    np.testing.assert_array_equal(*runs)


def test_a_return_is_the_score_of_the_whole_game(tmp_path: Path) -> None:
    """Lives end episodes of learning, and rewards are clipped; neither shows in what is reported."""
    env = wrapped("spaceinvaders", terminal_on_life_loss="true")
    rng, score, learned, lives = np.random.default_rng(0), 0.0, 0.0, 0
    env.reset(seed=0)
    while True:
        *_, reward, terminated, truncated, info = env.step(int(rng.integers(6)))
        reported, over = info["reported"]
        score, learned = score + reported, learned + reward
        lives += terminated
        if over:
            break
        if terminated or truncated:
            score += env.reset()[1]["reported"][0]
    assert lives == 2
    assert score >= 5 * learned > 0
    assert score % 5 == 0
    env.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("env=cartpole", "env.wrappers=[AtariWrapper]"),
            r"\[0\]=AtariWrapper .*CartPole-v1: it must be the first",
        ),
        (
            ("env=pong", "env.wrappers=[{name: MaxAndSkipObservation, skip: 2}, AtariWrapper]"),
            "must be the first",
        ),
        (("env=pong", "env.wrappers=[AtariWrapper, AtariWrapper]"), "must be the first wrapper"),
        (("env=pong", "env.wrappers=[{name: AtariWrapper, frame_skip: 0}]"), r"\[0\].frame_skip=0 .* 1 or more"),
        (("env=pong", "env.wrappers=[{name: AtariWrapper, clip_reward: 3}]"), r"\[0\].clip_reward must be true or"),
        (("env=atari", "env.id=ALE/Pang-v5"), "does not exist"),
        (("env=pong", "+env.kwargs.obs_type=ram"), "env.kwargs.obs_type must be left out with AtariWrapper"),
    ],
)
def test_mistakes_with_atari_games_are_sentences(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(LabError, match=message):
        probe(specs(*overrides)[0].env)


def test_a_missing_package_is_named_with_its_command(tmp_path: Path) -> None:
    (tmp_path / "ale_py.py").write_text("raise ModuleNotFoundError(\"No module named 'ale_py'\", name='ale_py')")
    run = lab("algo=ppo", "env=pong", cwd=Path.cwd(), env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}, fresh=True)
    assert run.returncode == 2
    assert "pip install -e '.[atari]'" in run.stderr
    assert "Traceback" not in run.stderr
