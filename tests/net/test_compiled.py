"""Methods of an algorithm that are compiled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.algo.algorithm import Algorithm
from lab.env.vector import probe
from lab.errors import LabError
from lab.net import library
from lab.net.compiled import Compiler, References
from lab.net.layers import ACTIVATIONS
from lab.training.agent import Agent
from tests.helpers import specs


def agent(*overrides: str) -> Agent:
    made = specs("~tuned", *overrides)
    made_agent = Agent(made, probe(made[0].env), torch.device("cpu"))
    made_agent.algorithm.allocate(made[0].env.num_envs)
    return made_agent


def test_activations_lead_to_functions_of_their_own() -> None:
    known = [References(agent(f"net.activation={name}").algorithm).plain for name in ACTIVATIONS]
    assert all(known)
    assert len({repr(plain) for plain in known}) == len(ACTIVATIONS)


def test_a_method_only_reads_the_replay_memory() -> None:
    algorithm = agent("algo=dqn", "algo.memory.size=5000").algorithm
    references = References(algorithm)
    largest = max(references.bases, key=torch.numel)
    assert largest.numel() >= 5000 * 4 and not references.writes(largest)
    assert all(references.writes(learner.parameters.values) for learner in algorithm.learners.values())


PICTURE = ("env=gymnasium", "env.id=tests.envs:Picture-v0", "name=picture", "net.hidden=[6]", "net.filters=[4]")
NETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mlp": (
        ("net.hidden=[6,6]",),
        ("net.activation=elu", "net.activation=gelu", "net.norm=layer", "net.shared=true", "net.gain=2"),
    ),
    "nature": (
        (*PICTURE, "net=nature", "net.kernels=[4]", "net.strides=[4]"),
        ("net.activation=tanh", "net.strides=[3]", "net.kernels=[5]", "net.shared=false"),
    ),
    "impala": ((*PICTURE, "net=impala"), ("net.activation=silu", "net.blocks=1", "net.shared=false")),
    "gru": (("net=gru", "net.size=6"), ("net=lstm", "net.activation=tanh", "net.burn_in=1", "net.size=5")),
    "actions": (
        ("env=pendulum", "net.hidden=[6]"),
        ("algo.distribution=tanh_gaussian", "algo.log_std_init=-1", "algo.state_dependent_std=true"),
    ),
}


class StopError(Exception):
    """No function is needed any more."""


def to_compile(algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Callable[[], Any]]:
    """Return what a compiled function of choosing actions is found by, and what traces it."""
    found: list[Any] = []

    def load(trace: Callable[[], Any], examples: list[torch.Tensor], settings: Any) -> Any:
        assert settings is not None
        found[:] = repr(settings) + repr(library._describe(examples)), trace
        raise StopError

    monkeypatch.setattr(library, "load", load)
    compiler = Compiler(algorithm, 1, torch.device("cpu"))
    space = algorithm.spaces.observation
    observation = torch.zeros(1, 2, *space.shape, dtype=torch.uint8 if len(space.shape) == 3 else torch.float32)
    noise = torch.zeros(1, 2, *algorithm.spaces.action.shape or (int(algorithm.spaces.action.n),))
    carry = torch.zeros(1, 2, algorithm.carry_size) if algorithm.carry_size else None
    with pytest.raises(StopError):
        compiler.call(type(algorithm).choose, (observation, noise, carry), {})
    return found[0], found[1]


@pytest.mark.parametrize("kind", NETS)
def test_what_is_found_by_the_same_settings_is_the_same_function(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, variants = NETS[kind]
    algorithms = [agent("algo=a2c", *usual, *more).algorithm for more in [(), *((word,) for word in variants)]]
    traces = defaultdict(list)
    for algorithm in algorithms:
        key, trace = to_compile(algorithm, monkeypatch)
        traces[key].append(trace)
    assert len(traces) > len(variants) / 2
    for same in traces.values():
        assert len({trace()[0].code for trace in same}) == 1


def test_a_method_that_cannot_be_traced_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    algorithm = agent("net.hidden=[6]").algorithm
    reads = type(algorithm).choose

    def choose(self: Algorithm, observation: torch.Tensor, *rest: Any) -> Any:
        assert observation.sum() < 1
        return reads(self, observation, *rest)

    choose.__name__ = "choose"
    algorithm.compiler = Compiler(algorithm, 1, torch.device("cpu"))
    monkeypatch.setattr(type(algorithm), "choose", choose)
    with pytest.raises(LabError, match=r"A2C.choose cannot be traced \(.*Use compile=false"):
        algorithm.act(torch.zeros(1, 2, 4), torch.zeros(1, 2, 2), torch.zeros(1, 2, 0))
