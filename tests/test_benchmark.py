"""The benchmarks: what contenders are asked to do, and the tables. Other libraries are not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import benchmark.gpu
import benchmark.search
import benchmark.throughput
from benchmark.throughput import Contender, format_readme, format_table, list_contenders
from benchmark.works import DIVISORS, WORK
from tests.helpers import lab, specs


@pytest.mark.parametrize("name", WORK)
def test_a_work_is_the_same_for_us_as_for_the_peers(name: str) -> None:
    work = WORK[name]
    for seeds in DIVISORS:
        made = specs(*work.lab(seeds), *benchmark.throughput.ALWAYS)
        assert len(made) == seeds
        spec = made[0]
        assert spec.frames == work.warm_up + work.frames_of(seeds)
        steps = spec.algo.horizon * spec.env.num_envs
        assert work.interval == steps
        assert work.warm_up % steps == work.frames_of(seeds) % steps == 0, "they end with a learning call"
        assert spec.log.every == work.warm_up, "so that a row of timing.csv ends with the warm-up"
        assert getattr(spec.algo, "learning_starts", 0) < work.warm_up
    assert (spec.env.id, spec.env.num_envs) == (work.env_id, work.num_envs)
    assert (spec.net.hidden, spec.net.activation) == (list(work.hidden), work.activation)
    names = {"n_steps": "horizon", "train_freq": "horizon", "n_epochs": "epochs", "learning_rate": "lr",
             "buffer_size": "memory.size", "ent_coef": "entropy_coef"}  # fmt: skip
    settings = {**specs(*work.lab(1))[0].to_dict()["algo"], "lr": spec.algo.optimizer.lr}
    for argument, value in work.arguments.items():
        key = names.get(argument, argument)
        if argument == "target_update_interval":  # frames for them, learning steps for us
            value //= spec.algo.horizon
        assert (settings["memory"]["size"] if key == "memory.size" else settings[key]) == value, argument


def test_a_table_compares_within_a_round_and_by_the_number_of_seeds() -> None:
    contenders = [
        Contender(name, seeds, lambda name, clock: 0.0)
        for name, seeds in (("stable-baselines3", 1), ("rejax", 1), ("rejax, 4 seeds", 4), ("lab, 4 stacked", 4))
    ]
    results = {
        "stable-baselines3": [100.0, 200.0, 400.0],
        "rejax": [1000.0, 1000.0, 1000.0],
        "rejax, 4 seeds": [3000.0, 4000.0, 2000.0],
        "lab, 4 stacked": [1000.0, 1000.0, 1000.0],
    }
    lines = format_table("Title", contenders, results).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["stable-baselines3", "200", "1.00", "0.20"],
        ["rejax", "1,000", "5.00", "1.00"],
        ["rejax,", "4", "seeds", "3,000", "20.00", "1.00"],
        ["lab,", "4", "stacked", "1,000", "5.00", "0.33"],
    ]


def test_the_readme_shows_the_contenders_that_were_measured() -> None:
    one = (
        "A X-v1, sizes; median\n   frames/s   ratio\nstable-baselines3    1,000    1.00    0.10\nlab    2,000   12.00\n"
    )
    two = "B Y-v1, sizes; median\n   frames/s   ratio\nstable-baselines3    1,000    1.00\nsbx    1    0.00\n"
    assert format_readme(f"{one}\n{two}").splitlines() == [
        "| | Stable-Baselines3 | one Session |",
        "| --- | --- | --- |",
        "| A X-v1 | 1,000 | 2,000 (12.00) |",
        "| B Y-v1 | 1,000 | |",
    ]


def test_contenders_of_an_environment_that_is_missing_are_left_out(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark.throughput, "PEERS", tmp_path / "python")
    monkeypatch.setattr(benchmark.throughput, "run", lambda command: "5\n")
    monkeypatch.setattr(benchmark.throughput, "measure_lab", lambda seeds, settings, name, clock: 20.0)
    monkeypatch.setattr("os.sched_setaffinity", lambda process, cores: None)
    benchmark.throughput.main("ppo", "rounds=1")
    shown = capsys.readouterr()
    assert "`make benchmark` creates it" in shown.err
    names = [line.rsplit(maxsplit=2)[0] for line in shown.out.splitlines()[2:] if line]
    assert names == [each.name for each in list_contenders() if not each.name.startswith(("sbx", "rejax"))]
    assert "lab, 16 stacked" in names


@pytest.mark.parametrize("argument", ["ddpg", "clock=sun", "round=2"])
def test_a_mistake_is_a_sentence(argument: str) -> None:
    with pytest.raises(SystemExit, match=f"'{argument.rpartition('=')[2] if 'clock' in argument else argument[:5]}"):
        benchmark.throughput.main(argument)


def test_a_session_is_measured_after_its_warm_up(monkeypatch, tmp_path: Path) -> None:
    rows = [f"{frame},{seconds}" for frame, seconds in ((2048, 50.0), (4096, 1.0), (22528, 3.0))]

    def train(command: list[str]) -> str:
        folder = Path(command[-1].partition("=")[2])
        for seed in range(4):
            (folder / f"seed-{seed}").mkdir()
            (folder / f"seed-{seed}" / "timing.csv").write_text("\n".join(["frame,seconds", *rows]) + "\n")
        return ""

    monkeypatch.setattr(benchmark.throughput, "run", train)
    assert benchmark.throughput.measure_lab(4, [], "ppo", "wall") == 4 * (22528 - 2048) / 4.0


def test_the_search_is_one_that_can_be_run(tmp_path: Path) -> None:
    command = benchmark.search.command_of_lab(str(tmp_path / "search"), 20_480, ["plan=true"])
    done = lab(*command[3:])
    assert done.returncode == 0, done.stderr
    assert "64 Sessions" in done.stdout
    assert "algo.lr            from 0.0001 to 0.01, on a logarithmic scale" in done.stdout


def test_without_a_gpu_its_benchmark_ends_with_a_sentence(monkeypatch, capsys) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit) as ending:
        benchmark.gpu.main()
    assert ending.value.code == 2
    assert "There is no GPU" in capsys.readouterr().err


@pytest.mark.parametrize("case", benchmark.gpu.CASES)
def test_stacks_are_measured_on_the_cpu_too(case: str) -> None:
    row = json.loads(json.dumps(benchmark.gpu.measure(case, 2, "false", "cpu", 0.0)))
    table = benchmark.gpu.format_table([row | {"sessions": 1}, row], "Title")
    assert row["learn"] > 0
    assert row["collect"] > 0
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["Title"]
    assert [line[:2] for line in lines[4:6]] == [["1", "false"], ["2", "false"]]
    assert lines[5][4:6] == ["1.00", "1.00"]


def test_rows_that_are_there_are_shown_when_the_time_is_over() -> None:
    program = 'import time; print(\'{"case": "ppo"}\', flush=True); time.sleep(60)'
    deadline = benchmark.gpu.perf_counter() + 2
    assert list(benchmark.gpu.rows_until(deadline, ["python3", "-c", program])) == [{"case": "ppo"}]
    assert benchmark.gpu.perf_counter() < deadline + 10
