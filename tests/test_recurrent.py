"""Networks that remember in whole Sessions: law 1, what they learn that others cannot, and where they are refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lab.algo.on_policy import OnPolicy
from lab.command.enjoy import main as enjoy
from lab.env.stacked import StackedEnvironments
from lab.run.directory import RunDir
from lab.training.evaluate import Evaluation
from tests.helpers import QUIET, go_on, lab, result, specs, train

RECALL = ("env=gymnasium", "env.id=tests.envs:Recall-v0", "name=recall", "net.hidden=[16]", "algo.gamma=0.9")
ALGOS = {
    "ppo": ("algo=ppo", "algo.horizon=16", "algo.batch_size=64", "algo.epochs=4", "algo.lr=1e-2"),
    "a2c": ("algo=a2c", "~tuned", "algo.horizon=16", "algo.n_step=5", "algo.lr=1e-2"),
    "reinforce": ("algo=reinforce", "~tuned", "algo.horizon=16", "algo.lr=1e-2"),
}
CASES = [("ppo", "gru"), ("a2c", "lstm")]
SLOW = pytest.mark.slow


def learned(folder: Path, *overrides: str) -> float:
    """Train for a few thousand frames and return the mean return of 40 episodes of evaluation."""
    overrides = (*RECALL, *overrides, "frames=5120", "eval.every=5120", "eval.episodes=40")
    with train(folder, *overrides)[0].metrics.open() as file:
        return float(list(csv.DictReader(file))[-1]["eval_return"])


@pytest.mark.parametrize(("algo", "net"), [("ppo", "gru"), ("a2c", "gru"), pytest.param("a2c", "lstm", marks=SLOW)])
def test_what_was_shown_first_is_remembered(tmp_path: Path, algo: str, net: str) -> None:
    shared = "true" if algo == "ppo" else "false"
    assert learned(tmp_path, *ALGOS[algo], f"net={net}", "net.size=16", f"net.shared={shared}") >= 0.95


def test_without_a_memory_it_is_a_guess(tmp_path: Path) -> None:
    assert 0.2 <= learned(tmp_path, *ALGOS["ppo"]) <= 0.8


def overrides(algo: str, net: str, *more: str) -> list[str]:
    # Episodes of CartPole end anywhere in a horizon; the widths fit no vector register.
    chosen = [*ALGOS[algo], "env=cartpole", f"net={net}", "net.hidden=[7]", "net.size=5", "frames=768"]
    return [*(word for word in chosen if word != "~tuned"), "~tuned", *more]


@pytest.mark.law
@pytest.mark.parametrize(
    ("algo", "net", "more"),
    [
        ("ppo", "gru", ("net.burn_in=3",)),
        pytest.param("ppo", "lstm", ("algo.target_kl=0.001",), marks=SLOW),
        pytest.param("a2c", "gru", ("net.shared=true",), marks=SLOW),
        ("a2c", "lstm", ("env.num_envs=1", "frames=320")),
        pytest.param("reinforce", "gru", (), marks=SLOW),
    ],
)
def test_law_1_alone_is_as_in_a_stack(tmp_path: Path, algo: str, net: str, more: tuple[str, ...]) -> None:
    chosen = overrides(algo, net, *more)
    if "env.num_envs=1" not in more:
        chosen.append("env.num_envs=8")
    alone = train(tmp_path / "alone", *chosen, "seed=2")
    stacked = train(tmp_path / "stacked", *chosen, "seed=[0,1,2,3]")
    assert result(stacked[2]) == result(alone[0])
    assert len({result(directory)["weights"] for directory in stacked}) == 4
    assert len(result(alone[0])["episodes"].splitlines()) > 10


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.law
@pytest.mark.parametrize(("algo", "net"), [("ppo", "gru"), pytest.param("a2c", "lstm", marks=SLOW)])
def test_law_1_killed_and_resumed(tmp_path: Path, algo: str, net: str) -> None:
    often = ("checkpoint.every=256", "eval.every=300", "frames=1280")
    made = specs(*QUIET, *overrides(algo, net), "env.num_envs=8", *often)
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    assert go_on(made, [whole]) == ["completed"]
    moments = ((OnPolicy, "step", 5), (StackedEnvironments, "step", 50), (Evaluation, "step", 5))
    for where, name, number in moments:
        happened = (where, name, number, killed)
        assert go_on(made, [parts], happened) == ["interrupted"]
    assert go_on(made, [parts]) == ["completed"]
    assert result(parts) == result(whole)


@pytest.mark.parametrize("env", ["env=cartpole", "env=pendulum"])
@pytest.mark.parametrize(("algo", "net"), [*CASES, ("reinforce", "gru")])
def test_every_check_of_a_learning_step_passes(tmp_path: Path, algo: str, net: str, env: str) -> None:
    chosen = ["mode=dev", "frames=512", "env.num_envs=8", "eval.every=0"]
    directory = train(tmp_path, *overrides(algo, net), env, *chosen)[0]
    assert directory.read_status()["error"] is None
    assert directory.read_status()["state"] == "completed"


def test_a_trained_agent_is_played_with_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [*RECALL, *ALGOS["a2c"], "net=gru", "net.size=16", "frames=5120", "eval.every=0"]
    directory = train(tmp_path, *chosen)[0]
    enjoy([str(directory.path), "episodes=20", "checkpoint=last"])
    shown = capsys.readouterr().out
    assert float(shown.split("\nreturn ")[1].split()[0]) >= 0.95


def test_mistakes_stop_before_the_first_frame(tmp_path: Path) -> None:
    done = lab("algo=dqn", "env=cartpole", "net=lstm", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "learns from single steps" in done.stderr
