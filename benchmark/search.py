"""A search by random points against RL Zoo's `optimize`, from start to end of the process, on two cores.

    python -m benchmark.search [frames=20480] [rounds=1] [KEY=VALUE ...]

Ours trains 16 points x 4 seeds of PPO on CartPole in two local slots, with all that a search leaves behind: logs,
TensorBoard, checkpoints, evaluations, pictures and the report. RL Zoo trains 64 points of the same space, of one seed
each, as it knows no seeds: as many frames, in 2 jobs, with its default evaluation and no pruner. Both have the
same environments, steps, epochs, batches and networks, one thread a job. Other arguments are overrides of our command
line. RL Zoo runs in .venv-peers, which `make benchmark` creates.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from benchmark.throughput import PEERS, ROOT

POINTS, SEEDS, HORIZON = 16, 4, 1_024
SPACE = (
    "algo.lr=tag(log,interval(1e-4,1e-2))", "algo.clip_range=interval(0.1,0.3)", "algo.gae_lambda=interval(0.9,1.0)",
    "algo.entropy_coef=tag(log,interval(1e-5,1e-2))",
)  # fmt: skip
OURS = (
    "algo=ppo", "env=cartpole", "~tuned", "env.num_envs=8", "algo.horizon=128", "algo.epochs=10",
    "algo.batch_size=256", "algo.optimizer.lr_schedule=constant", "net.hidden=[64,64]", "net.activation=tanh",
    "net.shared=false", "threads=1", "compile=true", "search=command_line", "search.enqueue_defaults=false",
    "hydra/sweeper/sampler=random", "hydra.launcher.slots=2",
)  # fmt: skip


def command_of_lab(folder: str, frames: int, overrides: Sequence[str]) -> list[str]:
    """Return the command of our search."""
    seeds = ",".join(map(str, range(SEEDS)))
    numbers = (f"search.n_trials={POINTS}", f"seed={seeds}", f"frames={frames}", f"hydra.sweep.dir={folder}")
    return [sys.executable, "-m", "lab", "-m", *OURS, *SPACE, *numbers, *overrides]


def command_of_zoo(folder: str, frames: int) -> list[str]:
    """Return the command of RL Zoo's search."""
    options = {
        "--algo": "ppo", "--env": "CartPole-v1", "--n-trials": POINTS * SEEDS, "--n-jobs": 2, "-n": frames,
        "--sampler": "random", "--pruner": "none", "--num-threads": 1, "--seed": 0, "-f": folder,
    }  # fmt: skip
    arguments = [str(part) for pair in options.items() for part in pair]
    return [str(PEERS), "-m", "benchmark.zoo_search", "-optimize", "--no-optim-plots", *arguments]


def seconds_of(command: list[str]) -> float:
    """Run a command and return the seconds it took, start-up included; end with its error if it fails."""
    start = perf_counter()
    # Jobs have a thread each: two of RL Zoo's run in one process.
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return perf_counter() - start


def main(*arguments: str) -> None:
    """Run both searches in turn and print frames per second and the median of the ratios within a round."""
    options = {"frames": "20480", "rounds": "1"}
    own = {key: value for key, _, value in (argument.partition("=") for argument in arguments) if key in options}
    overrides = [argument for argument in arguments if argument.partition("=")[0] not in options]
    frames, rounds = -(-int((options | own)["frames"]) // HORIZON) * HORIZON, int((options | own)["rounds"])
    if not PEERS.exists():
        raise SystemExit(f"RL Zoo is missing: there is no {PEERS}; `make benchmark` creates it.")
    speeds: dict[str, list[float]] = {"RL Zoo": [], "lab": []}
    for number in range(rounds):
        for name, list_speeds in speeds.items():
            with tempfile.TemporaryDirectory() as folder:
                ours = command_of_lab(str(Path(folder) / "search"), frames, overrides)
                seconds = seconds_of(ours if name == "lab" else command_of_zoo(folder, frames))
            list_speeds.append(POINTS * SEEDS * frames / seconds)
            print(f"round {number + 1}: {name}: {seconds:,.0f} s", file=sys.stderr, flush=True)
    print(f"PPO CartPole-v1, {POINTS} points x {SEEDS} seeds, {frames:,} frames each; median of {rounds} rounds")
    print(f"{'':26}{'frames/s':>10}{'ratio':>8}")
    for name, list_speeds in speeds.items():
        ratios = [speed / zoo for speed, zoo in zip(list_speeds, speeds["RL Zoo"], strict=True)]
        print(f"{name:26}{statistics.median(list_speeds):>10,.0f}{statistics.median(ratios):>8.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
