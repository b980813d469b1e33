"""The laws of the design, each by name."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
from itertools import product

import numpy as np
import pytest
import torch

from lab.analysis import analyze_session
from lab.run.directory import RunDir
from lab.run.files import write_atomically
from tests.helpers import ALGORITHMS, BOX, CHOICE, CHOICES, lab, result, serves, specs, train, train_specs

SLOW = (pytest.mark.slow, pytest.mark.law)
CASES = {
    "discrete": ("env=cartpole",),
    "continuous": ("env=pendulum", "env.max_episode_steps=50"),
    "multi-discrete": ("env=gymnasium", "env.id=tests.envs:Pair-v0", "name=pair"),
    "single": ("env=gymnasium", "env.id=tests.envs:Single-v0", "name=single"),
    "normalized": (
        "env=pendulum",
        "env.max_episode_steps=50",
        "env.normalize_observations=true",
        "env.normalize_rewards=true",
    ),
    "parts": (
        "env=gymnasium",
        "env.id=tests.envs:Robot-v0",
        "name=robot",
        "+env.kwargs.size=3",
        "net=multi",
        "net.image_hidden=[5]",
        "net.vector_hidden=[3]",
        "net.hidden=[7]",
    ),
    "masks": ("env=gymnasium", "env.id=tests.envs:Rules-v0", "name=rules", "env.action_mask=true", "net.hidden=[7]"),
    # Shapes that fit no vector register, and every part of the arithmetic switched on.
    "odd": (
        "env=acrobot",
        "env.max_episode_steps=60",
        "env.num_envs=3",
        "net.hidden=[7,5]",
        "net.activation=silu",
        "net.shared=true",
    ),
}
CHOICE_CASES = ("discrete", "odd", "parts", "masks")
KINDS = dict.fromkeys(CASES, BOX) | dict.fromkeys(CHOICE_CASES, CHOICE) | {"multi-discrete": CHOICES}
OFF_POLICY = ("algo.horizon=4", "algo.learning_starts=200", "algo.batch_size=32", "algo.memory.size=500", "~tuned")
OFF_POLICY_ALGORITHMS = [algo for algo in ALGORITHMS if hasattr(specs(f"algo={algo}")[0].algo, "learning_starts")]
ODD = {
    "dqn": (
        "algo.horizon=5",
        "algo.n_step=3",
        "algo.double=true",
        "algo.dueling=true",
        "algo.noisy=true",
        "algo.distribution=categorical",
        "algo.atoms=7",
        "algo.memory.prioritized=true",
        "algo.memory.combined=true",
        "algo.memory.dtype=float16",
        "algo.memory.size=300",
        "algo.learning_starts=100",
        "algo.batch_size=9",
        "algo.target_update_interval=3",
        "algo.tau=0.1",
        "algo.optimizer.max_grad_norm=null",
    ),
    "pqn": ("algo.horizon=10", "algo.batch_size=15", "algo.dueling=true", "algo.exploration.schedule=exponential"),
    "sarsa": (
        "algo.horizon=11",
        "algo.batch_size=null",
        "algo.exploration.method=boltzmann",
        "algo.optimizer.max_grad_norm=null",
    ),
    "a2c": ("algo.horizon=7", "algo.advantage=n_step", "algo.n_step=3", "algo.entropy_coef=0.01"),
    "ppo": ("algo.horizon=9", "algo.batch_size=27", "algo.clip_range_vf=0.2", "algo.target_kl=0.001", "algo.epochs=4"),
    "reinforce": ("algo.horizon=11", "algo.baseline=false", "algo.optimizer.name=rmsprop"),
}


def overrides(algo: str, case: str) -> list[str]:
    usual: tuple[str, ...] = ("algo.horizon=32", "~tuned")
    if algo == "ppo":
        usual = ("algo.horizon=64", "algo.batch_size=128")
    elif algo in OFF_POLICY_ALGORITHMS:
        usual = OFF_POLICY
    if case == "odd":
        usual = ODD.get(algo, OFF_POLICY if algo in OFF_POLICY_ALGORITHMS else ())
    schedules = ["algo.optimizer.lr_schedule=linear"]
    if hasattr(specs(f"algo={algo}")[0].algo, "entropy_schedule"):
        schedules.append("algo.entropy_schedule=cosine")
    return [f"algo={algo}", *CASES[case], *usual, *schedules, "frames=1000"]


def usual(algo: str, case: str) -> bool:
    """Whether a pair is tested by default: all pairs of PPO, and the hardest of the others."""
    return algo == "ppo" or case == ("odd" if serves(algo, "", CHOICE) else "continuous")


PAIRS = [
    pytest.param(algo, case, marks=() if usual(algo, case) else SLOW)
    for algo, case in product(ALGORITHMS, CASES)
    if serves(algo, "", KINDS[case])
]


@pytest.mark.parametrize(("algo", "case"), PAIRS)
def test_law_1_alone_is_as_in_a_stack(tmp_path: pathlib.Path, algo: str, case: str) -> None:
    extra = ["algo.n_step=5"] if algo == "a2c" and case != "odd" else []
    alone = train(tmp_path / "alone", *overrides(algo, case), *extra, "seed=2")
    stacked = train(tmp_path / "stacked", *overrides(algo, case), *extra, "seed=[0,1,2,3]")
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4
    rows = result(alone[0])["episodes"].splitlines()
    assert len(rows) > 1, "some episodes ended"


@pytest.mark.parametrize("algo", ["dqn", "ppo"])  # for each algorithm it follows from the test above
def test_law_1_the_same_spec_gives_the_same_result(tmp_path: pathlib.Path, algo: str) -> None:
    case = "continuous" if serves(algo, "", BOX) else "discrete"
    first, second = (train(tmp_path / name, *overrides(algo, case), "seed=5")[0] for name in ("first", "second"))
    assert result(first) == result(second)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_law_1_sessions_of_different_trials_share_a_stack(tmp_path: pathlib.Path, algo: str) -> None:
    case = "discrete" if serves(algo, "", CHOICE) else "continuous"
    spec = specs(*overrides(algo, case), "log.tensorboard=false", "seed=1")[0]
    algos = [
        dataclasses.replace(spec.algo, gamma=gamma, optimizer=dataclasses.replace(spec.algo.optimizer, lr=lr))
        for lr, gamma in ((1e-3, 0.99), (3e-3, 0.9), (1e-4, 0.5))
    ]
    trials = [dataclasses.replace(spec, algo=algo) for algo in algos]
    stacked = train_specs(tmp_path / "stacked", trials)
    for index in (0, 2):
        alone = train_specs(tmp_path / f"alone-{index}", [trials[index]])
        assert result(stacked[index]) == result(alone[0])


@pytest.mark.parametrize(
    ("env", "mode"),
    [
        ("Raises", "train"),
        ("NotANumber", "dev"),
        pytest.param("RaisesInReset", "train", marks=SLOW),
        pytest.param("NotANumber", "train", marks=SLOW),
        pytest.param("Raises", "dev", marks=SLOW),
    ],
)
def test_law_1_holds_for_a_session_beside_one_that_fails(tmp_path: pathlib.Path, env: str, mode: str) -> None:
    chosen = ["algo=ppo", "env=gymnasium", f"env.id=tests.envs:{env}-v0", f"name={env}", f"mode={mode}", "frames=1500"]
    chosen += ["algo.horizon=64", "algo.batch_size=128"]
    stacked = train(tmp_path / "stacked", *chosen, "seed=[0,1,2,3,4,5]")
    states = [directory.read_status()["state"] for directory in stacked]
    assert {"completed", "failed"} == set(states)
    for seed, directory in enumerate(stacked):
        alone = train(tmp_path / f"alone-{seed}", *chosen, f"seed={seed}")[0]
        assert alone.read_status()["state"] == states[seed]
        for table in ("episodes", "metrics"):
            assert getattr(alone, table).read_text() == getattr(directory, table).read_text()


def test_law_2_no_draw_from_a_global_stream(tmp_path: pathlib.Path) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    train(tmp_path, *overrides("ppo", "continuous"))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before


def test_law_3_a_reader_sees_the_old_file_or_the_new(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_atomically(path, b"old")

    def replace(self: pathlib.Path, target: pathlib.Path) -> None:
        assert path.read_bytes() == b"old"
        assert self.read_bytes() == b"new", "the new file is complete before it is renamed"
        raise OSError("the machine stopped here")

    monkeypatch.setattr(pathlib.Path, "replace", replace)
    with pytest.raises(OSError, match="stopped here"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_law_4_a_failure_is_in_the_status_with_its_traceback(tmp_path: pathlib.Path) -> None:
    chosen = ["algo=a2c", "env=gymnasium", "env.id=tests.envs:Raises-v0", "name=raises", "frames=50_000"]
    directory = train(tmp_path, *chosen)[0]
    status = directory.read_status()
    assert status["state"] == "failed"
    assert "RuntimeError: the environment broke" in status["error"]
    assert "Traceback" in directory.log.read_text()
    assert status["frame"] < 50_000


def test_law_5_analysis_is_a_pure_function_of_files(tmp_path: pathlib.Path) -> None:
    directory = train(tmp_path, "frames=3000")[0]
    analyze_session(directory)
    first = directory.results.read_bytes(), directory.plot.read_bytes()
    directory.results.unlink()
    analyze_session(directory)
    assert (directory.results.read_bytes(), directory.plot.read_bytes()) == first


def test_law_5_a_half_finished_directory_can_be_analysed(tmp_path: pathlib.Path) -> None:
    whole = train(tmp_path, "frames=3000")[0]
    half = RunDir(tmp_path / "half")
    half.path.mkdir()
    half.spec.write_bytes(whole.spec.read_bytes())
    half.write_status("interrupted", 1000, 3000)
    for path, rows in ((whole.episodes, 1), (whole.metrics, 1), (whole.timing, 1)):
        (half.path / path.name).write_text("".join(path.read_text().splitlines(keepends=True)[:rows]))
    analyze_session(half)
    assert json.loads(half.results.read_text())["return"] is None
    assert half.plot.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("mistake", "sentences"),
    {
        "algo=a2d": ("algo=a2d", "Did you mean 'a2c'", ", ".join(ALGORITHMS)),
        "algo.lrr=1": ("algo.lrr", "Did you mean 'lr'", "gamma"),
        "+algo.lrr=1": ("algo.lrr", "Did you mean 'lr'", "gamma"),
        "algo.lr=fast": ("algo.lr=fast", "must be a number"),
        "algo.horizon=2.5": ("algo.horizon=2.5", "a whole number"),
        "net.activation=tahn": ("net.activation=tahn", "Did you mean 'tanh'", "relu"),
        "env.id=CartPol-v1": ("env.id=CartPol-v1", "Did you mean", "CartPole"),
        "env.id=tests.envs:Text-v0": ("Text", "Discrete, MultiDiscrete, MultiBinary or Box"),
        "algo=ppo algo.batch_size=100": ("algo.batch_size=100", "1024 samples", "128"),
    }.items(),
)
def test_law_6_a_mistake_stops_before_the_first_frame(
    tmp_path: pathlib.Path, mistake: str, sentences: tuple[str, ...]
) -> None:
    output = tmp_path / "run"
    done = lab(*mistake.split(), f"hydra.run.dir={output}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for sentence in sentences:
        assert sentence in done.stderr
    assert not output.exists(), "nothing is written for a rejected config"
