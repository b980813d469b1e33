"""Frames per second against Stable-Baselines3, sbx and rejax with the same settings, each on one core and one thread.

    python -m benchmark.throughput [WORK ...] [rounds=3] [clock=wall|cpu]
    python -m benchmark.throughput readme                # the README's table, from results/throughput.txt

Works are named in benchmark/works.py; all of them by default. The contenders take turns, round by round, so that a
machine whose speed drifts does so for all of them; ratios are computed within a round. Sessions run with all that they
leave behind, but without evaluation, which the peers do not do either. Nobody's compilation is counted. clock=cpu
counts the core's own seconds instead of those of the wall, for a machine that does other work meanwhile.

sbx and rejax are run by the Python of .venv-peers, which `make benchmark` creates; without it they are left out.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmark.works import DIVISORS, WORK, Work

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers" / "bin" / "python"  # an environment of their own: their pins are not ours
BASE = "stable-baselines3"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".venv-peers" / "compiled"),  # for the rounds after the first
}
# Runs a module whose clock counts the processor's seconds, in any environment.
CPU_CLOCK = (
    "import runpy, sys, time; time.perf_counter = time.process_time;"
    " runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
CLOCKS = {"wall": ["-m"], "cpu": ["-c", CPU_CLOCK]}
ALWAYS = ("~tuned", "eval.every=0", "threads=1")
README = {  # contenders of the README's table, and the heads of their columns
    BASE: "Stable-Baselines3",
    "rejax, 16 seeds": "rejax, 16 seeds",
    "lab": "one Session",
    "lab, 4 stacked": "4 stacked",
    "lab compiled": "compiled",
    "lab compiled, 4 stacked": "4 stacked, compiled",
    "lab compiled, 16 stacked": "16 stacked, compiled",
}


@dataclass(frozen=True)
class Contender:
    """One line of a table."""

    name: str
    seeds: int
    measure: Callable[[str, str], float]  # frames per second, summed over seeds, of a work by a clock
    python: Path = Path(sys.executable)
    can: Callable[[Work], bool] = lambda work: True


def measure_lab(seeds: int, settings: Sequence[str], name: str, clock: str) -> float:
    """Train through the command line and return frames per second in the training loop, over all Sessions."""
    work = WORK[name]
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*work.lab(seeds), *ALWAYS, *settings, f"hydra.run.dir={folder}"]
        run([sys.executable, *CLOCKS[clock], "lab", *overrides])
        tables = sorted(Path(folder).rglob("timing.csv"))
        rows = [line.split(",") for line in tables[0].read_text().splitlines()[1:]]
        frames, seconds = zip(*((int(row[0]), float(row[1])) for row in rows), strict=True)
        start = frames.index(work.warm_up)
        return len(tables) * (frames[-1] - frames[start]) / sum(seconds[start + 1 :])


def measure_peer(peer: str, python: Path, seeds: int, name: str, clock: str) -> float:
    """Train with a peer in a process of its own and return its frames per second."""
    return float(run([str(python), *CLOCKS[clock], "benchmark.peers", peer, name, str(seeds)]).split()[-1])


def run(command: list[str]) -> str:
    """Run a command on one thread and return what it prints; end with its error if it fails."""
    done = subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def list_contenders() -> list[Contender]:
    """Return all contenders, the one that the others are compared with first."""
    here = Path(sys.executable)
    contenders = [
        Contender(BASE, 1, partial(measure_peer, BASE, here, 1)),
        Contender("sbx", 1, partial(measure_peer, "sbx", PEERS, 1), PEERS, lambda work: work.sbx),
    ]
    for seeds in DIVISORS:
        measure = partial(measure_peer, "rejax", PEERS, seeds)
        contenders.append(Contender(f"rejax{many(seeds)}", seeds, measure, PEERS, lambda work: work.rejax is not None))
    for name, compiled in (("lab", "false"), ("lab compiled", "true")):
        for seeds in DIVISORS:
            measure = partial(measure_lab, seeds, [f"compile={compiled}"])
            contenders.append(Contender(f"{name}{many(seeds, 'stacked')}", seeds, measure))
    return contenders


def many(seeds: int, unit: str = "seeds") -> str:
    """Return what the name of a contender says about its seeds."""
    return f", {seeds} {unit}" if seeds > 1 else ""


def compare(name: str, rounds: int, clock: str) -> None:
    """Measure every contender in turn and print medians and the medians of the ratios within a round."""
    work = WORK[name]
    contenders = [contender for contender in list_contenders() if contender.can(work) and contender.python.exists()]
    results: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            speed = contender.measure(name, clock)
            results[contender.name].append(speed)
            print(f"{name}, round {number + 1}: {contender.name}: {speed:,.0f}", file=sys.stderr, flush=True)
    spent = f"median of {rounds} rounds" if rounds > 1 else "1 round"
    seconds = "" if clock == "wall" else ", seconds of the processor"
    print(format_table(f"{work.title}; {spent}{seconds}", contenders, results), flush=True)


def format_table(title: str, contenders: Sequence[Contender], results: dict[str, list[float]]) -> str:
    """Return a table with a line for each contender: frames per second, and ratios to the peers."""
    lines = [title, f"{'':26}{'frames/s':>10}{'ratio':>8}{'to rejax':>10}"]
    for contender in contenders:
        speeds = results[contender.name]
        line = f"{contender.name:26}{statistics.median(speeds):>10,.0f}{ratio(speeds, results[BASE]):>8.2f}"
        rejax = results.get(f"rejax{many(contender.seeds)}")  # which trains as many seeds at once
        lines.append(line + (f"{ratio(speeds, rejax):>10.2f}" if rejax else ""))
    return "\n".join([*lines, ""])


def format_readme(tables: str) -> str:
    """Return the tables of `compare` as the one Markdown table that the README shows."""
    works: dict[str, dict[str, str]] = {}
    title = ""
    for line in tables.splitlines():
        row = re.match(r"(\S.*?) {2,}([\d,]+) +(\d+\.\d\d)", line)
        if row:
            name, speed, compared = row.groups()
            works[title][name] = speed if name == BASE else f"{speed} ({compared})"
        elif line and not line.startswith(" "):
            title = line.partition(",")[0]
            works[title] = {}
    names = [name for name in README if any(name in cells for cells in works.values())]
    rows = [["", *(README[name] for name in names)], ["---"] * (1 + len(names))]
    rows += [[title, *(cells.get(name, "") for name in names)] for title, cells in works.items()]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


def ratio(speeds: list[float], bases: list[float]) -> float:
    """Return the median of the ratios within a round."""
    return statistics.median(speed / base for speed, base in zip(speeds, bases, strict=True))


def main(*arguments: str) -> None:
    """Compare at the works that are named, or at all of them."""
    if arguments == ("readme",):
        print(format_readme((ROOT / "results" / "throughput.txt").read_text(encoding="utf-8")))
        return
    options = {"rounds": "3", "clock": "wall"} | dict(word.split("=", 1) for word in arguments if "=" in word)
    names = [argument for argument in arguments if "=" not in argument]
    for given, known in ((names, WORK), ([options["clock"]], CLOCKS), (list(options), ("rounds", "clock"))):
        for word in given:
            if word not in known:
                raise SystemExit(f"{word!r} is not known here: it must be one of {', '.join(known)}.")
    if not PEERS.exists():
        print(f"sbx and rejax are left out: {PEERS} is missing; `make benchmark` creates it.", file=sys.stderr)
    if hasattr(os, "sched_setaffinity"):  # for all that is started from here: JAX would use every core otherwise
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in names or WORK:
        compare(name, int(options["rounds"]), options["clock"])


if __name__ == "__main__":
    main(*sys.argv[1:])
