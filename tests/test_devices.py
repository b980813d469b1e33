"""Training on a device beside the CPU: who waits for it, and what comes out.

Without a GPU the device is one that is not there (tests/device.py); with `-m gpu` the same tests run on a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from signal import SIGINT, raise_signal
from typing import Any

import pytest
import torch

from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.tensor_files import read
from lab.training.agent import Agent
from lab.training.stack import Stack
from tests.device import DEVICE, Device
from tests.helpers import ALGORITHMS, go_on, specs

T, GRADIENT_STEPS, MINIBATCHES = 8, 2, 2
ENVS, HORIZONS = 2, 4
USUAL = (
    "~tuned", f"env.num_envs={ENVS}", "env.max_episode_steps=5", "log.tensorboard=false",
    "eval.every=64", "eval.episodes=2", "checkpoint.every=32", "log.every=32",
    f"algo.horizon={T}", f"frames={HORIZONS * T * ENVS}",
)  # fmt: skip
SMALL = "net.hidden=[8]"
CARTPOLE, PENDULUM = ("env=cartpole", SMALL), ("env=pendulum", SMALL)
NORMALIZED = (*PENDULUM, "env.normalize_observations=true", "env.normalize_rewards=true")
EPOCHS = ("algo.batch_size=8", "algo.epochs=1")  # MINIBATCHES of them
MEMORY = (
    "algo.learning_starts=20", "algo.batch_size=4", "algo.memory.size=64", f"algo.gradient_steps={GRADIENT_STEPS}"
)  # fmt: skip
IMITATION = (f"algo.sil.gradient_steps={GRADIENT_STEPS}", "algo.sil.batch_size=4")
MODULE = ("net=module", "net._target_=tests.modules.Torso", "+net.width=8", "+net.dropout=0.1")
SCHEDULE = (
    "algo.optimizer.lr_schedule=torch.optim.lr_scheduler.StepLR",
    "+algo.optimizer.lr_schedule_kwargs.step_size=2",
)
REPLAY, EPISODES, OPTIMIZER = "lab/memory/replay.py", "lab/memory/episodes.py", "lab/net/optimizer.py"
PRIORITIES = {REPLAY: 1 + GRADIENT_STEPS}  # valid steps of a horizon, and errors, as the sum tree is on the host
# By name: overrides, and how often the host reads from the device in a learning call, by module.
CASES: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "a2c": (("algo=a2c", *CARTPOLE), {}),
    "a2c n-step": (("algo=a2c", *NORMALIZED, "algo.advantage=n_step", "algo.n_step=3"), {}),
    "a2c beta": (("algo=a2c", *PENDULUM, "algo.distribution=beta"), {}),
    "a2c imitation": (("algo=a2c", *NORMALIZED, *IMITATION, "algo.sil.memory.prioritized=false"), {EPISODES: 1}),
    "crossq": (("algo=crossq", *PENDULUM, *MEMORY), {}),
    "crossq discrete": (("algo=crossq", *CARTPOLE, *MEMORY), {}),
    "ddqn_per": (("algo=ddqn_per", *CARTPOLE, *MEMORY), PRIORITIES),
    "dqn": (("algo=dqn", *CARTPOLE, *MEMORY), {}),
    "dqn quantile": (
        ("algo=dqn", *CARTPOLE, *MEMORY, "algo.distribution=quantile", "algo.n_step=3", "algo.memory.combined=true"),
        {},
    ),
    "dqn float16": (("algo=dqn", *CARTPOLE, *MEMORY, "algo.noisy=true", "algo.memory.dtype=float16"), {}),
    "pqn": (("algo=pqn", *CARTPOLE, *EPOCHS), {}),
    "ppo": (("algo=ppo", *CARTPOLE, *EPOCHS), {}),
    "ppo continuous": (("algo=ppo", *NORMALIZED, *EPOCHS, "algo.clip_range_vf=0.2", "algo.target_kl=0.01"), {}),
    "ppo tanh": (("algo=ppo", *PENDULUM, *EPOCHS, "algo.distribution=tanh_gaussian"), {}),
    "ppo several choices": (
        ("algo=ppo", "env=gymnasium", "env.id=tests.envs:Pair-v0", "name=pair", SMALL, *EPOCHS),
        {},
    ),
    "ppo imitation": (("algo=ppo", *CARTPOLE, *EPOCHS, *IMITATION), {EPISODES: 1, REPLAY: GRADIENT_STEPS}),
    "ppo gru": (("algo=ppo", *CARTPOLE, *EPOCHS, "net=gru", "net.size=4"), {}),
    "ppo lstm": (("algo=ppo", *CARTPOLE, *EPOCHS, "net=lstm", "net.size=4", "net.shared=true"), {}),
    "ppo module": (("algo=ppo", "env=cartpole", *EPOCHS, *MODULE), {}),
    "ppo optimizer": (("algo=ppo", *CARTPOLE, *EPOCHS, "algo.optimizer.name=torch.optim.RAdam"), {OPTIMIZER: 2}),
    "ppo schedule": (("algo=ppo", *CARTPOLE, *EPOCHS, *SCHEDULE), {}),
    "rainbow": (("algo=rainbow", *CARTPOLE, *MEMORY), PRIORITIES),
    "reinforce": (("algo=reinforce", *CARTPOLE), {"lab/algo/reinforce.py": 1}),  # which blocks hold ended episodes
    "sac": (("algo=sac", *NORMALIZED, *MEMORY), {}),
    "sac discrete": (("algo=sac", *CARTPOLE, *MEMORY, "algo.memory.prioritized=true"), PRIORITIES),
    "sarsa": (("algo=sarsa", *CARTPOLE, *EPOCHS, "algo.exploration.method=boltzmann"), {}),
    "td3": (("algo=td3", *PENDULUM, *MEMORY), {}),
}


HARDEST = ("a2c imitation", "crossq", "ppo gru", "ppo module", "rainbow")
SLOW = (pytest.mark.slow, pytest.mark.law)
Events = Counter[tuple[str, str]]  # how often, by kind and place


def cases(*usual: str) -> list[Any]:
    """Return the names of all cases, of which these are tested by default."""
    return [pytest.param(name, marks=() if name in usual else SLOW) for name in CASES]


COMPILES = False  # whether Sessions are compiled that can be
GPU = [pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "cuda, compiled")]


@pytest.fixture(params=["not there", *GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device | None]:
    """Let Sessions train on a device; None for a GPU, which counts nothing."""
    is_there = request.param != "not there"
    monkeypatch.setattr("lab.training.state.prepare_device", lambda *_: torch.device("cuda") if is_there else DEVICE)
    if "compiled" in request.param:
        monkeypatch.setattr(f"{__name__}.COMPILES", True)
    with nullcontext() if is_there else Device() as entered:
        yield entered


def train(folder: Path, name: str, seeds: str = "[0,1]", pause: int | None = None) -> list[dict[str, torch.Tensor]]:
    """Train a case, interrupted in a horizon and resumed or not, and return the parameters of each Session."""
    made = specs(*USUAL, *CASES[name][0], f"seed={seeds}")
    for spec in made:
        spec.compile = COMPILES and not spec.obstacle_to_compiling
    directories = [RunDir(folder / str(spec.seed)) for spec in made]
    if pause is not None:
        pausing = (Stack, "collect_and_learn", pause, lambda: raise_signal(SIGINT))
        assert go_on(made, directories, pausing) == ["interrupted"] * len(made)
    assert go_on(made, directories) == ["completed"] * len(made), [d.read_status()["error"] for d in directories]
    return [read(directory.checkpoint("last"))["parameters"] for directory in directories]


def assert_close(ours: list[dict[str, torch.Tensor]], theirs: list[dict[str, torch.Tensor]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for key, value in one.items():
            assert torch.allclose(value, other[key], atol=1e-4, rtol=1e-3), key


def test_every_algorithm_has_a_case() -> None:
    assert {overrides[0].partition("=")[2] for overrides, _ in CASES.values()} == set(ALGORITHMS)


@pytest.mark.parametrize("name", cases(*HARDEST))
def test_the_host_waits_once_a_step_and_once_a_horizon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device | None, name: str
) -> None:
    """It needs each step's actions, and after a horizon whether all is finite; CASES names what else it waits for."""
    expected = CASES[name][1]
    phases: dict[str, Events] = {}
    learned: list[int] = []
    collect_and_learn, log, make = Stack.collect_and_learn, Stack.log, Agent.__init__

    def lap(phase: str | None = None) -> None:
        if device:
            phases[phase or ""] = Counter(device.events)
            device.events.clear()

    def horizon(self: Stack) -> Any:
        lap()
        interval = collect_and_learn(self)
        lap("after")
        return interval

    def logged(self: Stack, *arguments: Any) -> None:
        lap()
        log(self, *arguments)
        lap("log")

    def made(self: Agent, *arguments: Any) -> None:
        make(self, *arguments)
        learn = self.algorithm.learn

        def watched(*arguments: Any, **options: Any) -> Any:
            lap("collect")
            learned.append(1)
            if device is None and not expected and len(learned) == HORIZONS:  # earlier ones record CUDA graphs
                torch.cuda.set_sync_debug_mode("error")
            try:
                return learn(*arguments, **options)
            finally:
                lap("learn")
                if device is None:
                    torch.cuda.set_sync_debug_mode("default")

        self.algorithm.learn = watched  # type: ignore[method-assign]

    monkeypatch.setattr(Stack, "collect_and_learn", horizon)
    monkeypatch.setattr(Stack, "log", logged)
    monkeypatch.setattr(Agent, "__init__", made)
    on_device = train(tmp_path / "device", name)
    if device:
        of_actions = {("read", "lab/training/collect.py"): T}
        if "beta" in name:
            of_actions["read", "lab/net/distribution.py"] = T  # scipy samples, on the host
        assert waits(phases["collect"]) == of_actions, phases["collect"]
        copies = [number for (kind, _), number in phases["collect"].items() if kind == "copy"]
        assert max(copies) == T + 1, phases["collect"]  # observations
        assert waits(phases["learn"]) == {("read", path): n for path, n in expected.items()}, phases["learn"]
        assert waits(phases["after"]) == {("read", "lab/training/stack.py"): 1}, phases["after"]
        assert waits(phases["log"]) == {("read", "lab/training/metrics.py"): 1}, phases["log"]
    monkeypatch.setattr("lab.training.state.prepare_device", lambda *_: torch.device("cpu"))
    assert_close(on_device, train(tmp_path / "cpu", name))


MEMORIES = ("dqn quantile", "ppo imitation", "rainbow")


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) if name != "rainbow" else name for name in MEMORIES])
def test_a_memory_that_does_not_fit_lies_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    on_device = train(tmp_path / "device", name)
    monkeypatch.setattr("lab.memory.spec.free_memory", lambda device: 2**40 if device.type == "cpu" else 0)
    on_host = train(tmp_path / "host", name)
    assert " of this machine's memory, as " in RunDir(tmp_path / "host" / "0").log.read_text()
    assert_close(on_host, on_device)
    monkeypatch.setattr("lab.memory.spec.free_memory", lambda device: 0)
    with pytest.raises(LabError, match=r"memory\.size=[0-9]+ needs .* free on this machine"):
        train(tmp_path / "nowhere", name)


def waits(events: Events) -> Events:
    """Return what the host waits for, by kind and module."""
    sums: Events = Counter()
    for (kind, place), number in events.items():
        if kind != "copy":
            sums[kind, place.partition(":")[0]] += number
    return sums


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", cases("ppo optimizer", "rainbow"))
def test_alone_and_resumed_as_in_a_stack(tmp_path: Path, name: str) -> None:
    stacked = train(tmp_path / "stacked", name)
    assert_close(train(tmp_path / "alone", name, seeds="1"), stacked[1:])
    assert_close(train(tmp_path / "resumed", name, pause=3), stacked)
