"""An environment's own score and episodes, whatever its wrappers change or hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from lab.command.enjoy import main as enjoy
from lab.env.make import make_single
from lab.env.monitor import Monitor, Report
from lab.env.vector import Environments
from tests.helpers import specs, train

GAMES = ("env=gymnasium", "env.id=tests.env.test_monitor:Games-v0", "env.vectorization_mode=sync")
LIVES = "env.wrappers=[tests.env.test_monitor.Lives]"


class Games(gym.Env[np.ndarray, int]):
    """A game of 6 steps, in which the n-th game's step k gives 100 n + k; a life is lost every 2 steps."""

    observation_space = gym.spaces.Box(0, 1000, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    game = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.game, self.time = self.game + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        over = self.time == 6
        info = {"won": over, "lives": 3 - self.time // 2, "game": self.game}
        return np.full(1, self.time, np.float32), 100.0 * self.game + self.time, over, False, info


class Lives(gym.Wrapper[Any, Any, Any, Any]):
    """Ends what is learned from at the loss of a life, goes on by a hidden step, and hides the rewards."""

    over = True

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        if not self.over:
            observation, _, self.over, _, info = self.env.step(0)
            if not self.over:
                return observation, info
        self.over = False
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, self.over, _, info = self.env.step(action)
        return observation, 0.0, self.over or info["lives"] in (1, 2), False, info


class Late(Lives):
    """Ends what is learned from a step before the end, which only its reset sees."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, self.over, _, info = self.env.step(action)
        return observation, 0.0, self.over or observation[0] == 5, False, info | {"seen": observation[0]}


gym.register("Games-v0", entry_point=Games)


def rows(*overrides: str, steps: int = 20, envs: int = 1) -> np.ndarray:
    """Return what environments report [T, E, R]."""
    made = Environments(specs(*GAMES, *overrides)[0].env, envs, np.random.default_rng(0))
    made.reset()
    steps_taken = [made.step(np.zeros(envs, np.int64)) for _ in range(steps)]
    made.close()
    return np.stack([step.reported for step in steps_taken])


def test_an_environment_without_wrappers_and_metrics_reports_nothing() -> None:
    assert rows().shape == (20, 1, 0)
    env = make_single(specs("env=cartpole")[0].env)
    while isinstance(env, gym.Wrapper):
        assert not isinstance(env, (Monitor, Report))
        env = env.env


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_score_is_that_of_whole_games(mode: str) -> None:
    score, over, won, game = rows(LIVES, "env.metrics=[won,game]", f"env.vectorization_mode={mode}", envs=2)[:, 1].T
    ends = np.flatnonzero(over)
    totals = [part.sum() for part in np.split(score, ends + 1)][: len(ends)]
    assert totals == [6 * 100 * n + 21 for n in range(1, len(ends) + 1)] and len(ends) > 2
    assert np.array_equal(won[ends], np.ones(len(ends))) and np.array_equal(game[ends], np.arange(1, len(ends) + 1))
    assert np.isnan(won[over == 0]).all()


def test_metrics_are_those_of_an_end_that_only_a_reset_sees() -> None:
    late = "env.wrappers=[tests.env.test_monitor.Late]"
    score, over, won, game, seen = rows(late, "env.metrics=[won,game,seen]")[:, 0].T
    ends = np.flatnonzero(over)
    assert [part.sum() for part in np.split(score, ends + 1)][: len(ends)] == [621.0, 1221.0, 1821.0]
    assert won[ends].tolist() == [1.0] * 3 and game[ends].tolist() == [1.0, 2.0, 3.0]
    assert seen[ends].tolist() == [5.0] * 3, "which a wrapper adds"


def test_a_game_that_a_wrapper_cuts_ends_at_its_reset() -> None:
    score, over = rows("env.wrappers=[{name:TimeLimit,max_episode_steps:4}]")[:, 0].T
    assert np.array_equal(np.flatnonzero(over), [4, 9, 14, 19])
    assert [part.sum() for part in np.split(score, [5, 10, 15, 20])[:4]] == [410.0, 810.0, 1210.0, 1610.0]


@pytest.mark.parametrize(
    ("chosen", "frames", "lengths"),
    [(LIVES, [6, 13, 20, 27], [4, 4, 4, 4]), ("env.wrappers=[{name:TimeLimit,max_episode_steps:4}]", [4, 9], [4, 4])],
)
def test_episodes_are_those_of_the_environment(
    tmp_path: Path, chosen: str, frames: list[int], lengths: list[int]
) -> None:
    short = ("algo.horizon=10", "frames=60", "env.num_envs=1", "eval.every=0", "log.every=60", "checkpoint.every=60")
    (directory,) = train(tmp_path, *GAMES, chosen, "env.isolate_rng=never", *short)
    _, *lines = directory.episodes.read_text().splitlines()
    table = np.array([line.split(",")[:3] for line in lines], float)
    steps = 6 if "Lives" in chosen else 4
    assert table[:, 1].tolist() == [steps * 100.0 * n + (21 if steps == 6 else 10) for n in range(1, len(table) + 1)]
    assert table[: len(frames), 0].tolist() == frames and table[: len(lengths), 2].tolist() == lengths


def test_evaluation_and_enjoy_play_whole_games(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("algo.horizon=10", "frames=20", "env.num_envs=1", "eval.every=20", "eval.episodes=2", "log.every=20")
    (directory,) = train(tmp_path, *GAMES, LIVES, "env.isolate_rng=never", *short)
    last = directory.metrics.read_text().splitlines()[-1]
    assert last.endswith(",621.0,4.0")
    enjoy([str(directory.path), "episodes=2", "code=here"])
    printed = capsys.readouterr().out
    assert [line.split()[3:6:2] for line in printed.splitlines() if line.startswith("episode")] == [
        ["621.00", "4"],
        ["1221.00", "4"],
    ]
