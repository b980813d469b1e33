"""Mean return of uniformly random actions in each environment of conf/env, for its key reference.random_return.

python -m benchmark.random_returns
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

CONF = Path(__file__).resolve().parent.parent / "conf" / "env"
EPISODES = 100


def random_return(env_id: str, kwargs: dict[str, Any]) -> float:
    """Return the mean return of episodes 0 to 99, each seeded with its number, as its actions are."""
    env = gym.make(env_id, **kwargs)
    total = 0.0
    for episode in range(EPISODES):
        env.reset(seed=episode)
        env.action_space.seed(episode)
        done = False
        while not done:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            done = terminated or truncated
    env.close()
    return total / EPISODES


if __name__ == "__main__":
    for path in sorted(CONF.glob("*.yaml")):
        conf = yaml.safe_load(path.read_text())
        if conf["reference"]["id"]:
            print(f"{conf['name']}: {random_return(conf['id'], conf['kwargs']):.2f}")
