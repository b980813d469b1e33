"""How a GPU trains stacks: time of a learning call and of collecting, by the number of Sessions, compiled or not.

    python -m benchmark.gpu [--device cpu] [--minutes 6] [--seconds 4] [--out FILE] [CASE ...]

Cases are ppo, sac and dqn; all of them by default. Nothing is written but the table, to the terminal and to
results/gpu.txt (on a CPU: only with --out). When the minutes are over it prints what it has. The exit status is 2
without the device.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SESSIONS = (1, 64, 16, 256)  # in this order, so that what matters most is there when the time is over
COMPILE = ("false", "true")
HORIZONS = 3  # that are measured at least
OFF_POLICY = ("env.num_envs=1", "algo.gradient_steps=1", "algo.learning_starts=300")
CASES = {
    "ppo": (
        "PPO CartPole-v1, 8 x 128 steps, 10 epochs, batches of 256, 64, 64",
        ("algo=ppo", "env=cartpole", "env.num_envs=8", "algo.horizon=128", "algo.epochs=10", "algo.batch_size=256",
         "net.hidden=[64,64]", "net.activation=tanh", "net.shared=false"),
    ),
    "sac": (
        "SAC at HalfCheetah's sizes: 17 observations, 6 actions, a batch of 256 every frame, 256, 256",
        ("algo=sac", "env=gymnasium", "env.id=benchmark.sized_env:Sized-v0", "algo.horizon=1", "algo.batch_size=256",
         "net.hidden=[256,256]", "net.activation=relu", "algo.memory.size=20_000", *OFF_POLICY),
    ),
    "dqn": (
        "DQN CartPole-v1, a batch of 64 every 4 frames, 64, 64",
        ("algo=dqn", "env=cartpole", "algo.horizon=4", "algo.batch_size=64", "net.hidden=[64,64]",
         "net.activation=relu", "algo.memory.size=20_000", *OFF_POLICY),
    ),
}  # fmt: skip

COLUMNS = {
    "Sessions": 8, "compile": 9, "collect ms": 12, "learn ms": 11, "x of one": 10, "both x": 8, "frames/s": 11,
    "MiB": 8, "first s": 9,
}  # fmt: skip
NOTES = """
collect and learn: milliseconds of a horizon of all Sessions in the environments, and of a learning call. x of one, both
x: the time of learning, and of both, by that of one Session. MiB: peak of the GPU's memory. first: seconds until the
first learning call is done, compilation included.
"""

Row = dict[str, Any]


def measure(case: str, sessions: int, compiled: str, device: str, seconds: float) -> Row:
    """Return milliseconds of collecting a horizon and of learning from it, of all Sessions, after a warm-up."""
    import torch
    from hydra import compose, initialize_config_dir

    from lab.env.vector import probe
    from lab.spec import read
    from lab.training.stack import Stack

    row: Row = {"case": case, "sessions": sessions, "compile": compiled}
    seeds = f"seed=[{','.join(map(str, range(sessions)))}]"
    settings = ("~tuned", "threads=1", "frames=10_000_000", f"device={device}", f"compile={compiled}", seeds)
    bare = ("hydra/sweeper=basic", "hydra/launcher=basic")  # ours need more packages, and nothing is swept
    with initialize_config_dir(str(ROOT / "conf")):
        specs = read(compose("config", [*CASES[case][1], *settings, *bare]))
    start = perf_counter()
    stack = Stack(specs, [], probe(specs[0].env))
    algorithm, streams = stack.agent.algorithm, stack.agent.streams

    def synchronize() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return perf_counter()

    def step() -> tuple[float, float]:
        before = synchronize()
        rollout = stack.collector.collect()
        between = synchronize()
        algorithm.learn(rollout, streams, stack.frame / specs[0].frames, diagnose=False)
        return between - before, synchronize() - between

    starts = getattr(specs[0].algo, "learning_starts", 0)
    for _ in range(starts // (algorithm.horizon * specs[0].env.num_envs) + 2):
        step()
    row["first"] = perf_counter() - start
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    start, frames, times = synchronize(), stack.frame, []
    while len(times) < HORIZONS or perf_counter() - start < seconds:
        times.append(step())
    elapsed = perf_counter() - start
    collecting, learning = (1000 * sum(column) / len(times) for column in zip(*times, strict=True))
    row |= {"collect": collecting, "learn": learning, "speed": sessions * (stack.frame - frames) / elapsed}
    row["mib"] = torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else None
    return row


def work(cases: list[str], device: str, seconds: float) -> None:
    """Measure case after case and print each row as JSON."""
    for sessions, case, compiled in product(SESSIONS, cases, COMPILE):
        try:
            row = measure(case, sessions, compiled, device, seconds)
        except Exception as error:  # the others may work
            text = " ".join(f"{type(error).__name__}: {error}".split())
            row = {"case": case, "sessions": sessions, "compile": compiled, "error": text[:200]}
        print(json.dumps(row), flush=True)


def rows_until(deadline: float, command: list[str]) -> Iterator[Row]:
    """Yield the rows that a process prints until it ends or the time is over; then it is killed."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put("")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while line := lines.get(timeout=max(deadline - perf_counter(), 0.0)):
            if line.startswith("{"):
                yield json.loads(line)
    except queue.Empty:
        print("The time is over.", file=sys.stderr)
    finally:
        process.kill()
        reader.join()
        process.communicate()


def format_table(rows: list[Row], title: str) -> str:
    """Return the table, with the time of each row beside that of one Session."""
    lines = [title]
    for case in dict.fromkeys(row["case"] for row in rows):
        lines += ["", CASES[case][0], "".join(f"{name:>{width}}" for name, width in COLUMNS.items())]
        chosen = sorted((row for row in rows if row["case"] == case), key=lambda row: (row["compile"], row["sessions"]))
        ones = {row["compile"]: row for row in chosen if row["sessions"] == 1 and "error" not in row}
        lines += [format_row(row, ones.get(row["compile"])) for row in chosen]
    return "\n".join([*lines, NOTES])


def format_row(row: Row, one: Row | None) -> str:
    """Return a line of the table; `one` is the row of one Session, if there is one."""
    head = f"{row['sessions']:>8}{row['compile']:>9}"
    if "error" in row:
        return f"{head}  {row['error']}"
    cells = [
        f"{row['collect']:,.2f}",
        f"{row['learn']:,.2f}",
        f"{row['learn'] / one['learn']:.2f}" if one else "-",
        f"{(row['collect'] + row['learn']) / (one['collect'] + one['learn']):.2f}" if one else "-",
        f"{row['speed']:,.0f}",
        f"{row['mib']:,.0f}" if row["mib"] else "-",
        f"{row['first']:.0f}",
    ]
    return head + "".join(f"{cell:>{width}}" for cell, width in zip(cells, list(COLUMNS.values())[2:], strict=True))


def find_device(device: str) -> str:
    """Return what the device is called, or end with a sentence and status 2 if it is not there."""
    try:
        import hydra  # noqa: F401  # report what is missing before anything is measured
        import torch

        import lab.training.stack  # noqa: F401
    except ModuleNotFoundError as error:
        fail(f"The benchmark needs {error.name}, which is not installed: pip install -e . installs all it needs.")
    if not device.startswith("cuda"):
        return f"CPU, one thread, torch {torch.__version__}"
    if not torch.cuda.is_available():
        fail(f"There is no GPU that torch {torch.__version__} can use. --device cpu runs the benchmark here.")
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"


def fail(sentence: str) -> None:
    """End with status 2, as for a wrong argument."""
    print(f"Error: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all by default")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which it prints what it has")
    parser.add_argument("--seconds", type=float, default=4.0, help="that each row is measured for")
    parser.add_argument("--out", type=Path, help="file of the table")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [case for case in options.cases if case not in CASES]
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; cases are {', '.join(CASES)}")
    cases = options.cases or list(CASES)
    if options.worker:
        work(cases, options.device, options.seconds)
        return
    deadline = perf_counter() + 60 * options.minutes
    title = find_device(options.device)
    arguments = ["--worker", "--device", options.device, "--seconds", str(options.seconds), *cases]
    rows = []
    for row in rows_until(deadline, [sys.executable, "-m", "benchmark.gpu", *arguments]):
        rows.append(row)
        print(" ".join(str(row[key]) for key in ("case", "sessions", "compile")), file=sys.stderr)
    table = format_table(rows, title)
    out = options.out or (ROOT / "results" / "gpu.txt" if options.device.startswith("cuda") else None)
    if out and rows:
        out.write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
