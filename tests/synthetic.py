"""Run directories such as a sweep leaves, made up: for tests of analysis that need many of them, or rare ones."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lab.run.directory import RunDir, SweepDir
from lab.run.files import write_json, write_sealed_json
from tests.helpers import specs

TRACEBACK = 'Traceback (most recent call last):\n  File "env.py", line 7, in step\nRuntimeError: the environment broke'


def experiment(
    folder: Path,
    trials: int = 6,
    seeds: int = 4,
    rows: int = 50,
    states: dict[tuple[int, int], str] | None = None,
    seed: int = 0,
    frames: int | None = None,
) -> SweepDir:
    """Make up an Experiment over algo.lr (log scale), algo.gamma and algo.advantage.

    Args:
        folder: where; its name is not used.
        trials: Trials.
        seeds: Sessions of each.
        rows: log intervals of a whole Session.
        states: by Trial and seed, how Sessions stand that did not complete.
        seed: origin of what is random in it.
        frames: of each Session; None for the default.
    """
    rng = np.random.default_rng(seed)
    sweep = SweepDir(folder)
    base = specs("algo=a2c", "env=cartpole", *([f"frames={frames}"] if frames else []))[0].to_dict()
    swept = ["algo.lr", "algo.gamma", "algo.advantage"]
    write_sealed_json(
        sweep.sweep,
        {
            "kind": "experiment",
            "name": base["name"],
            "objective": {"metrics": ["return"], "directions": ["maximize"], "aggregate": "mean"},
            "hyperparameters": swept,
            "seeds": list(range(seeds)),
            "trials": trials,
            "search": "a2c",
        },
    )
    for number in range(trials):
        values = {
            "algo.lr": float(10 ** rng.uniform(-4, -1)),
            "algo.gamma": float(rng.choice([0.9, 0.99, 0.999])),
            "algo.advantage": str(rng.choice(["gae", "n_step"])),
        }
        trial = sweep.trial(number)
        point = {"overrides": [f"{key}={value}" for key, value in values.items()], "hyperparameters": values}
        write_sealed_json(trial.point, {"number": number, **point, "seeds": list(range(seeds))})
        spec = copy.deepcopy(base)
        spec["algo"] |= {"gamma": values["algo.gamma"], "advantage": values["algo.advantage"]}
        spec["algo"]["optimizer"]["lr"] = values["algo.lr"]
        for s in range(seeds):
            state = (states or {}).get((number, s), "completed")
            if state != "pending":
                session(trial.session(s), {**spec, "seed": s}, state, level_of(values), rows, rng)
    return sweep


def level_of(values: dict[str, Any]) -> float:
    """Return the level that a made-up Session reaches: best at a learning rate of 3e-3 and a gamma of 0.99."""
    distance = abs(math.log10(values["algo.lr"]) - math.log10(3e-3))
    penalty = {0.9: 120.0, 0.99: 0.0, 0.999: 40.0}[values["algo.gamma"]] + 20.0 * (values["algo.advantage"] == "n_step")
    return max(480 * math.exp(-(distance**2)) - penalty, 20.0)


def session(
    directory: RunDir, spec: dict[str, Any], state: str, level: float, rows: int, rng: np.random.Generator
) -> None:
    """Make up a Session that climbs to a level; one that did not complete has done half of its frames."""
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.spec.write_text(yaml.safe_dump(spec, sort_keys=False))
    done = rows if state == "completed" else rows // 2
    frames = spec["frames"] // rows * np.arange(1, done + 1)
    level *= rng.uniform(0.85, 1.05)
    climb = level * (1 - np.exp(-np.arange(1, done + 1) / rows * 5)) + 20
    returns = np.clip(climb + rng.normal(0, 8, done), 9, 500)
    entropy = 0.69 * np.exp(-np.arange(done) / rows) + 0.02 * rng.random(done)
    metrics = pd.DataFrame(
        {
            "frame": frames, "optimizer_steps": frames // 40, "episodes": np.arange(done) * 10, "return": returns,
            "length": returns, "policy_loss": rng.normal(0, 0.1, done), "value_loss": 50 * rng.random(done) + 1,
            "entropy_loss": -entropy, "entropy": entropy, "approx_kl": 0.01 * rng.random(done),
            "explained_variance": rng.random(done), "grad_norm": rng.random(done),
            "learning_rate": spec["algo"]["optimizer"]["lr"],
            "ent_coef": 0.0, "eval_return": np.where(np.arange(done) % 10 == 9, returns + 10, np.nan),
            "eval_length": np.where(np.arange(done) % 10 == 9, returns + 10, np.nan),
        }
    )  # fmt: skip
    metrics.to_csv(directory.metrics, index=False)
    count = done * 12
    at = np.linspace(frames[0] / 12, frames[-1], count).astype(int)
    episodes = np.interp(at, frames, returns) + rng.normal(0, 15, count)
    episodes = np.clip(episodes.round(), 9, 500)
    pd.DataFrame({"frame": at, "return": episodes, "length": episodes.astype(int)}).to_csv(
        directory.episodes, index=False
    )
    seconds = np.full(done, spec["frames"] / rows / 5000)
    phases = {phase: seconds * fraction for phase, fraction in zip(("collect", "learn"), (0.4, 0.6), strict=True)}
    timing = {"frame": frames, "seconds": seconds, "frames_per_second": 5000.0, **phases, "evaluate": 0.0, "write": 0.0}
    pd.DataFrame(timing).to_csv(directory.timing, index=False)
    git = {"sha": "0123456789abcdef0123456789abcdef01234567", "branch": "main", "uncommitted": False, "left_out": {}}
    write_json(
        directory.provenance,
        {
            "start": "2026-01-01T00:00:00+00:00", "end": "2026-01-01T00:01:00+00:00", "command": "python -m lab -m ...",
            "directory": "/somewhere", "git": {**git, "note": None}, "python": "3.11.7", "host": "host",
            "packages": {"torch": "2.13.0"}, "platform": "Linux", "cpu": {"model": "cpu", "cores": 2}, "gpu": None,
            "device": "cpu", "threads": 1, "stack": [spec["seed"]],
        },
    )  # fmt: skip
    reasons = {"failed": TRACEBACK, "pruned": "pruned at rung 5 of 10 by MedianPruner"}
    directory.log.write_text(f"started\n{reasons.get(state, state)}\n")
    directory.write_status(state, int(frames[-1]), spec["frames"], reasons.get(state), float(returns[-1]), 5000.0)
