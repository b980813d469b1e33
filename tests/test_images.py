"""Image environments: learning from them, law 1, and that their bytes stay bytes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from lab.command.enjoy import main as enjoy
from lab.env.vector import Environments, probe
from lab.run import tensor_files
from lab.run.directory import RunDir
from lab.session import train as train_stack
from lab.train.agent import Agent
from lab.train.collect import Collector
from lab.train.stack import Stack
from tests.helpers import QUIET, go_on, lab, result, specs, train

PICTURE = (
    "env=gymnasium", "env.id=tests.envs:Picture-v0", "name=picture", "net=nature", "net.filters=[4]",
    "net.kernels=[4]", "net.strides=[4]", "net.hidden=[16]", "algo.gamma=0",
)  # fmt: skip
ALGOS = {
    "ppo": ("algo=ppo", "algo.horizon=64", "algo.batch_size=128", "algo.epochs=6", "algo.lr=1e-2"),
    "dqn": ("algo=dqn", "algo.learning_starts=256", "algo.lr=3e-3", "algo.memory.size=2000"),
}
SLOW = pytest.mark.slow
NETS = {"plain": (), "residual": ("net=impala", "net.filters=[3]", "net.blocks=1", "net.hidden=[5]")}


def overrides(algo: str, net: str = "plain") -> list[str]:
    plain = [word for word in PICTURE if net == "plain" or not word.startswith("net")]
    return [*plain, *NETS[net], *ALGOS[algo]]


@pytest.mark.parametrize("algo", ALGOS)
def test_it_learns_to_look(tmp_path: Path, algo: str) -> None:
    directory = train(tmp_path, *overrides(algo), "frames=3000", "eval.every=3000", "eval.episodes=20")[0]
    with directory.metrics.open() as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row["eval_return"]) >= 0.95 * float(row["eval_length"]), "the reward of a step is 1 at best"


@pytest.mark.law
@pytest.mark.parametrize(("algo", "net"), [("ppo", "plain"), ("ppo", "residual"), ("dqn", "plain")])
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, algo: str, net: str) -> None:
    alone = train(tmp_path / "alone", *overrides(algo, net), "frames=768", "seed=2")
    stacked = train(tmp_path / "stacked", *overrides(algo, net), "frames=768", "seed=[0,1,2,3]")
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.law
@pytest.mark.parametrize("algo", ["dqn", pytest.param("ppo", marks=SLOW)])
def test_law_1_killed_and_resumed(tmp_path: Path, algo: str) -> None:
    made = specs(*QUIET, *overrides(algo), "frames=1024", "checkpoint.every=256", "seed=1")
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    assert go_on(made, [whole]) == ["completed"]
    horizons = made[0].frames // (8 * made[0].algo.horizon)
    assert go_on(made, [parts], (Stack, "finish_interval", horizons // 2 + 1, killed)) == ["interrupted"]
    assert go_on(made, [parts]) == ["completed"]
    assert result(parts) == result(whole)


def test_bytes_stay_bytes_in_rollouts_replay_and_checkpoints(tmp_path: Path) -> None:
    spec = specs(*QUIET, *overrides("dqn"), "frames=512", "eval.every=0")[0]
    spaces = probe(spec.env)
    stack = Stack([spec], [RunDir(tmp_path / "unused")], spaces)
    rollout = stack.collector.collect()
    assert rollout.observation.dtype == torch.uint8
    replay = stack.agent.algorithm.replay
    assert replay is not None
    replay.add(rollout)
    places = replay.ring_length * spec.env.num_envs
    # An action is a whole number of 8 bytes; reward, continuation, end and validity are four of 4 bytes.
    assert replay.size_bytes == places * (16 * 16 + 8 + 16)
    directory = RunDir(tmp_path / "run")
    train_stack([spec], [directory], spaces, show=False)
    files = sorted(directory.replay.glob("*.pt"))
    assert files
    for path in files:
        content = tensor_files.read(path)["observation"]
        assert content.dtype == torch.uint8
        assert path.stat().st_size < content.numel() * 2


@pytest.mark.law
@pytest.mark.parametrize("algo", [("algo=dqn",), ("algo=a2c", "algo.sil.gradient_steps=1")])
def test_images_are_kept_as_bytes_and_normalized_when_they_are_learned_from(
    tmp_path: Path, algo: tuple[str, ...]
) -> None:
    small = ("frames=400", "env.num_envs=2", "eval.every=0", "env.normalize_observations=true", "checkpoint.every=100")
    later = () if "algo=a2c" in algo else ("algo.learning_starts=100", "algo.batch_size=16")
    made = specs(*QUIET, *PICTURE, *algo, *small, *later, "seed=[1,2]")
    whole, parts, alone = ([RunDir(tmp_path / name / str(s)) for s in (1, 2)] for name in ("whole", "parts", "alone"))
    assert go_on(made, whole) == ["completed"] * 2
    assert go_on(made, parts, (Stack, "finish_interval", 31, killed)) == ["interrupted"] * 2
    assert go_on(made, parts) == ["completed"] * 2
    assert go_on(made[:1], alone[:1]) == ["completed"]
    assert [result(directory) for directory in parts] == [result(directory) for directory in whole]
    assert result(alone[0]) == result(whole[0])
    path = next(whole[0].replay.glob("*.pt"))
    assert tensor_files.read(path)["observation"].dtype == torch.uint8


def test_a_trained_agent_can_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = train(tmp_path, *overrides("ppo"), "frames=512", "eval.every=0")[0]
    enjoy([str(directory.path), "episodes=2", "checkpoint=last"])
    assert "episode   1" in capsys.readouterr().out


def test_images_can_be_normalized(tmp_path: Path) -> None:
    made = specs(*overrides("ppo"), "env.normalize_observations=true")
    agent = Agent(made, probe(made[0].env), torch.device("cpu"))
    collector = Collector(agent, [Environments(made[0].env, 8, agent.streams[0].environments)])
    assert collector.collect().observation.dtype == torch.float32
    assert agent.algorithm.learn(collector.collect(), agent.streams, 0.0, diagnose=True)["steps"].tolist() == [24.0]


def test_mistakes_stop_before_the_first_frame(tmp_path: Path) -> None:
    done = lab("env=cartpole", "net=nature", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "needs images" in done.stderr
    done = lab("-m", "env=cartpole", "net=nature", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.returncode == 2
    assert "needs images" in done.stderr
