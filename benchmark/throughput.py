"""Frames per second against Stable-Baselines3 with the same settings, one thread a process.

    python -m benchmark.throughput [work ...] [rounds=2]

Work is any of ppo, dqn and sac; all of them by default. The contenders take turns, round by round, so that a machine
whose speed drifts does so for all of them; ratios are computed within a round. Sessions run with all that they leave
behind, but without evaluation, which the peer has not.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

CONTENDERS = {"stable-baselines3": None, "lab": "0", "lab, 4 stacked": "[0,1,2,3]"}  # with the seeds of ours
ALWAYS = ("~tuned", "eval.every=0", "threads=1")


@dataclass
class Work:
    """What both are to do."""

    title: str
    frames: int  # that each Session trains for
    settings: tuple[str, ...]  # of our command line
    env_id: str  # of the peer, as all that follows
    num_envs: int
    algorithm: str
    net: dict[str, Any]  # its sizes, and the name of its activation
    arguments: dict[str, Any]


REPLAY = {"batch_size": 64, "learning_rate": 5e-4, "buffer_size": 50_000, "learning_starts": 1000, "gamma": 0.99}
WORK = {
    "ppo": Work(
        title="PPO CartPole-v1",
        frames=60_000,
        settings=(
            "algo=ppo", "env=cartpole", "env.num_envs=8", "algo.horizon=128", "algo.epochs=10", "algo.batch_size=256",
            "algo.lr=1e-3", "algo.optimizer.lr_schedule=constant", "net.hidden=[64,64]", "net.activation=tanh",
            "net.shared=false",
        ),
        env_id="CartPole-v1",
        num_envs=8,
        algorithm="PPO",
        net={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": "Tanh"},
        arguments={"n_steps": 128, "n_epochs": 10, "batch_size": 256, "learning_rate": 1e-3},
    ),
    "dqn": Work(
        title="DQN CartPole-v1",
        frames=30_000,
        settings=(
            "algo=dqn", "env=cartpole", "env.num_envs=1", "algo.horizon=4", "algo.gradient_steps=1",
            "algo.batch_size=64", "algo.lr=5e-4", "algo.learning_starts=1000", "algo.target_update_interval=250",
            "algo.memory.size=50_000",
            "net.hidden=[64,64]", "net.activation=relu",
        ),
        env_id="CartPole-v1",
        num_envs=1,
        algorithm="DQN",
        net={"net_arch": [64, 64], "activation_fn": "ReLU"},
        arguments={**REPLAY, "train_freq": 4, "gradient_steps": 1, "target_update_interval": 1000},
    ),
    "sac": Work(
        title="SAC Pendulum-v1",
        frames=1_500,
        settings=(
            "algo=sac", "env=pendulum", "env.num_envs=1", "algo.horizon=1", "algo.gradient_steps=1",
            "algo.batch_size=256", "algo.lr=1e-3", "algo.temperature_lr=1e-3", "algo.learning_starts=200",
            "algo.memory.size=50_000",
            "net.hidden=[256,256]", "net.activation=relu",
        ),
        env_id="Pendulum-v1",
        num_envs=1,
        algorithm="SAC",
        net={"net_arch": [256, 256], "activation_fn": "ReLU"},
        arguments={
            **REPLAY, "batch_size": 256, "learning_rate": 1e-3, "learning_starts": 200, "train_freq": 1,
            "gradient_steps": 1,
        },
    ),
}  # fmt: skip


def measure_lab(work: Work, seeds: str) -> float:
    """Train through the command line and return frames per second in the training loop, over all Sessions."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*work.settings, *ALWAYS, f"frames={work.frames}", f"seed={seeds}", f"hydra.run.dir={folder}"]
        subprocess.run([sys.executable, "-m", "lab", *overrides], check=True, stdout=subprocess.DEVNULL)
        tables = sorted(Path(folder).rglob("timing.csv"))
        rows = [line.split(",") for line in tables[0].read_text().splitlines()[1:]]
        return len(tables) * float(rows[-1][0]) / sum(float(row[1]) for row in rows)


def measure_peer(name: str) -> float:
    """Train with Stable-Baselines3 in a process of its own and return frames per second of `learn`."""
    command = [sys.executable, "-m", "benchmark.throughput", "peer", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peer(work: Work) -> None:
    """Train with Stable-Baselines3 and print its frames per second."""
    import stable_baselines3
    import torch
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    net = {**work.net, "activation_fn": getattr(torch.nn, work.net["activation_fn"])}
    model = getattr(stable_baselines3, work.algorithm)(
        "MlpPolicy", make_vec_env(work.env_id, work.num_envs, seed=0), policy_kwargs=net, device="cpu", seed=0,
        **work.arguments,
    )  # fmt: skip
    start = perf_counter()
    model.learn(work.frames)
    print(model.num_timesteps / (perf_counter() - start))


def compare(name: str, rounds: int) -> None:
    """Measure every contender in turn and print medians and the median of the ratios within a round."""
    work = WORK[name]
    results: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for contender, seeds in CONTENDERS.items():
            results[contender].append(measure_lab(work, seeds) if seeds else measure_peer(name))
    print(f"{work.title}, {work.frames:,} frames a Session, median of {rounds} rounds")
    print(f"{'':20}{'frames/s':>10}{'ratio':>8}")
    for contender, speeds in results.items():
        ratios = [speed / base for speed, base in zip(speeds, results["stable-baselines3"], strict=True)]
        print(f"{contender:20}{statistics.median(speeds):>10,.0f}{statistics.median(ratios):>8.2f}", flush=True)


def main(*arguments: str) -> None:
    """Compare at the work that is named, or at all of it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    rounds = next((int(argument.partition("=")[2]) for argument in arguments if argument.startswith("rounds=")), 2)
    for name in [argument for argument in arguments if "=" not in argument] or WORK:
        compare(name, rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        peer(WORK[sys.argv[2]])
    else:
        main(*sys.argv[1:])
