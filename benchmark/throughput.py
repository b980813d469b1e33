"""Frames per second of PPO on CartPole, against Stable-Baselines3 with the same settings, one thread a process.

    python -m benchmark.throughput [rounds] [frames]

The contenders take turns, round by round, so that a machine whose speed drifts does so for all of them; the ratios are
taken within a round. Sessions run with all that they leave behind, but without evaluation, which the peer has not.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

SETTINGS = (
    "algo=ppo", "env=cartpole", "~tuned", "env.num_envs=8", "algo.horizon=128", "algo.epochs=10",
    "algo.minibatch=256", "algo.lr=1e-3", "algo.lr_schedule=constant", "net.hidden=[64,64]", "net.activation=tanh",
    "net.shared=false", "eval.every=0", "threads=1",
)  # fmt: skip
CONTENDERS = ("stable-baselines3", "lab", "lab, 4 stacked")


def measure_lab(frames: int, seeds: str) -> float:
    """Train through the command line and return frames per second in the training loop, over all Sessions."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*SETTINGS, f"frames={frames}", f"seed={seeds}", f"hydra.run.dir={folder}"]
        command = [sys.executable, "-m", "lab", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        tables = sorted(Path(folder).rglob("timing.csv"))
        rows = [line.split(",") for line in tables[0].read_text().splitlines()[1:]]
        return len(tables) * float(rows[-1][0]) / sum(float(row[1]) for row in rows)


def measure_peer(frames: int) -> float:
    """Train with Stable-Baselines3 in a process of its own and return frames per second of `learn`."""
    command = [sys.executable, "-m", "benchmark.throughput", "peer", str(frames)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peer(frames: int) -> None:
    """Train with Stable-Baselines3 and print its frames per second."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    net = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh}
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", 8, seed=0), n_steps=128, n_epochs=10, batch_size=256,
        learning_rate=1e-3, policy_kwargs=net, device="cpu", seed=0,
    )  # fmt: skip
    start = perf_counter()
    model.learn(frames)
    print(model.num_timesteps / (perf_counter() - start))


def main(rounds: int = 3, frames: int = 100_000) -> None:
    """Measure every contender in turn and print medians and the median of the ratios within a round."""
    os.environ["OMP_NUM_THREADS"] = "1"
    results: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        results["stable-baselines3"].append(measure_peer(frames))
        results["lab"].append(measure_lab(frames, "0"))
        results["lab, 4 stacked"].append(measure_lab(frames, "[0,1,2,3]"))
    print(f"PPO CartPole-v1, {frames:,} frames a Session, median of {rounds} rounds")
    print(f"{'':20}{'frames/s':>10}{'ratio':>8}")
    for name, speeds in results.items():
        ratios = [speed / base for speed, base in zip(speeds, results["stable-baselines3"], strict=True)]
        print(f"{name:20}{statistics.median(speeds):>10,.0f}{statistics.median(ratios):>8.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        peer(int(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
