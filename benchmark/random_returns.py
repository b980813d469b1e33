"""Mean return of uniformly random actions in each environment of conf/env, for its keys reference.random_return*.

python -m benchmark.random_returns [NAME ...] [episodes=N]    # as in conf/env/NAME.yaml; all of them by default
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import yaml

CONF = Path(__file__).resolve().parent.parent / "conf" / "env"
EPISODES = 10_000
SEED = 0


def random_returns(env_id: str, kwargs: dict[str, Any], episodes: int = EPISODES) -> np.ndarray:
    """Return the return [episodes] of each episode.

    The environment and the actions have streams of their own, spawned from SEED. With one seed for both, as Gymnasium
    seeds them, an initial state and the first actions would be the same draws.
    """
    of_env, of_actions = (int(child.generate_state(1)[0]) for child in np.random.SeedSequence(SEED).spawn(2))
    module = "ale_py:" if env_id.startswith("ALE/") else ""  # which registers it
    env = gym.make(f"{module}{env_id}", disable_env_checker=True, **kwargs)
    env.reset(seed=of_env)
    env.action_space.seed(of_actions)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        if episode:
            env.reset()
        done = False
        while not done:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[episode] += float(reward)
            done = terminated or truncated
    env.close()
    return returns


def main(arguments: list[str]) -> None:
    """Print for each environment the mean return, its standard error and the number of episodes."""
    options = [argument for argument in arguments if argument.startswith("episodes=")]
    names = [argument for argument in arguments if argument not in options]
    episodes = int(options[-1].partition("=")[2]) if options else EPISODES
    for path in sorted(CONF.glob("*.yaml")):
        conf = yaml.safe_load(path.read_text())
        if conf.get("reference", {}).get("id") and (not names or path.stem in names):
            returns = random_returns(conf["id"], conf.get("kwargs", {}), episodes)
            error = returns.std(ddof=1) / np.sqrt(len(returns))
            print(
                f"{path.stem}: random_return: {returns.mean():.2f}, random_return_error: {error:.2f},"
                f" {len(returns):,} episodes, seed {SEED}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
