"""Law 1 for Sessions that are interrupted or killed: resumed, they give the results of uninterrupted ones."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from lab.algo.off_policy import OffPolicy
from lab.algo.on_policy import OnPolicy
from lab.env.stacked import StackedEnvironments
from lab.env.vector import probe
from lab.errors import LabError
from lab.memory.replay import Replay
from lab.run import checkpoint, tensor_files
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.provenance import Provenance
from lab.session import train
from lab.spec import Spec
from lab.training.evaluate import Evaluation
from lab.training.record import Record
from lab.training.stack import Stack
from tests.helpers import (
    ALGORITHMS,
    BOX,
    CHOICE,
    Interruption,
    go_on,
    result,
    same_provenance,
    serves,
    specs,
    weights,
)

KILLS = int(os.environ.get("LAB_KILLS", "1"))  # of each case; CI does few
CASES = {
    "discrete": ("env=cartpole",),
    "continuous": ("env=pendulum",),
    "normalized": ("env=pendulum", "env.normalize_observations=true", "env.normalize_rewards=true"),
}
KINDS = {"discrete": CHOICE, "continuous": BOX, "normalized": BOX}
OFTEN = ("log.tensorboard=false", "log.every=300", "eval.every=900", "eval.episodes=2", "checkpoint.every=500")
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["lab.session"])


MEMORY = (
    "~tuned", "algo.horizon=2", "algo.learning_starts=600", "algo.memory.size=2000", "algo.batch_size=16",
    "algo.n_step=3", "algo.memory.prioritized=true",
)  # fmt: skip
OFF_POLICY = [algo for algo in ALGORITHMS if hasattr(specs(f"algo={algo}")[0].algo, "learning_starts")]


PAIRS = [pair for pair in product(ALGORITHMS, CASES) if serves(pair[0], "", KINDS[pair[1]])]
SEEDS = ("3", "[3,4,5]")  # alone, and in a stack
# Every algorithm and case, alternately alone and in a stack; both if LAB_KILLS is above 1.
KILLED = [(*pair, seed) for index, pair in enumerate(PAIRS) for seed in (SEEDS if KILLS > 1 else [SEEDS[index % 2]])]


def overrides(algo: str, case: str, seed: str) -> list[str]:
    small = {"ppo": ("algo.horizon=32", "algo.batch_size=128"), "reinforce": ("algo.horizon=32", "~tuned")}
    small |= dict.fromkeys(OFF_POLICY, MEMORY)
    return [f"algo={algo}", *CASES[case], *small.get(algo, ("algo.horizon=16", "~tuned")), *OFTEN, f"seed={seed}"]


def work(made: list[Spec], paths: list[Path], provenance: Provenance) -> None:
    if not made:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.session.collect", lambda *arguments: provenance)
        records = train(made, [RunDir(path) for path in paths], probe(made[0].env), show=False)
    assert [record.state for record in records] == ["completed"] * len(made), records[0].error


def in_a_process(made: list[Spec], paths: list[Path], seconds: float | None) -> int:
    """Train in another process, which is killed after some seconds; return its exit code."""
    process = CONTEXT.Process(target=work, args=(made, paths, same_provenance()))
    process.start()
    process.join(seconds)
    if process.is_alive():
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def check_kills(tmp_path: Path, chosen: list[str], kills: int) -> None:
    """Compare Sessions that are killed at random moments, `kills` times, with uninterrupted ones."""
    made = specs(*chosen)
    whole = [tmp_path / "whole" / str(spec.seed) for spec in made]
    assert in_a_process(made[:0], [], None) == 0  # starts the process from which the others are forked
    start = time.monotonic()
    assert in_a_process(made, whole, None) == 0
    seconds = time.monotonic() - start
    moments, hit = random.Random(str(chosen)), 0
    while hit < kills:
        parts = [tmp_path / f"parts-{hit}" / str(spec.seed) for spec in made]
        before = hit
        while hit < kills and in_a_process(made, parts, moments.uniform(0.1, 0.1 + seconds / kills)) != 0:
            hit += 1
        if hit == kills:
            assert in_a_process(made, parts, None) == 0
        for one, other in zip(parts, whole, strict=True):
            assert RunDir(one).read_status()["state"] == "completed"
            assert result(RunDir(one)) == result(RunDir(other))
        if hit == before:  # it completed before the kill
            seconds /= 2
            shutil.rmtree(tmp_path / f"parts-{hit}")


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize(("algo", "case", "seed"), KILLED)
def test_law_1_killed_at_any_moment_and_resumed(tmp_path: Path, algo: str, case: str, seed: str) -> None:
    frames = 4_000 if algo in OFF_POLICY else 12_000  # take about as long
    check_kills(tmp_path, [*overrides(algo, case, seed), f"frames={frames}"], KILLS)


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("env", ["ant", "halfcheetah", "humanoid"])
def test_law_1_killed_within_long_episodes_of_mujoco(tmp_path: Path, env: str) -> None:
    pytest.importorskip("mujoco")
    often = (*OFTEN, "eval.max_steps=50", "algo.horizon=32", "algo.batch_size=128", "~tuned")
    check_kills(tmp_path, ["algo=ppo", f"env={env}", *often, "frames=8000", "seed=[3,4]"], KILLS)


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize(("algo", "seed"), [("ppo", "[3,4]"), ("dqn", "3")])
def test_law_1_killed_within_games_of_pong(tmp_path: Path, algo: str, seed: str) -> None:
    small = ("env.num_envs=4", "eval.max_steps=30", "eval.episodes=1", "net.filters=[2,4,4]", "net.hidden=[16]")
    pong = ("env=pong", *small, "frames=1000")
    check_kills(tmp_path, [*overrides(algo, "discrete", seed), *pong], KILLS)


QUICK = (*OFTEN, "~tuned", "algo.horizon=16", "frames=2500", "seed=3")
SLOW = pytest.mark.slow
LANDER = ("env=gymnasium", "env.id=LunarLander-v3", "env.num_envs=4", "eval.max_steps=50")
WALKER = ("env=gymnasium", "env.id=BipedalWalker-v3", "env.num_envs=4", "eval.max_steps=50")
REMEMBERING = ("env=gymnasium", "env.id=tests.envs:Remembering-v0")
RESET = ("env=pendulum", "env.restore=reset", "env.normalize_rewards=true")


def signalled() -> None:
    signal.raise_signal(signal.SIGTERM)


def killed() -> None:
    raise KeyboardInterrupt


def begin(made: list[Spec], folder: Path, interruption: Interruption | None = None) -> list[str]:
    """Start or resume Sessions, each in a directory for its seed; return their states."""
    return go_on(made, [RunDir(folder / str(spec.seed)) for spec in made], interruption)


def check_same(made: list[Spec], one: Path, other: Path) -> None:
    for spec in made:
        part, whole = RunDir(one / str(spec.seed)), RunDir(other / str(spec.seed))
        assert part.read_status()["state"] == "completed"
        assert result(part) == result(whole)
        assert weights(part, "best") == weights(whole, "best")
        frames = rows(part.timing, "frame")
        assert frames == rows(part.metrics, "frame")
        assert len(set(frames)) == len(frames)


def rows(path: Path, column: str) -> list[str]:
    with path.open() as file:
        return [row[column] for row in csv.DictReader(file)]


def check(tmp_path: Path, chosen: tuple[str, ...], *interruptions: Interruption) -> list[int]:
    """Compare Sessions interrupted several times with uninterrupted ones; return where the first was resumed."""
    made = specs(*QUICK, *chosen)
    assert set(begin(made, tmp_path / "whole")) == {"completed"}
    for interruption in interruptions:
        assert set(begin(made, tmp_path / "parts", interruption)) == {"interrupted"}, interruption
    begin(made, tmp_path / "parts")
    check_same(made, tmp_path / "parts", tmp_path / "whole")
    facts = read_json(RunDir(tmp_path / "parts" / str(made[0].seed)).provenance)
    return [part["frame"] for part in facts.get("resumed", [])]


@pytest.mark.law
@pytest.mark.parametrize(
    ("case", "seed"),
    [
        ("normalized", "3"),
        *(pytest.param(case, seed, marks=SLOW) for case, seed in product(CASES, ("3", "[3,4,5]"))),
    ],
)
def test_law_1_signalled_at_any_point_and_resumed(tmp_path: Path, case: str, seed: str) -> None:
    resumed = check(
        tmp_path,
        (*CASES[case], f"seed={seed}"),
        (Stack, "collect_and_learn", 1, signalled),
        (Stack, "collect_and_learn", 3, signalled),
        (Evaluation, "step", 3, signalled),
        (Evaluation, "step", 1, signalled),
        (StackedEnvironments, "step", 20, signalled),
        (OnPolicy, "step", 5, signalled),
        (Stack, "log", 2, signalled),
    )
    assert resumed == sorted(resumed)
    assert resumed[0] == 128


@pytest.mark.law
@pytest.mark.parametrize(
    ("case", "seed"),
    [("discrete", "3"), *(pytest.param(case, seed, marks=SLOW) for case, seed in product(CASES, ("3", "[3,4,5]")))],
)
def test_law_1_ended_at_once_at_any_point_and_resumed(tmp_path: Path, case: str, seed: str) -> None:
    resumed = check(
        tmp_path,
        (*CASES[case], f"seed={seed}", "checkpoint.every=300"),
        (Stack, "collect_and_learn", 1, killed),
        (OnPolicy, "step", 5, killed),
        (StackedEnvironments, "step", 75, killed),
        (Stack, "finish_interval", 3, killed),
        (Record, "add_row", 1, killed),
        (Stack, "save_best", 1, killed),
        (Evaluation, "step", 30, killed),
        (Record, "sync", 2, killed),
        (checkpoint, "write", 3, killed),
        (Stack, "save", 2, killed),
    )
    assert resumed[-1] >= 384


@pytest.mark.law
@pytest.mark.parametrize(
    ("algo", "case", "seed"),
    [
        ("dqn", "discrete", "3"),
        *(
            pytest.param(algo, case, "[3,4,5]", marks=SLOW)
            for algo, case in product(OFF_POLICY, ("discrete", "continuous"))
            if serves(algo, "", KINDS[case])
        ),
    ],
)
def test_law_1_with_a_replay_memory_interrupted_and_resumed(tmp_path: Path, algo: str, case: str, seed: str) -> None:
    chosen = (f"algo={algo}", *CASES[case], *MEMORY, "checkpoint.every=300", "frames=4000", f"seed={seed}")
    resumed = check(
        tmp_path,
        chosen,
        (Stack, "collect_and_learn", 30, signalled),
        (Stack, "collect_and_learn", 30, killed),
        (OffPolicy, "learn", 31, killed),
        (Replay, "draw", 20, killed),
        (Replay, "save", 2, killed),
        (Replay, "remove_unused_files", 1, killed),
        (checkpoint, "write", 3, killed),
        (checkpoint, "write", 4, killed),
        (Replay, "draw", 50, signalled),
    )
    assert resumed[-1] > 1200
    known = tensor_files.read(RunDir(tmp_path / "parts" / "3").checkpoint("last"))["replay"]["segments"]
    assert len(known) > 3


@pytest.mark.law
def test_law_1_rolls_back_if_a_file_of_the_memory_is_damaged(tmp_path: Path) -> None:
    made = specs(*QUICK, "algo=dqn", *CASES["discrete"], *MEMORY, "checkpoint.every=400")
    begin(made, tmp_path / "whole")
    begin(made, tmp_path / "parts", (Stack, "collect_and_learn", 100, killed))
    parts = RunDir(tmp_path / "parts" / "3")
    state = tensor_files.read(parts.checkpoint("last"))
    newest = parts.replay / state["replay"]["segments"][-1]["name"]
    newest.write_bytes(newest.read_bytes()[:-9])
    begin(made, tmp_path / "parts")
    check_same(made, tmp_path / "parts", tmp_path / "whole")
    (resumed,) = read_json(parts.provenance)["resumed"]
    assert resumed["frame"] < state["frame"]
    assert f"{newest.name} is damaged" in parts.log.read_text()


@pytest.mark.law
def test_law_1_interrupted_in_the_last_evaluation_and_resumed(tmp_path: Path) -> None:
    last = (Stack, "evaluate", 3, signalled)
    assert check(tmp_path, (), last, (Evaluation, "step", 1, signalled)) == [2560, 2560]


@pytest.mark.law
@pytest.mark.parametrize("chosen", [(), pytest.param(RESET, marks=SLOW)], ids=["restored", "reset"])
def test_law_1_asked_by_its_directory_to_be_interrupted_and_resumed(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    made = specs(*QUICK, *chosen, "seed=[3,4]")
    asked = RunDir(tmp_path / "parts" / "4")
    moment = random.Random(str(chosen)).randrange(1, 10)
    request = (Stack, "collect_and_learn", moment, lambda: asked.ask_to_stop("interrupted", "to make room"))
    assert begin(made, tmp_path / "parts", request) == ["completed", "interrupted"]
    assert asked.read_status()["error"] == "to make room"
    assert begin(made[1:], tmp_path / "parts") == ["completed"]
    assert not asked.stop.exists()
    begin(made, tmp_path / "whole")
    check_same(made, tmp_path / "parts", tmp_path / "whole")


@pytest.mark.law
@pytest.mark.parametrize("vectorize", ["sync", pytest.param("auto", marks=SLOW)])
def test_law_1_with_environments_that_are_reset_at_checkpoints(tmp_path: Path, vectorize: str) -> None:
    env = RESET if vectorize == "sync" else ("env=cartpole", "env.restore=reset")
    resumed = check(
        tmp_path,
        (*env, f"env.vectorization_mode={vectorize}"),
        (Stack, "collect_and_learn", 3, signalled),
        (Stack, "collect_and_learn", 10, signalled),
        (Evaluation, "step", 3, signalled),
        (Stack, "collect_and_learn", 2, killed),
    )
    assert set(resumed) <= {512, 1024, 1536, 2048}


@pytest.mark.law
def test_law_1_with_an_environment_that_only_a_reset_restores(tmp_path: Path) -> None:
    made = specs(*QUICK, "env=gymnasium", "env.id=tests.envs:Unrepeatable-v0")
    assert begin(made, tmp_path, (Stack, "collect_and_learn", 10, signalled)) == ["interrupted"]
    assert begin(made, tmp_path) == ["completed"]
    assert read_json(RunDir(tmp_path / "3").provenance)["resumed"][0]["frame"] == 1024


@pytest.mark.law
@pytest.mark.parametrize("lost", ["last", *(pytest.param(which, marks=SLOW) for which in ("previous", "both"))])
def test_law_1_sessions_of_a_stack_at_different_checkpoints(tmp_path: Path, lost: str) -> None:
    made = specs(*QUICK, "seed=[3,4]")
    begin(made, tmp_path / "parts", (Stack, "collect_and_learn", 10, signalled))
    for which in ("last", "previous") if lost == "both" else (lost,):
        RunDir(tmp_path / "parts" / "4").checkpoint(which).unlink()
    assert begin(made, tmp_path / "parts", (Stack, "collect_and_learn", 2, signalled)) == ["interrupted"] * 2
    begin(made, tmp_path / "parts")
    begin(made, tmp_path / "whole")
    check_same(made, tmp_path / "parts", tmp_path / "whole")


@pytest.mark.law
@pytest.mark.parametrize("evaluated", ["3", pytest.param("4", marks=SLOW)])
def test_law_1_sessions_of_a_stack_where_one_finished_its_last_evaluation(tmp_path: Path, evaluated: str) -> None:
    made = specs(*QUICK, "seed=[3,4]", "checkpoint.every=900")
    parts = tmp_path / "parts"
    other = "4" if evaluated == "3" else "3"
    assert begin(made, parts, (Evaluation, "step", 5, signalled)) == ["interrupted"] * 2
    shutil.copytree(parts / other, tmp_path / "before")
    assert begin(made, parts, (Stack, "collect_and_learn", 1, killed)) == ["interrupted"] * 2
    shutil.rmtree(parts / other)
    shutil.copytree(tmp_path / "before", parts / other)
    begin(made, parts)
    begin(made, tmp_path / "whole")
    check_same(made, parts, tmp_path / "whole")


@pytest.mark.law
@pytest.mark.slow
def test_law_1_a_stack_resumed_one_session_after_the_other(tmp_path: Path) -> None:
    made = specs(*QUICK, "seed=[3,4]")
    begin(made, tmp_path / "parts", (Stack, "collect_and_learn", 10, signalled))
    assert begin(made[1:], tmp_path / "parts", (Stack, "collect_and_learn", 3, signalled)) == ["interrupted"]
    assert begin(made, tmp_path / "parts", (Stack, "collect_and_learn", 2, signalled)) == ["interrupted"] * 2
    for spec in made:
        assert begin([spec], tmp_path / "parts") == ["completed"]
    begin(made, tmp_path / "whole")
    check_same(made, tmp_path / "parts", tmp_path / "whole")


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize("env", ["env=pendulum", "env=cartpole"])
def test_law_1_with_asynchronous_environments(tmp_path: Path, env: str) -> None:
    chosen = (
        env,
        "env.vectorization_mode=async",
        "env.num_envs=2",
        "frames=700",
        "eval.every=300",
        "checkpoint.every=200",
    )
    check(tmp_path, chosen, (Stack, "collect_and_learn", 10, signalled), (Stack, "collect_and_learn", 5, killed))


@pytest.mark.law
@pytest.mark.parametrize("vectorize", ["sync", pytest.param("async", marks=SLOW)])
def test_law_1_with_environments_whose_episodes_are_replayed(tmp_path: Path, vectorize: str) -> None:
    chosen = (*LANDER, f"env.vectorization_mode={vectorize}", "frames=2000")
    check(tmp_path, chosen, *[(Stack, "collect_and_learn", moment, signalled) for moment in (4, 2, 9, 6)])


@pytest.mark.law
@pytest.mark.parametrize("chosen", [REMEMBERING, pytest.param(WALKER, marks=SLOW)], ids=["remembering", "walker"])
def test_law_1_with_environments_that_remember_earlier_episodes(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    check(tmp_path, (*chosen, "frames=2000"), *[(Stack, "collect_and_learn", moment, signalled) for moment in (9, 5)])


@pytest.mark.law
@pytest.mark.slow
def test_law_1_in_dev_mode(tmp_path: Path) -> None:
    check(tmp_path, ("mode=dev",), (Stack, "collect_and_learn", 4, signalled), (Evaluation, "step", 2, signalled))


@pytest.mark.law
@pytest.mark.slow
def test_law_1_without_evaluation(tmp_path: Path) -> None:
    check(tmp_path, ("eval.every=0",), *[(Stack, "collect_and_learn", moment, signalled) for moment in (4, 2, 9)])


@pytest.mark.law
@pytest.mark.parametrize(
    "chosen",
    [RESET, ("env=pendulum",), *(pytest.param(env, marks=SLOW) for env in (("env=cartpole",), LANDER))],
    ids=["reset", "sync", "native", "replayed"],
)
def test_law_1_checkpoints_by_time_change_no_result(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    made = specs(*QUICK, *chosen, "frames=1000")
    often = specs(*QUICK, *chosen, "frames=1000", "checkpoint.minutes=1e-6")
    begin(made, tmp_path / "whole")
    saves = [0]

    def counted(original: Callable[..., Any], *arguments: Any) -> None:
        saves[0] += 1
        original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        original = checkpoint.write_generation
        patch.setattr(checkpoint, "write_generation", lambda *arguments: counted(original, *arguments))
        begin(often, tmp_path / "often")
    check_same(made, tmp_path / "often", tmp_path / "whole")
    assert (saves[0] > 5) == (chosen != RESET), "between two resets there is no checkpoint"


def test_a_resume_is_recorded_and_the_log_continues(tmp_path: Path) -> None:
    made = specs(*QUICK)
    directory = RunDir(tmp_path / "3")
    for moment in (5, 4):
        begin(made, tmp_path, (Stack, "collect_and_learn", moment, signalled))
    start = read_json(directory.provenance)["start"]
    begin(made, tmp_path)
    facts = read_json(directory.provenance)
    assert facts["start"] == start
    assert [part["frame"] for part in facts["resumed"]] == [640, 1152]
    assert all(part["start"] >= start and part["git"] == facts["git"] for part in facts["resumed"])
    log = directory.log.read_text()
    places = [log.index(text) for text in ("started", "interrupted at frame 640", "resumed at frame 640",
              "interrupted at frame 1152", "resumed at frame 1152", "completed at frame 2560")]  # fmt: skip
    assert places == sorted(places)
    assert log.count("started") == log.count("completed") == 1


def test_tensorboard_shows_each_row_of_a_resumed_session_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = specs(*QUICK, "log.tensorboard=true", "log.histograms=1", "frames=1000", "checkpoint.every=400")
    interruptions = (
        (Evaluation, "step", 3, signalled),
        (Stack, "save", 1, killed),
        None,
    )
    for interruption in interruptions:
        begin(made, tmp_path, interruption)
        time.sleep(1.01 - time.time() % 1)  # the files of events are read in the order of their seconds
    directory = RunDir(tmp_path / "3")
    assert len(read_json(directory.provenance)["resumed"]) == 2
    events = EventAccumulator(str(directory.path), size_guidance={"scalars": 0, "histograms": 0}).Reload()
    columns = {
        "rollout/ep_rew_mean": "return",
        "eval/mean_reward": "eval_return",
        "train/learning_rate": "learning_rate",
    }
    for tag, column in columns.items():
        written = zip(rows(directory.metrics, "frame"), rows(directory.metrics, column), strict=True)
        expected = [(int(frame), pytest.approx(float(value))) for frame, value in written if value]
        assert [(event.step, event.value) for event in events.Scalars(tag)] == expected
    frames = [int(frame) for frame in rows(directory.metrics, "frame")]
    tags = events.Tags()["histograms"]
    weight, gradient = (next(tag for tag in tags if tag.startswith(kind)) for kind in ("values/weight", "values/grad"))
    assert [event.step for event in events.Histograms(weight)] == frames
    assert all(event.histogram_value.sum_squares > 0 for event in events.Histograms(gradient))


def test_a_session_that_failed_is_not_resumed(tmp_path: Path) -> None:
    made = specs(*QUICK, "env=gymnasium", "env.id=tests.envs:Raises-v0", "frames=50_000", "eval.every=0")
    assert begin(made, tmp_path) == ["failed"]
    before = RunDir(tmp_path / "3").episodes.read_text()
    with pytest.raises(LabError, match=r"already holds a Session .failed"):
        begin(made, tmp_path)
    assert RunDir(tmp_path / "3").episodes.read_text() == before
