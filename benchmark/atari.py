"""Atari preprocessing beside Stable-Baselines3's: the same bytes for the same actions, and at which speed.

    python -m benchmark.atari [GAME ...] [steps=3000]    # as in conf/env/GAME.yaml; all games by default

The same uniformly random actions go to Lab's environment and to AtariWrapper with VecFrameStack, as a training loop
steps them, in the games without sticky actions and with the loss of a life as an end. Microseconds are those of the
processor, for one step of one of 8 environments.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import process_time
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
from hydra import compose, initialize_config_dir

from lab.env.vector import Environments
from lab.spec import read

CONF = Path(__file__).resolve().parent.parent / "conf"
GAMES = {
    "beamrider": "BeamRider",
    "breakout": "Breakout",
    "enduro": "Enduro",
    "mspacman": "MsPacman",
    "pong": "Pong",
    "qbert": "Qbert",
    "seaquest": "Seaquest",
    "spaceinvaders": "SpaceInvaders",
}
NUM_ENVS = 8


class Ours:
    """Lab's environments, which reset at the step after an episode's last, with resets that cost no step."""

    def __init__(self, env_id: str, seeds: list[int]) -> None:
        wrapper = "env.wrappers=[{name: AtariWrapper, terminal_on_life_loss: true}]"
        with initialize_config_dir(str(CONF)):
            spec = read(compose("config", ["algo=ppo", "env=atari", f"env.id={env_id}", wrapper]))[0].env
        self.envs = Environments(spec, len(seeds), np.random.default_rng(0))
        self.vector: Any = self.envs._base
        self.seeds, self.seconds = seeds, 0.0

    def reset(self) -> np.ndarray:
        """Return the first observations."""
        return self.vector.reset(seed=self.seeds)[0]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return observations, after an end those of the reset, rewards and ends."""
        start = process_time()
        observation, reward, terminated, truncated, _ = self.vector.step(actions)
        done = terminated | truncated
        for e in np.flatnonzero(done):
            observation[e] = self.vector.envs[e].reset()[0]
            self.vector._done[e] = False
        self.seconds += process_time() - start
        return observation, reward, done


class Theirs:
    """Stable-Baselines3's, with channels first."""

    def __init__(self, env_id: str, seeds: list[int]) -> None:
        from stable_baselines3.common.atari_wrappers import AtariWrapper
        from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

        gym.register_envs(ale_py)
        makers = [lambda: AtariWrapper(gym.make(env_id, disable_env_checker=True)) for _ in seeds]
        self.inner = DummyVecEnv(makers)
        self.vector = VecFrameStack(self.inner, 4)
        self.seeds, self.seconds = seeds, 0.0

    def reset(self) -> np.ndarray:
        """Return the first observations."""
        self.inner._seeds = list(self.seeds)
        return self.vector.reset().transpose(0, 3, 1, 2)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return observations, after an end those of the reset, rewards and ends."""
        start = process_time()
        observation, reward, done, _ = self.vector.step(actions)
        self.seconds += process_time() - start
        return observation.transpose(0, 3, 1, 2), reward, done


def compare(game: str, steps: int) -> list[str]:
    """Return a game's row of the table, for so many steps of all environments together."""
    seeds = list(range(NUM_ENVS))
    both: Any = [made(f"{GAMES[game]}NoFrameskip-v4", seeds) for made in (Ours, Theirs)]
    rng, actions = np.random.default_rng(0), both[0].vector.single_action_space.n
    first, second = (one.reset() for one in both)
    pixels, others, ends = int((first != second).sum()), 0, 0
    for _ in range(-(-steps // NUM_ENVS)):
        action = rng.integers(actions, size=NUM_ENVS)
        ours, theirs = (one.step(action) for one in both)
        pixels += int((ours[0] != theirs[0]).sum())
        others += int((ours[1] != theirs[1]).sum() + (ours[2] != theirs[2]).sum())
        ends += int(ours[2].sum())
    total = -(-steps // NUM_ENVS) * NUM_ENVS
    speeds = [one.seconds / total * 1e6 for one in both]
    return [game, f"{total:,}", f"{ends:,}", f"{pixels:,}", f"{others:,}", *(f"{speed:.0f}" for speed in speeds)]


def main(arguments: list[str]) -> None:
    """Print the table."""
    names = [word for word in arguments if "=" not in word] or sorted(GAMES)
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    heads = ["game", "steps", "ends", "other bytes", "other rewards, ends", "us, Lab", "us, Stable-Baselines3"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in names:
        print(f"| {' | '.join(compare(name, int(options.get('steps', '3000'))))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
