"""Steps as they are traced to be compiled, with the graph called in place of a library.

They read no numbers on the host, as tracing would raise. The same graphs, compiled, are in tests/test_compiled.py.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from lab.env.vector import probe
from lab.net import compiled, library
from lab.net.compiled import Program, References
from lab.run.tensor_files import read
from lab.training.agent import Agent
from tests.helpers import ALGORITHMS, result, specs, train

NUMBERS = ("env=gymnasium", "env.id=tests.envs:Target-v0", "name=target")
CHOICES = ("env=gymnasium", "env.id=tests.envs:Highest-v0", "name=highest")
SEVERAL = ("env=gymnasium", "env.id=tests.envs:Pair-v0", "name=pair")
BUTTONS = ("env=gymnasium", "env.id=tests.envs:Buttons-v0", "name=buttons")
PICTURES = ("env=gymnasium", "env.id=tests.envs:Picture-v0", "name=picture", "net.hidden=[5]")
PARTS = ("env=gymnasium", "env.id=tests.envs:Robot-v0", "name=robot", "+env.kwargs.size=3", "net=multi",
         "net.image_hidden=[5]", "net.vector_hidden=[3]", "net.hidden=[7]")  # fmt: skip
MASKS = ("env=gymnasium", "env.id=tests.envs:Rules-v0", "name=rules", "env.action_mask=true")
NORMALIZED = ("env.normalize_observations=true", "env.normalize_rewards=true")
# Shapes that fit no vector register.
SMALL = ("~tuned", "env.num_envs=3", "algo.horizon=8", "frames=120", "log.every=24", "log.tensorboard=false",
         "eval.every=0", "algo.optimizer.lr_schedule=linear")  # fmt: skip
MLP = ("net.hidden=[7,5]",)
PPO = ("algo=ppo", "algo.batch_size=12", "algo.epochs=2")
OFF_POLICY = ("algo.learning_starts=24", "algo.gradient_steps=2", "algo.batch_size=9", "algo.memory.size=100")
ACTOR_CRITIC = (*OFF_POLICY, *MLP, "algo.policy_delay=2")
PRIORITIZED = ("algo.memory.prioritized=true", "algo.memory.combined=true", "algo.memory.dtype=float16",
               "algo.n_step=3")  # fmt: skip
SIL = ("algo.sil.gradient_steps=2", "algo.sil.batch_size=9", "algo.sil.memory.size=100")
CASES: dict[str, tuple[str, ...]] = {
    "a2c": ("algo=a2c", *NUMBERS, *MLP, "algo.distribution=tanh_gaussian", "net.norm=layer"),
    "a2c lstm": ("algo=a2c", *CHOICES, "net=lstm", "net.hidden=[7]", "net.size=5"),
    "a2c sil": ("algo=a2c", *CHOICES, *MLP, *SIL, "algo.advantage=n_step", "algo.n_step=3", "net.activation=silu"),
    "crossq": ("algo=crossq", *NUMBERS, *ACTOR_CRITIC),
    "crossq choices": ("algo=crossq", *CHOICES, *ACTOR_CRITIC, *PRIORITIZED),
    "ddqn_per": ("algo=ddqn_per", *CHOICES, *OFF_POLICY, *MLP, "net.norm=layer"),
    "dqn": ("algo=dqn", *CHOICES, *OFF_POLICY, *MLP, "algo.distribution=quantile", "algo.atoms=5", *NORMALIZED),
    "dqn pictures": ("algo=dqn", *PICTURES, *OFF_POLICY, "net=nature", "net.filters=[3]", "net.kernels=[5]",
                     "net.strides=[3]"),
    "dqn masks": ("algo=dqn", *MASKS, *OFF_POLICY, *MLP, "algo.dueling=true", "algo.distribution=quantile",
                  "algo.atoms=5", "env.normalize_observations=true"),
    "ppo masks": (*PPO, *MASKS, *MLP, "+env.kwargs.choices=true"),
    "ppo parts": (*PPO, *PARTS, *NORMALIZED),
    "sac masks": ("algo=sac", *MASKS, *ACTOR_CRITIC),
    "sac parts": ("algo=sac", *PARTS, *OFF_POLICY),
    "ppo": (*PPO, *CHOICES, *MLP, "algo.clip_range_vf=0.2", "algo.target_kl=0.0001", "algo.entropy_schedule=cosine",
            *NORMALIZED),
    "ppo beta": (*PPO, *NUMBERS, *MLP, "algo.distribution=beta", "net.activation=elu"),
    "ppo buttons": (*PPO, *BUTTONS, *MLP, "net.shared=true", "algo.optimizer.name=sgd"),
    "ppo deviation": (*PPO, *NUMBERS, *MLP, "algo.state_dependent_std=true", "algo.optimizer.name=rmsprop"),
    "ppo gru": (*PPO, *CHOICES, "net=gru", "net.hidden=[7]", "net.size=5", "net.burn_in=2", "algo.batch_size=8"),
    "ppo impala": (*PPO, *PICTURES, "net=impala", "net.filters=[3]", "net.blocks=1"),
    "ppo several": (*PPO, *SEVERAL, *MLP, "net.activation=mish"),
    "pqn": ("algo=pqn", *CHOICES, *MLP, "algo.batch_size=8", "algo.dueling=true"),
    "rainbow": ("algo=rainbow", *CHOICES, *OFF_POLICY, *MLP, "algo.memory.dtype=float16", "algo.atoms=5"),
    "sac": ("algo=sac", *NUMBERS, *ACTOR_CRITIC, *PRIORITIZED, *NORMALIZED),
    "sac choices": ("algo=sac", *CHOICES, *ACTOR_CRITIC, "algo.learn_temperature=false"),
    "sarsa": ("algo=sarsa", *CHOICES, *MLP, "algo.exploration.method=boltzmann", "algo.batch_size=null"),
    "td3": ("algo=td3", *NUMBERS, *ACTOR_CRITIC, *PRIORITIZED, "net.hidden=[128,130]"),
}  # fmt: skip

# Off policy with choices and with numbers, and with memory. The others take five times as long, and are tested in CI.
USUAL = ("dqn", "ppo gru", "sac")
MARKED = [case if case in USUAL else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return all weights as one tensor."""
    return torch.cat([weights[name].flatten().double() for name in sorted(weights)])


def places(owner: Any) -> list[tuple[int, Any, int, int]]:
    """Return what identifies each tensor that an algorithm refers to, and where it does."""
    found = References(owner)._places
    return [(id(holder), key, id(tensor), tensor.data_ptr()) for holder, key, tensor in found]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Call graphs in place of libraries; collect algorithms, each with the places of its tensors when it was traced."""
    seen: list[tuple[Any, Any]] = []

    def load(trace: Callable[[], library.Traced], examples: list[torch.Tensor], settings: Any) -> tuple[Any, Any]:
        assert settings is not None, "it is found without being traced"
        graph, _, layout = trace()
        return lambda inputs: list(graph(*inputs)), layout

    class Watched(Program):
        def __init__(self, compiler: compiled.Compiler, *arguments: Any) -> None:
            super().__init__(compiler, *arguments)
            seen.append((compiler.owner, places(compiler.owner)))

    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # it writes thousands of lines
    monkeypatch.setattr(library, "load", load)
    monkeypatch.setattr(compiled, "Program", Watched)
    monkeypatch.setattr(compiled, "require_compiler", lambda: None)
    return seen


@pytest.mark.law
@pytest.mark.parametrize("case", MARKED)
def test_traced_steps_are_those_of_the_algorithm(tmp_path: Path, traced: list[tuple[Any, Any]], case: str) -> None:
    overrides = (*SMALL, *CASES[case])
    plain = train(tmp_path / "plain", *overrides, "seed=2", "compile=false")[0]
    assert not traced
    alone = train(tmp_path / "alone", *overrides, "seed=2", "compile=true")[0]
    assert alone.read_status()["error"] is None
    stacked = train(tmp_path / "stacked", *overrides, "seed=[0,2,1]", "compile=true")
    assert result(stacked[1]) == result(alone), "alone as in a stack"
    assert traced
    for algorithm, before in traced:
        assert places(algorithm) == before, "a tensor was replaced while the algorithm learned"

    spec = specs(*overrides, "seed=2")[0]
    first = flat(Agent([spec], probe(spec.env), torch.device("cpu")).algorithm.weights(0))
    expected, actual = (flat(read(directory.checkpoint("last"))["parameters"]) for directory in (plain, alone))
    moved = torch.linalg.vector_norm(expected - first)
    assert moved > 0
    assert torch.linalg.vector_norm(actual - expected) < 0.01 * moved
    assert [row.split(",")[0] for row in alone.metrics.read_text().splitlines()] == [
        row.split(",")[0] for row in plain.metrics.read_text().splitlines()
    ]


def test_every_algorithm_that_compiles_is_traced() -> None:
    compiling = {name for name in ALGORITHMS if specs(f"algo={name}")[0].algo.COMPILES}
    assert {case.split()[0] for case in CASES} == compiling


@pytest.mark.law
@pytest.mark.parametrize("case", ["dqn masks", "ppo masks", "ppo parts", "sac masks"])
def test_all_code_that_is_traced_decides_what_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    house = Path(library.__file__).parents[1]
    rooms: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(f"{house}/") and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            rooms.add(Path(path).relative_to(house).parts[0])

    def call(compiler: Any, method: Callable[..., Any], arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        sys.setprofile(note)
        try:
            return method(compiler.owner, *arguments, **constants)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(compiled.Compiler, "call", call)
    monkeypatch.setattr(compiled, "require_compiler", lambda: None)
    train(tmp_path, *SMALL, *CASES[case], "compile=true")
    assert rooms and rooms <= set(library.ROOMS)
