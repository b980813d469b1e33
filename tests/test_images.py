"""Image environments: learning from them, law 1, and that their bytes stay bytes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from lab.command.enjoy import main as enjoy
from lab.env.spaces import holds_codes
from lab.env.vector import Environments, probe
from lab.run import tensor_files
from lab.run.directory import RunDir
from lab.run.files import read_json, read_yaml
from lab.session import train as train_stack
from lab.training.agent import Agent
from lab.training.collect import Collector
from lab.training.lockstep import check_spaces
from lab.training.stack import Stack
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
NETS = {
    "plain": (),
    "half": ("net=nature", *(word for word in PICTURE if word.startswith("net.")), "net.precision=bfloat16"),
    "residual": ("net=impala", "net.filters=[3]", "net.blocks=1", "net.hidden=[5]"),
}


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
@pytest.mark.parametrize(("algo", "net"), [("ppo", "plain"), ("ppo", "residual"), ("dqn", "half")])
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, algo: str, net: str) -> None:
    alone = train(tmp_path / "alone", *overrides(algo, net), "frames=768", "seed=2")
    stacked = train(tmp_path / "stacked", *overrides(algo, net), "frames=768", "seed=[0,1,2,3]")
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4


def test_probability_ratios_of_a_rounding_network_start_at_1(tmp_path: Path) -> None:
    """mode=dev fails where the policy, on a minibatch, differs from what it was on the horizon before any step."""
    made = specs(*QUIET, *overrides("ppo", "half"), "mode=dev", "frames=1024", "eval.every=0")
    assert go_on(made, [RunDir(tmp_path)]) == ["completed"]


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


STACKED = (
    *(word for word in PICTURE if "env" in word or "net" in word or "name" in word),
    "env.num_envs=2", "frames=320", "algo.learning_starts=60", "algo.batch_size=16", "algo.memory.size=120",
    "checkpoint.every=60", "eval.every=0",
)  # fmt: skip


REPEATED = "{name:ReshapeObservation,shape:[16,16]},{name:FrameStackObservation,stack_size:3}"
PADDED = "{name:ReshapeObservation,shape:[1,16,16]},{name:VecFrameStack,n_stack:3}"


@pytest.mark.law
@pytest.mark.parametrize(
    ("algo", "wrappers"),
    [("dqn", REPEATED), pytest.param("dqn", PADDED, marks=SLOW), pytest.param("rainbow", REPEATED, marks=SLOW)],
)
def test_stacked_frames_that_are_stored_once(
    tmp_path: Path, algo: str, wrappers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = specs(*QUIET, *STACKED, f"env.wrappers=[{wrappers}]", f"algo={algo}", "seed=[1,2]")
    assert probe(made[0].env).frame_stack == 3
    whole, parts, alone = ([RunDir(tmp_path / name / str(s)) for s in (1, 2)] for name in ("whole", "parts", "alone"))
    assert go_on(made, whole) == ["completed"] * 2
    assert go_on(made, parts, (Stack, "finish_interval", 21, killed)) == ["interrupted"] * 2
    assert go_on(made, parts) == ["completed"] * 2
    assert go_on(made[1:], alone[:1]) == ["completed"]
    assert [result(directory) for directory in parts] == [result(directory) for directory in whole]
    assert result(alone[0]) == result(whole[1])
    assert {tensor_files.read(path)["observation"].shape[2:] for path in whole[0].replay.glob("*.pt")} == {(1, 16, 16)}
    if algo == "dqn":  # prioritized draws depend on the length of the ring
        monkeypatch.setattr("lab.env.vector.count_frames", lambda env: (1, False))
        stacks = [RunDir(tmp_path / "stacks" / str(s)) for s in (1, 2)]
        assert go_on(made, stacks) == ["completed"] * 2
        assert [result(directory) for directory in stacks] == [result(directory) for directory in whole]


def test_a_trained_agent_can_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = train(tmp_path, *overrides("ppo"), "frames=512", "eval.every=0")[0]
    enjoy([str(directory.path), "episodes=2", "checkpoint=last"])
    assert "episode   1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "scaled"),
    [
        (("env.id=tests.envs:Picture-v0",), True),
        (("env.id=tests.envs:Tiles-v0",), False),
        (("env.id=tests.envs:Tiles-v0", "+env.kwargs.high=99"), False),
        (("env.id=tests.envs:Picture-v0", "env.scale_images=false"), False),
        (("env.id=tests.envs:Tiles-v0", "env.scale_images=true"), True),
        (("env.id=CartPole-v1",), True),
    ],
)
def test_pictures_are_scaled_and_codes_are_not(overrides: tuple[str, ...], scaled: bool) -> None:
    net = "net=mlp" if "env.id=CartPole-v1" in overrides else "net=impala"
    made = specs("algo=ppo", "env=gymnasium", *overrides, net, "seed=[0,1]")
    spaces = check_spaces(made)[0]
    assert [spec.env.scale_images for spec in made] == [scaled] * 2
    agent = Agent(made, spaces, torch.device("cpu"))
    collector = Collector(agent, [Environments(made[0].env, 8, streams.environments) for streams in agent.streams])
    rollout = collector.collect()
    images = len(spaces.observation.shape) == 3
    assert rollout.observation.dtype == (torch.uint8 if images and scaled else torch.float32)
    if images:
        network, raw = agent.algorithm.network, rollout.observation[0]
        with torch.no_grad():
            outputs, expected = (network(x, "policy")[0] for x in (raw, raw.float() / 255 if scaled else raw.float()))
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first", [0, 40, 31])
def test_what_the_first_observations_say(first: int) -> None:
    space = Box(0, 255, (3, 3, 1), np.uint8)
    assert holds_codes(space, [np.zeros(space.shape, np.uint8), np.full(space.shape, first, np.uint8)]) == (first == 31)


@pytest.mark.slow
def test_codes_are_learned_from_and_the_spec_says_so(tmp_path: Path) -> None:
    chosen = ("algo=ppo", "env=gymnasium", "env.id=tests.envs:Tiles-v0", "algo.gamma=0", "frames=8000", "eval.every=0")
    small = (*chosen, "algo.horizon=64", "algo.batch_size=128", "log.tensorboard=false")
    returns = {}
    for value in ("auto", "true"):
        done = lab(*small, f"env.scale_images={value}", "algo.lr=1e-3", f"hydra.run.dir={tmp_path}/{value}")
        assert done.returncode == 0, done.stderr
        assert ("hold codes, so they are not divided by 255" in done.stderr) == (value == "auto")
        assert read_yaml(tmp_path / value / "spec.yaml")["env"]["scale_images"] == (value == "true")
        results = read_json(tmp_path / value / "session.json")
        returns[value] = results["return"] / results["length"]
    assert returns["auto"] > 0.8 > 0.5 > returns["true"], "of 1 for each step"
    assert "episode   1" in lab("enjoy", f"{tmp_path}/auto", "episodes=2", "code=here").stdout
    again = lab(*small, "algo.lr=1e-3", f"hydra.run.dir={tmp_path}/auto")
    assert "already holds a Session (completed" in again.stderr, "the same spec"


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
