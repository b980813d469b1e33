"""`python -m lab publish`, from its arguments to what it prints and writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab.__main__ import COMMANDS
from lab.command.publish import main
from lab.errors import LabError
from tests.analysis.test_card import alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "published"
    alone(path / "a2c_cartpole", [480.0, 490.0, 1.0, 400.0], states={2: "failed"})
    return path


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    path = tmp_path / "peer.csv"
    path.write_text("# Peer 1.0: their page\nalgo,env,frames,return\na2c,cartpole,200000,495.0\n")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    main([str(argument) for argument in arguments])
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_it_prints_the_table_and_where_everything_is(
    folder: Path, peer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    lines = run(capsys, folder, f"out={out}", f"against={peer}")
    assert lines[1] == (
        "environment frames algorithm n return 95 % interval IQM frames to solve time frames/s settings Peer 1.0"
        " difference verdict"
    )
    row = lines[2]
    assert row.startswith("CartPole-v1 200,000 A2C 3 of 4 456.7 [400.0, 490.0] ")
    assert row.endswith("(2 of 3) 0:40 5,000 by hand on seeds 0, 1, 2 and 3 ‡ 495.0 -38.3 ▼ worse")
    assert any(
        line.startswith("A2C on CartPole-v1 is 38.3 below Peer 1.0's 495.0, 8.1 % of its gain") for line in lines
    )
    assert "Note: In A2C on CartPole-v1, seed 2 failed: Sessions that did not complete are excluded." in lines
    names = ["results.json", "results.csv", "results.md", "report.html", "pictures/cartpole.png"]
    assert lines[-1] == "Made " + ", ".join(str(out / name) for name in names)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(names)
    assert json.loads((out / "results.json").read_text())["cartpole"]["a2c"]["verdict"] == "worse"


def test_it_writes_the_same_bytes_again_and_nothing_into_the_trials(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(folder.rglob("*"))
    first = run(capsys, folder)
    assert "Peer" not in first[1] and "worse" not in first[2]
    written = {path.name: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    assert run(capsys, folder) == first
    assert {path.name: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()} == written
    assert sorted(folder.rglob("*")) == before


def test_wrong_arguments(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        main(arguments)
        assert capsys.readouterr().out.startswith("Usage: python -m lab publish DIR")
    with pytest.raises(LabError, match=r"publish has no key 'outt'\. Did you mean 'out'"):
        main([str(folder), "outt=x"])
    with pytest.raises(LabError, match="'x' is not understood"):
        main([str(folder), "x"])
    with pytest.raises(LabError, match="does not exist"):
        main([str(folder), "against=nothing.csv"])
    assert "publish" in COMMANDS


def test_files_of_others_are_not_written_over(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(LabError, match=r"report\.html exists, and does not say that an earlier `publish`"):
        run(capsys, folder, f"out={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_results_of_another_directory_are_not_written_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("published", "other"):
        shutil.copytree(folder, name)
    run(capsys, "published")
    run(capsys, tmp_path / "published")
    written = {path.name: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    for out in ([], [f"out={tmp_path}/results"]):
        with pytest.raises(LabError, match=r"results holds the results of .*published; nothing is .* another out=DIR"):
            run(capsys, "other", *out)
    assert {path.name: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()} == written
    assert run(capsys, "other", "out=results/other")[-1].startswith("Made results/other/results.json")
    moved = Path("elsewhere")
    moved.mkdir()
    for name in ("published", "results"):
        Path(name).rename(moved / name)
    run(capsys, moved / "published", f"out={moved}/results")
