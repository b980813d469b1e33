"""Modules of the user's own: stacked they are what each is alone, and mistakes are sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium.spaces import Box
from torch import Tensor

from lab.algo.on_policy import OnPolicy
from lab.env.stacked import StackedEnvironments
from lab.errors import LabError
from lab.net.module import Module
from lab.net.net import Output
from lab.net.network import Parameters, StackedNetwork
from lab.run.directory import RunDir
from lab.run.files import read_yaml, write_text
from lab.spec import load
from lab.training.lockstep import check_spaces
from tests.helpers import QUIET, go_on, lab, result, specs, train
from tests.modules import Torso

OWN = ("~tuned", "net=module", "net._target_=tests.modules.Torso", "+net.width=9")
SPACE = Box(-1, 1, (4,))


def build(seeds: list[int], shared: bool = False, **arguments: Any) -> StackedNetwork:
    outputs = [Output("policy", 2, [1.0] * len(seeds)), Output("value", 1, [1.0] * len(seeds))]
    net = Module("tests.modules.Torso", {"width": 9, **arguments}, shared=shared)
    return net.build(SPACE, outputs, [np.random.default_rng(seed) for seed in seeds])


def random_observations(stack: int, batch: int = 6) -> Tensor:
    return torch.from_numpy(np.random.default_rng(9).standard_normal((5, batch, 4), dtype=np.float32))[:stack]


def test_a_stacked_module_is_each_of_its_copies() -> None:
    network = build([0, 1, 2])
    Parameters(network)
    x, trunk = random_observations(3), network.trunks["policy"]
    values = dict(trunk.module.named_parameters())
    gives = trunk(x)
    for s in range(3):
        own = Torso(SPACE, 9)
        own.load_state_dict({name: value[s] for name, value in values.items()} | {"calls": torch.zeros(())})
        assert torch.allclose(gives[s], own(x[s]), atol=1e-6)
    assert len({float(value) for value in gives[:, 0, 0].detach()}) == 3, "each Session begins with weights of its own"
    assert build([0], shared=True).trunks["policy"] is not network.trunks["value"]


def test_one_module_for_each_output_or_one_for_all() -> None:
    apart, together = build([0]), build([0], shared=True)
    assert apart.trunks["policy"] is not apart.trunks["value"]
    assert together.trunks["policy"] is together.trunks["value"]


def numbers(network: StackedNetwork, x: Tensor) -> list[Tensor]:
    """Return what a network gives and every gradient, and what it remembers, by Session on the first axis."""
    parameters = Parameters(network)
    for _ in range(3):
        results = network(x, "policy", "value")
    losses = torch.stack([(result * result + result).sum(-1) for result in results]).sum(0)
    parameters.backward(losses, torch.ones_like(losses))
    with torch.no_grad():
        later = network(x, "policy", "value")
    return [*results, *later, parameters.gradients, *parameters.buffers.values()]


@pytest.mark.parametrize("arguments", [{}, {"dropout": 0.5}, {"norm": True}, {"dropout": 0.2, "norm": True}])
@pytest.mark.parametrize("batch", [2, 7, 32])
def test_law_1_of_a_module(arguments: dict[str, Any], batch: int) -> None:
    x = random_observations(5, batch)
    stacked = numbers(build([0, 1, 2, 3, 4], **arguments), x)
    for s in range(5):
        for several, one in zip(stacked, numbers(build([s], **arguments), x[s : s + 1]), strict=True):
            assert torch.equal(several[s], one[0])


def test_what_a_module_remembers_and_draws() -> None:
    network = build([0, 1], dropout=0.5, norm=True)
    parameters = Parameters(network)
    assert {name.split(".")[-1] for name in parameters.buffers} == {
        "frozen", "calls", "running_mean", "running_var", "num_batches_tracked", "draws",
    }  # fmt: skip
    module, x = network.trunks["policy"].module, random_observations(2)
    before = torch.get_rng_state()
    first, second = network(x, "policy")[0], network(x, "policy")[0]
    assert not torch.equal(first, second), "dropout draws anew in every step of learning"
    assert module.calls.tolist() == [2.0, 2.0]
    assert module.norm.num_batches_tracked.tolist() == [2, 2]
    assert module.norm.running_mean.abs().sum() > 0
    with torch.no_grad():
        assert torch.equal(network(x, "policy")[0], network(x, "policy")[0])
    assert module.calls.tolist() == [2.0, 2.0]
    assert torch.equal(torch.get_rng_state(), before), "law 2: what others draw from stays as it was"
    # Another stack goes on with what a Session remembers, its draws too.
    other = build([5], dropout=0.5, norm=True)
    Parameters(other).restore(0, parameters.session(1))
    assert torch.allclose(other(x[1:], "policy")[0][0], network(x, "policy")[0][1], atol=1e-6)


def test_a_module_that_finds_out_what_it_is_given_and_images() -> None:
    net = Module("tests.modules.Lazy", {}, shared=True)
    images = Box(0, 255, (5, 5, 1), np.uint8)
    network = net.build(images, [Output("policy", 2, [1.0, 1.0])], [np.random.default_rng(s) for s in (0, 1)])
    x = torch.full((2, 3, 5, 5, 1), 255, dtype=torch.uint8)
    ones = network.trunks["policy"](torch.ones(2, 3, 5, 5, 1))
    assert torch.equal(network.trunks["policy"](x), ones), "bytes become 0 to 1"


def test_extra_numbers_reach_a_module_that_takes_them() -> None:
    rngs, outputs = [np.random.default_rng(0)], [Output("value", 1, [1.0])]
    net = Module("tests.modules.Critic", {"inputs": 4, "actions": 2}, shared=False)
    net.check_observations(SPACE)
    network, x = net.build(SPACE, outputs, rngs, extra=2), random_observations(1)
    some, others = (network(x, "value", extra=torch.full((1, 6, 2), value))[0] for value in (0.0, 1.0))
    assert not torch.equal(some, others)
    with pytest.raises(LabError, match="cannot tell the value of continuous actions: its forward must take"):
        Module("tests.modules.Torso", {"width": 3}, shared=False).build(SPACE, outputs, rngs, extra=2)


@pytest.mark.law
@pytest.mark.parametrize(
    ("algo", "more"),
    [
        ("a2c", ("+net.dropout=0.2", "+net.norm=true")),
        pytest.param("ppo", ("algo.horizon=32", "algo.batch_size=64", "net.shared=true"), marks=pytest.mark.slow),
        ("dqn", ("algo.learning_starts=128", "+net.norm=true")),
    ],
)
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, algo: str, more: tuple[str, ...]) -> None:
    chosen = [f"algo={algo}", "env=cartpole", *OWN, *more, "frames=512"]
    alone = train(tmp_path / "alone", *chosen, "seed=2", "eval.every=300")
    stacked = train(tmp_path / "stacked", *chosen, "seed=[0,1,2,3]", "eval.every=300")
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.law
def test_law_1_killed_and_resumed(tmp_path: Path) -> None:
    often = ("algo.horizon=16", "algo.n_step=5", "checkpoint.every=256", "eval.every=300", "frames=1024")
    made = specs(*QUIET, *OWN, "+net.dropout=0.3", "+net.norm=true", *often)
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    assert go_on(made, [whole]) == ["completed"]
    for happened in ((OnPolicy, "step", 4, killed), (StackedEnvironments, "step", 30, killed)):
        assert go_on(made, [parts], happened) == ["interrupted"]
    assert go_on(made, [parts]) == ["completed"]
    assert result(parts) == result(whole)


def test_every_check_of_a_learning_step_passes(tmp_path: Path) -> None:
    chosen = ["algo=ppo", "env=cartpole", *OWN, "mode=dev", "algo.horizon=32", "frames=512", "eval.every=0"]
    assert train(tmp_path, *chosen)[0].read_status()["error"] is None


def test_a_spec_with_a_module_read_back_is_the_same(tmp_path: Path) -> None:
    spec = specs(*OWN, "+net.norm=true")[0]
    assert spec.to_dict()["net"] == {
        "_target_": "tests.modules.Torso", "shared": False, "width": 9, "norm": True,
    }  # fmt: skip
    write_text(tmp_path / "spec.yaml", yaml.safe_dump(spec.to_dict(), sort_keys=False))
    assert load(tmp_path / "spec.yaml") == spec


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("net=module", "net._target_ is missing"),
        ("net=module net._target_=tests.modules.Torsi", "cannot be imported"),
        ("net=module net._target_=tests.modules.Tensor", "a dataclass that extends Net, or a torch.nn.Module"),
        (
            "~tuned net=module net._target_=tests.modules.Torso",
            "net.width is missing: tests.modules.Torso requires it",
        ),
        (
            f"{' '.join(OWN)} +net.widht=3",
            "net.widht cannot be set: .* Did you mean 'width'. Its arguments are: width,",
        ),
        (f"{' '.join(OWN)} +net.observation_space=3", "net.observation_space cannot be an argument"),
        (f"{' '.join(OWN)} net.shared=maybe", "net.shared=maybe is not allowed: net.shared must be true or false"),
        ("~tuned net=module net._target_=tests.modules.Shared", "net.shared cannot be an argument"),
    ],
)
def test_mistakes_in_the_config_are_sentences(overrides: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs(*overrides.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"a": 1}, r"cannot be made with a=1: ValueError: too many"),
        ({"gives": "error"}, r"cannot process observations of shape \(4,\): ValueError: cannot look\."),
        ({"gives": "row"}, r"gave \(4,\) for 2 observations: its forward must return features \[B, N\]"),
        ({"gives": "text"}, r"gave str for 2 observations"),
        ({"gives": "double"}, r"has weight in torch.float64: it must be float32"),
    ],
)
def test_modules_that_do_not_work(arguments: dict[str, Any], sentence: str) -> None:
    net = Module("tests.modules.Anything", arguments, shared=False)
    net.check()
    with pytest.raises(LabError, match=sentence):
        net.check_observations(SPACE)


def test_the_command_of_the_readme_trains_with_a_tuned_pair(tmp_path: Path) -> None:
    own = ("net=module", "net._target_=tests.modules.Torso", "+net.width=2", "frames=256", "eval.every=0")
    done = lab("algo=a2c", "env=cartpole", *own, "log.tensorboard=false", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "tuned=a2c_cartpole sets keys of net=mlp, which are left out with net=module." in done.stderr
    assert "net._target_=tests.modules.Torso returns 2 numbers, as many as there are actions" in done.stderr
    assert read_yaml(tmp_path / "run" / "spec.yaml")["algo"]["horizon"] == 32, "what was tuned of the algorithm stays"


@pytest.mark.parametrize(("width", "heard"), [(1, "returns one number"), (2, "returns 2 numbers"), (9, "")])
def test_a_module_that_seems_to_return_logits_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, heard: str
) -> None:
    monkeypatch.setattr("lab.errors._warned", set())
    check_spaces(specs("env=cartpole", *OWN[:-1], f"+net.width={width}"))
    told = capsys.readouterr().err
    assert heard in told and bool(heard) == bool(told)


def test_mistakes_stop_before_the_first_frame(tmp_path: Path) -> None:
    own = ("~tuned", "net=module", "net._target_=tests.modules.Anything", "+net.gives=row")
    done = lab(*own, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "its forward must return features" in done.stderr
    assert not (tmp_path / "run").exists()
