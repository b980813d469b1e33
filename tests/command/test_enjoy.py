from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.command.enjoy import main
from lab.errors import LabError
from lab.run_dir import RunDir
from tests.helpers import lab, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    folder = tmp_path_factory.mktemp("runs")
    words = {
        "cartpole": ["algo=ppo", "frames=4096", "algo.horizon=128"],
        "pendulum": ["env=pendulum", "frames=1000", "env.normalise_observations=true"],
        "frozen lake": ["env=gymnasium", "env.id=FrozenLake-v1", "name=lake", "frames=1000"],
    }
    return {name: train(folder / name, *chosen)[0] for name, chosen in words.items()}


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
        words = [str(runs[name].path), "episodes=2", "checkpoint=last", f"deterministic={deterministic}"]
        main(words)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[2] == shown[3]


# imageio leaves the pipes to its encoder to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_films(runs: dict[str, RunDir], tmp_path: Path, kind: str) -> None:
    import imageio.v3 as imageio

    main([str(runs["cartpole"].path), "episodes=1", f"video={tmp_path}/films", f"format={kind}"])
    film = tmp_path / "films" / f"episode-0.{kind}"
    frames = imageio.imread(film, index=None) if kind == "gif" else imageio.imread(film, plugin="FFMPEG")
    assert frames.shape[0] > 5
    assert frames.shape[1:3] == (400, 600)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["episods=3"], "Did you mean 'episodes'"),
        (["episodes=x"], "a whole number"),
        (["episodes=0"], "1 or more"),
        (["fast"], "written key=value"),
        (["checkpoint=first"], "best, last"),
        (["render=humane"], "Did you mean 'human'"),
        (["video=x", "render=human"], "left out"),
    ],
)
def test_mistakes(runs: dict[str, RunDir], words: list[str], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        main([str(runs["cartpole"].path), *words])


def test_directories_that_cannot_be_played(runs: dict[str, RunDir], tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not the run directory of a Session"):
        main([str(tmp_path)])
    with pytest.raises(LabError, match="holds 1 Sessions; choose one"):
        main([str(runs["cartpole"].path.parent)])
    broken = runs["frozen lake"].checkpoint("best")
    broken.write_bytes(broken.read_bytes()[:-10])
    with pytest.raises(LabError, match="damaged"):
        main([str(runs["frozen lake"].path)])
    broken.unlink()
    with pytest.raises(LabError, match="cannot be read"):
        main([str(runs["frozen lake"].path)])


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "Usage: python -m lab enjoy DIR" in capsys.readouterr().out
