"""Agents as programs that run without Lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lab
from lab.command.export import main as export
from lab.env.spaces import ActionConverter
from lab.run.directory import RunDir
from lab.training import program
from lab.training.policy import batch_of
from tests.helpers import train
from tests.test_api import RULES, SESSIONS, load, observe

# Of which each takes a second or more, on a machine that does nothing else.
SLOW = [(name, "onnx") for name in (*SESSIONS, "values") if name != "pendulum"] + [("cartpole", "pt2"), ("lake", "pt2")]
VALUES = (
    "algo=dqn", "algo.learning_starts=100", "algo.batch_size=9", "algo.memory.size=300", "algo.horizon=4", "frames=300",
    *RULES, "algo.dueling=true", "algo.distribution=categorical", "algo.atoms=7",
)  # fmt: skip


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    folder = tmp_path_factory.mktemp("sessions")
    chosen = SESSIONS | {"values": VALUES}
    return {name: train(folder / name, *overrides)[0] for name, overrides in chosen.items()}


def run(path: Path, agent: lab.Agent, observations: list[Any]) -> np.ndarray:
    """Return the actions of a program for observations, by the runtime of its format."""
    module = program._Program(agent._policy)
    inputs = module.inputs(observations)
    inputs += [module.first_state(len(observations))] if "state" in module.names else []
    if path.suffix == ".pt2":
        with torch.no_grad():
            return torch.export.load(path).module()(*map(torch.from_numpy, inputs))[0].numpy()
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(path).run(["action"], dict(zip(module.names, inputs, strict=True)))[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] if (name, kind) in SLOW else [])
        for name in (*SESSIONS, "values")
        for kind in ("pt2", "onnx")
    ],
)
def test_a_program_acts_as_the_agent(sessions: dict[str, RunDir], tmp_path: Path, name: str, kind: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    agent = load(sessions, name)
    path = agent.export(tmp_path / f"policy.{kind}")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    for number in (1, 3):
        observations = observe(agent, 6)[-number:]
        agent.reset()
        expected = agent.act(batch_of(agent.observation_space, observations))
        got = run(path, agent, observations)
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_best_agent_is_exported_on_the_command_line(
    sessions: dict[str, RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "policy.pt2"
    export([str(sessions["cartpole"].path), f"out={path}", "checkpoint=last"])
    assert f"to {path}: it acts as the agent on observations of CartPole-v1." in capsys.readouterr().out
    files = {"lab.json": ""}
    torch.export.load(path, extra_files=files)
    facts = json.loads(files["lab.json"])
    assert (facts["name"], facts["env"], facts["frame"]) == ("ppo_cartpole", "CartPole-v1", 1024)
    with pytest.raises(lab.LabError, match="is there already, and nothing is ever overwritten"):
        export([str(sessions["cartpole"].path), f"out={path}", "checkpoint=last"])


def test_what_cannot_be_exported(sessions: dict[str, RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = load(sessions, "pendulum")
    with pytest.raises(lab.LabError, match=r"a policy is exported as \*\.onnx or \*\.pt2"):
        agent.export(tmp_path / "policy.pt")
    with monkeypatch.context() as patch:
        patch.setattr(program, "find_spec", lambda name: None)
        with pytest.raises(lab.LabError, match=r"\(onnx, onnxscript, onnxruntime\): .* pip install -e '\.\[onnx\]'"):
            agent.export(tmp_path / "policy.onnx")
    convert = ActionConverter.convert
    with monkeypatch.context() as patch:
        patch.setattr(ActionConverter, "convert", lambda self, action: convert(self, action) + np.float32(0.01))
        with pytest.raises(
            lab.LabError, match=r"was not written, .* differ from the agent's by 0\.00\d+ of their range"
        ):
            agent.export(tmp_path / "policy.pt2")
    with monkeypatch.context() as patch:
        patch.setattr(agent._policy.agent.algorithm, "choose", lambda *_: (torch.zeros(1, 2, 1).numpy(), None))
        with pytest.raises(
            lab.LabError, match=r"algo=ppo with net\._target_=.* cannot be exported, as torch\.export cannot"
        ):
            agent.export(tmp_path / "policy.pt2")
    assert list(tmp_path.iterdir()) == []
