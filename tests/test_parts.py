"""Observations of several parts and action masks in whole Sessions: the guide's examples, law 1, and playing."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.command.enjoy import main as enjoy
from lab.env.vector import Environments, probe
from lab.run.directory import RunDir
from lab.run.files import read_json, read_yaml
from lab.training.agent import Agent
from lab.training.collect import Collector
from lab.training.stack import Stack
from tests.helpers import QUIET, ROOT, go_on, lab, result, specs, train

GUIDE = (ROOT / "docs" / "how-to" / "environments.md").read_text(encoding="utf-8")
SLOW = pytest.mark.slow
NET = ("net=multi", "net.image_hidden=[5]", "net.vector_hidden=[3]", "net.hidden=[7]")
ROBOT = ("env=gymnasium", "env.id=tests.envs:Robot-v0", "name=robot", "+env.kwargs.size=4", *NET)
RULES = ("env=gymnasium", "env.id=tests.envs:Rules-v0", "name=rules", "env.action_mask=true", "net.hidden=[7,5]")
PPO = ("algo=ppo", "algo.horizon=16", "algo.batch_size=16", "algo.epochs=2")
DQN = ("algo=dqn", "algo.learning_starts=100", "algo.batch_size=9", "algo.memory.size=300", "algo.horizon=4")
SAC = ("algo=sac", *DQN[1:])
CASES = {
    "parts": (*PPO, *ROBOT, "env.normalize_observations=true"),
    "parts in a memory": (*DQN, *ROBOT, "env.normalize_observations=true", "algo.memory.dtype=float16"),
    "parts and actions": (*SAC, *ROBOT),
    "masks": (*PPO, *RULES, "+env.kwargs.choices=true", "env.normalize_observations=true"),
    "masks in a memory": (*DQN, *RULES, "algo.dueling=true", "algo.distribution=categorical", "algo.atoms=7"),
    "masks and entropy": (*SAC, *RULES),
    "masks and sarsa": ("algo=sarsa", *RULES, "algo.horizon=11", "algo.batch_size=null"),
}
USUAL = ("parts", "masks in a memory")


def blocks(section: str) -> tuple[dict[str, str], list[list[str]]]:
    """Return the files of a section of the guide by name, and the arguments of its commands."""
    text = GUIDE.split(f"## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    files = {re.match(r"# (\S+)\n", content)[1]: content for kind, content in found if kind}  # type: ignore[index]
    lines = [line for kind, content in found if not kind for line in content.strip().splitlines()]
    return files, [shlex.split(line)[3:] for line in lines]


@pytest.mark.parametrize("section", ["Observations of several parts", "Action masks"])
def test_the_example_of_the_guide_runs(tmp_path: Path, section: str) -> None:
    files, commands = blocks(section)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    done = lab(*commands[0], "eval.episodes=2", "hydra.run.dir=run", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    spec, results = read_yaml(tmp_path / "run/spec.yaml"), read_json(tmp_path / "run/session.json")
    if section == "Action masks":
        assert results["return"] > 3.5, "of 5 at best, and 3 at random"
        assert specs(*commands[1])[0].env.action_mask
    else:
        assert spec["net"]["_target_"] == "lab.net.multi.Multi"
        assert spec["net"]["hidden"] == [32]


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.law
@pytest.mark.parametrize("case", [case if case in USUAL else pytest.param(case, marks=SLOW) for case in CASES])
def test_law_1_alone_stacked_killed_and_resumed(tmp_path: Path, case: str) -> None:
    chosen = (*QUIET, *CASES[case], "env.num_envs=3", "frames=600", "checkpoint.every=150", "eval.every=300")
    made = specs(*chosen, "seed=[1,2,3]")
    whole, parts = ([RunDir(tmp_path / name / str(spec.seed)) for spec in made] for name in ("whole", "parts"))
    assert go_on(made, whole) == ["completed"] * 3
    alone = RunDir(tmp_path / "alone")
    assert go_on(made[1:2], [alone]) == ["completed"]
    assert result(alone) == result(whole[1])
    assert len({result(directory)["weights"] for directory in whole}) == 3
    horizons = 600 // (3 * made[0].algo.horizon)
    assert go_on(made, parts, (Stack, "finish_interval", horizons // 2, killed)) == ["interrupted"] * 3
    assert go_on(made, parts) == ["completed"] * 3
    assert [result(directory) for directory in parts] == [result(directory) for directory in whole]


@pytest.mark.parametrize("case", ["parts", "masks"])
def test_a_trained_agent_can_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    directory = train(tmp_path, *CASES[case], "frames=200", "eval.every=0")[0]
    for deterministic in ("true", "false"):
        enjoy([str(directory.path), "episodes=2", "checkpoint=last", f"deterministic={deterministic}"])
    assert capsys.readouterr().out.count("episode   1") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "space", ["channels_first: false", "channels_first: true", "dtype: float32", "nested: true", "size: 36"]
)
def test_an_image_and_a_vector_are_learned_from(tmp_path: Path, space: str) -> None:
    chosen = (*PPO, "algo.batch_size=64", "algo.epochs=4", "algo.lr=3e-3", "algo.gamma=0", "net=multi", *ROBOT[:3])
    directory = train(tmp_path, *chosen, f"+env.kwargs={{{space}}}", "frames=8000", "eval.every=8000")[0]
    with directory.metrics.open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["eval_return"]) > 0.7 * float(last["eval_length"]), "0.25 is chance"


def test_only_vectors_are_normalized() -> None:
    made = specs(*CASES["parts"])
    agent = Agent(made, probe(made[0].env), torch.device("cpu"))
    collector = Collector(agent, [Environments(made[0].env, 8, agent.streams[0].environments)])
    collector.collect()
    rollout = collector.collect()
    raw, seen = rollout.raw.observation, rollout.observation
    columns = np.setdiff1d(np.arange(seen.shape[-1]), agent.observations.normalized)
    assert len(agent.observations.normalized) == 2
    assert torch.equal(raw[..., columns], seen[..., columns])
    assert raw.max() > 150
    assert not torch.equal(raw[..., agent.observations.normalized], seen[..., agent.observations.normalized])
    assert agent.moments[0].mean.shape == (2,)


def test_the_size_of_a_memory_counts_a_row() -> None:
    made = specs(*CASES["parts in a memory"])[0]
    spaces = probe(made.env)
    agent = Agent([made], spaces, torch.device("cpu"))
    agent.algorithm.allocate(8)
    row = 2 * (16 + 2 + 2)  # float16
    assert made.algo.memory.estimate_bytes(spaces) == 300 * (row + 64)
    replay = agent.algorithm.replay
    assert replay.size_bytes == replay.ring_length * 8 * (row + 8 + 16)
