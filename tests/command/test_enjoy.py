from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.command.enjoy import main
from lab.command.film import film
from lab.errors import LabError
from lab.run.directory import RunDir
from tests import synthetic
from tests.helpers import ROOT, lab, start_lab, train, wait_for


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    folder = tmp_path_factory.mktemp("runs")
    arguments = {
        "cartpole": ["algo=ppo", "frames=4096", "algo.horizon=128"],
        "pendulum": ["env=pendulum", "frames=1000", "env.normalize_observations=true"],
        "frozen lake": ["env=gymnasium", "env.id=FrozenLake-v1", "name=lake", "frames=1000"],
    }
    return {name: train(folder / name, *chosen)[0] for name, chosen in arguments.items()}


def test_episodes_with_their_spread(runs: dict[str, RunDir]) -> None:
    before = sorted(runs["cartpole"].path.rglob("*"))
    done = lab("enjoy", str(runs["cartpole"].path), "episodes=3")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("episode ")]
    returns = [float(line.split()[3]) for line in lines]
    assert len(returns) == 3
    assert f"return {np.mean(returns):.2f} ± {np.std(returns, ddof=1):.2f}" in done.stdout
    assert sorted(runs["cartpole"].path.rglob("*")) == before, "playing writes nothing into the run directory"


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "frozen lake"])
def test_the_same_seed_plays_the_same(runs: dict[str, RunDir], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for deterministic in ("true", "true", "false", "false"):
        arguments = [str(runs[name].path), "episodes=2", "checkpoint=last", f"deterministic={deterministic}"]
        main(arguments)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[2] == shown[3]


# imageio leaves the pipes from its decoder to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_films(runs: dict[str, RunDir], tmp_path: Path, kind: str) -> None:
    import imageio.v3 as imageio

    main([str(runs["cartpole"].path), "episodes=1", f"video={tmp_path}/films", f"format={kind}"])
    path = tmp_path / "films" / f"episode-0.{kind}"
    assert (tmp_path / "films" / ".gitignore").read_text() == "*\n", "films make no checkout uncommitted"
    frames = imageio.imread(path, index=None) if kind == "gif" else imageio.imread(path, plugin="FFMPEG")
    assert frames.shape[0] > 5
    assert frames.shape[1:3] == (400, 600)
    assert {*path.parent.iterdir()} == {path, path.parent / ".gitignore"}


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    arguments = (
        "env=gymnasium",
        "env.id=CliffWalking-v1",
        "name=cliff",
        "frames=300",
        "eval.every=0",
        "eval.max_steps=40",
    )
    return train(tmp_path_factory.mktemp("endless"), *arguments)[0]


def test_episodes_without_an_end_are_cut(endless: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, steps in ((), 40), (("max_steps=7",), 7):
        main([str(endless.path), "checkpoint=last", "episodes=2", *arguments])
        output = capsys.readouterr().out
        assert output.count(f"cut after max_steps={steps}") == 2
        assert f"length {steps}.0" in output


@pytest.mark.slow
def test_the_memory_does_not_grow_with_a_film(endless: RunDir, tmp_path: Path) -> None:
    peaks = []
    for steps in (50, 1500):
        arguments = ["enjoy", str(endless.path), "checkpoint=last", "episodes=1", f"max_steps={steps}"]
        arguments.append(f"video={tmp_path}/{steps}")
        code = f"import sys; sys.argv = ['lab', *{arguments!r}]\nfrom lab.__main__ import run\nassert run() == 0\n"
        code += "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 30, "megabytes; the pictures alone are 600"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_after_a_step_with_whole_films(
    endless: RunDir, tmp_path: Path, number: signal.Signals
) -> None:
    import imageio.v3 as imageio

    arguments = ["enjoy", str(endless.path), "checkpoint=last", "max_steps=100000", f"video={tmp_path}"]
    process = start_lab(*arguments)
    wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob(".episode-0.*")), process)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip() == "Interrupted."
    assert "interrupted" in output
    assert [path.name for path in tmp_path.iterdir()] == ["episode-0.mp4"]
    assert len(imageio.imread(tmp_path / "episode-0.mp4", plugin="FFMPEG")) > 1


def test_what_cannot_be_filmed(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="render returned None"), film(tmp_path / "a.mp4", 30) as add:
        add(None)
    with pytest.raises(LabError, match="a picture is of"), film(tmp_path / "a.gif", 30) as add:
        add(np.zeros((8, 8, 3), np.uint8))
        add(np.zeros((8, 9, 3), np.uint8))
    with film(tmp_path / "a.mp4", 30):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["episods=3"], "Did you mean 'episodes'"),
        (["episodes=x"], "a whole number"),
        (["episodes=0"], "1 or more"),
        (["max_steps=0"], "1 or more"),
        (["fast"], "enjoy: 'fast' is not understood: options are written key=value"),
        (["checkpoint=first"], "best, last"),
        (["render=humane"], "Did you mean 'human'"),
        (["video=x", "render=human"], "left out"),
    ],
)
def test_mistakes(runs: dict[str, RunDir], arguments: list[str], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        main([str(runs["cartpole"].path), *arguments])


def test_directories_that_cannot_be_played(runs: dict[str, RunDir], tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is not a run directory"):
        main([str(tmp_path)])
    for seed, value in ((0, 1), (1, 2)):
        session = RunDir(tmp_path / f"seed-{seed}")
        session.checkpoint("best").parent.mkdir(parents=True)
        session.checkpoint("best").touch()
        session.spec.touch()
        session.results.write_text(f'{{"eval_best": {value}, "return": {-value}}}')
    with pytest.raises(LabError, match=r"seed-0\n.*seed-1  # the best by evaluation$"):
        main([str(tmp_path)])
    broken = runs["frozen lake"].checkpoint("best")
    broken.write_bytes(broken.read_bytes()[:-10])
    with pytest.raises(LabError, match="damaged"):
        main([str(runs["frozen lake"].path)])
    broken.unlink()
    with pytest.raises(LabError, match=r"has no checkpoint/best\.pt\. Here is:\n  .* enjoy .* checkpoint=last$"):
        main([str(runs["frozen lake"].path)])
    with pytest.raises(LabError, match=r"holds 1 Session, none .* best checkpoint; choose one:\n.* checkpoint=last$"):
        main([str(runs["frozen lake"].path.parent)])


def test_the_only_agent_below_a_directory_is_played(
    runs: dict[str, RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = RunDir(tmp_path / "seed-1")
    shutil.copytree(runs["cartpole"].path, only.path)
    main([str(tmp_path), "episodes=1"])
    assert capsys.readouterr().out.startswith(f"Playing {only.path}, its only Session, with a best checkpoint\n")
    for seed in (0, 2):
        RunDir(tmp_path / f"seed-{seed}").path.mkdir()
        RunDir(tmp_path / f"seed-{seed}").spec.touch()
    main([str(tmp_path), "episodes=1"])
    played = capsys.readouterr().out
    assert played.startswith(f"Playing {only.path}, the only one of 3 Sessions with a best checkpoint\n")
    assert "\nepisode   0  return " in played


def test_a_sweep_of_which_nothing_has_started_holds_no_agent_yet(tmp_path: Path) -> None:
    sweep = synthetic.experiment(tmp_path / "sweep", trials=1, seeds=1, states={(0, 0): "pending"})
    with pytest.raises(LabError) as error:
        main([str(sweep.path)])
    assert str(error.value) == (
        f"No Session of the Experiment {sweep.path} has started, so it holds no agent yet:"
        f" see `python -m lab status {sweep.path}`."
    )


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "Usage: python -m lab enjoy DIR" in capsys.readouterr().out


def test_no_film_is_written_over(runs: dict[str, RunDir], tmp_path: Path) -> None:
    (tmp_path / "episode-1.gif").write_text("mine")
    with pytest.raises(LabError, match=r"episode-1\.gif is there already, and no film is overwritten"):
        main([str(runs["cartpole"].path), "episodes=2", f"video={tmp_path}", "format=gif"])
    assert [path.name for path in tmp_path.iterdir()] == ["episode-1.gif"]
