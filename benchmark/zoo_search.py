"""RL Zoo's `optimize` with the search space of benchmark.search; its own arguments follow on the command line.

RL Zoo draws sizes too: steps, batch, epochs and network, which decide how long a Trial takes. They are held fixed here,
so that both searches train the same networks as often; only its sampling function is replaced.
"""

from __future__ import annotations

from typing import Any

import optuna
from rl_zoo3 import hyperparams_opt
from rl_zoo3.train import train


def sample(trial: optuna.Trial, *_: Any) -> dict[str, Any]:
    """Return a point of the space of benchmark.search."""
    return {
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 10,
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "clip_range": trial.suggest_float("clip_range", 0.1, 0.3),
        "gae_lambda": trial.suggest_float("gae_lambda", 0.9, 1.0),
        "ent_coef": trial.suggest_float("ent_coef", 1e-5, 1e-2, log=True),
    }


if __name__ == "__main__":
    hyperparams_opt.HYPERPARAMS_SAMPLER["ppo"] = sample
    train()
