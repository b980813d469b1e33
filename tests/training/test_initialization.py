"""Sessions that start from the weights of another run: `init_from`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lab.command import export, rerun
from lab.errors import LabError
from lab.run import tensor_files
from lab.run.directory import RunDir, TrialDir
from lab.run.files import read_json
from lab.spec import load
from lab.sweep.arguments import locate_parents
from tests.helpers import lab, result, specs, train, train_specs

PPO = ("algo=ppo", "env=pendulum", "algo.horizon=32", "algo.batch_size=64", "~tuned", "frames=600",
       "env.max_episode_steps=50", "env.normalize_observations=true", "env.normalize_rewards=true")  # fmt: skip


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return train(tmp_path_factory.mktemp("parent"), *PPO, "seed=7")[0]


def test_a_session_starts_with_weights_and_normalization(parent: RunDir, tmp_path: Path) -> None:
    from lab.env.vector import probe
    from lab.training.stack import Stack

    made = specs(*PPO, f"init_from={parent.path}", "seed=[1,2]", "algo.optimizer.lr=1e-4")
    stack = Stack(made, [RunDir(tmp_path / str(s)) for s in (1, 2)], probe(made[0].env))
    stack.restore([])
    best = tensor_files.read(parent.checkpoint("best"))
    for s in (0, 1):
        weights = stack.agent.algorithm.weights(s)
        assert all(torch.equal(weights[name], value) for name, value in best["parameters"].items())
        assert stack.agent.moments[s].state() == best["observations"]
        assert stack.collector.scales[s].moments.state() == best["rewards"]
        optimizer = stack.agent.algorithm.state(s)["learners"]["agent"]["optimizer"]
        assert not optimizer["mean"].any(), "a new optimizer"
    assert stack.frame == 0


@pytest.mark.law
def test_law_1_sessions_with_parents_alone_and_stacked(parent: RunDir, tmp_path: Path) -> None:
    chosen = (*PPO, f"init_from={parent.path}")
    stacked = train(tmp_path / "stacked", *chosen, "seed=[1,2]")
    alone = train(tmp_path / "alone", *chosen, "seed=2")
    assert result(stacked[1]) == result(alone[0])
    anew = specs(*PPO, "seed=2", "log.tensorboard=false", "log.every=500", "eval.every=1000", "eval.episodes=3",
                 "checkpoint.every=1000")  # fmt: skip
    mixed = train_specs(tmp_path / "mixed", [load(alone[0].spec), *anew])
    assert result(mixed[0]) == result(alone[0]), "beside a Session with new weights"
    assert result(mixed[1])["episodes"] != result(mixed[0])["episodes"]
    recorded = {"file": str(parent.checkpoint("best")), "weights": load(alone[0].spec).init_from.weights}  # type: ignore[union-attr]
    assert read_json(alone[0].provenance)["init_from"] == recorded


MISFITS = {
    "its observations are": ("algo=ppo", "env=cartpole"),
    "trained with env.normalize_observations=true, and here it is false": ("env.normalize_observations=false",),
    r"is \[3, 64\] there and \[9, 3\] here. They fit the same network": ("net.hidden=[9]",),
    "there and absent here": ("algo=sac", "~algo.horizon", "~algo.batch_size", "algo.learning_starts=100"),
}


def test_a_strangers_checkpoint_that_holds_anything_is_a_sentence(parent: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "any.pt"
    tensor_files.write(file, {**tensor_files.read(parent.checkpoint("best")), "spaces": 5})
    with pytest.raises(LabError, match=r"init_from\.file=.*any\.pt cannot be used \(AttributeError"):
        train(tmp_path, *PPO, f"init_from={file}")


@pytest.mark.parametrize("problem", MISFITS)
def test_weights_that_do_not_fit_are_refused_before_the_first_frame(
    parent: RunDir, tmp_path: Path, problem: str
) -> None:
    kept = [line for line in PPO if not (line.startswith("algo") and "algo=sac" in MISFITS[problem])]
    chosen = [line for line in MISFITS[problem] if not line.startswith("~algo")]
    with pytest.raises(LabError, match=rf"The weights of init_from.file=.*best.pt do not fit: .*{problem}"):
        train(tmp_path, *kept, *chosen, f"init_from={parent.path}")
    assert not RunDir(tmp_path / "0-seed-0").spec.exists()


def test_an_exported_child_keeps_the_digest_and_reruns(parent: RunDir, tmp_path: Path) -> None:
    there = Path(shutil.copytree(parent.path, tmp_path / "parent"))
    child = train(tmp_path, *PPO, f"init_from={there}")[0]
    export.main([str(child.path), f"out={tmp_path}/exported"])
    spec = load(RunDir(tmp_path / "exported").spec)
    assert spec.init_from
    assert (spec.init_from.file, spec.init_from.weights) == (
        "parent/checkpoint/best.pt",
        load(child.spec).init_from.weights,  # type: ignore[union-attr]
    )
    assert str(tmp_path) not in RunDir(tmp_path / "exported").provenance.read_text()
    with pytest.raises(LabError, match=r"init_from.file=.* is not there: if that run has moved"):
        rerun.main([str(tmp_path / "exported"), f"out={tmp_path}/again", "code=here"])
    assert not (tmp_path / "again").exists()


def test_relative_paths_on_the_command_line_become_full_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "the other"):
        (tmp_path / name).mkdir()
    assert locate_parents("init_from=one") == f"init_from={tmp_path}/one"
    assert locate_parents("+init_from=one,the other") == f"+init_from={tmp_path}/one,'{tmp_path}/the other'"
    for line in ("init_from=null", "init_from=one-${seed}", "init_from='one'", "init_from=nowhere"):
        assert locate_parents(line) == line


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_starts_from_a_trial_and_is_rerun_when_its_parent_has_moved(tmp_path: Path) -> None:
    small = ("algo=a2c", "algo.horizon=16", "log.every=500", "eval.every=500", "eval.episodes=2",
             "log.tensorboard=false", "frames=1000", "seed=0,1")  # fmt: skip

    def run(*arguments: str, code: int = 0) -> str:
        done = lab(*arguments, timeout=240, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("-m", *small, "hydra.sweep.dir=parent")
    refused = run("-m", *small, "net.hidden=[64],[9]", "init_from=parent", "hydra.sweep.dir=child", code=2)
    assert "do not fit" in refused
    assert not (tmp_path / "child").exists()
    run("-m", *small, "algo.lr=1e-3", "init_from=parent", "hydra.sweep.dir=child")
    child = TrialDir(tmp_path / "child").session(0)
    assert "There is nothing" in run("resume", str(child.path), code=2)
    (tmp_path / "parent").rename(tmp_path / "moved")
    assert "is not there" in run("rerun", "child", "out=again", "code=here", code=2)
    assert "2 of 2 Sessions are the same" in run("rerun", "child", "out=again", "init_from=moved", "code=here")
