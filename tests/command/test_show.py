"""`show`: one run on a page, of each level, finished or not, without writing anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from lab.command import show
from lab.errors import LabError
from lab.run.files import write_sealed_yaml
from lab.run.tags import write_tags
from tests import synthetic
from tests.helpers import lab


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    states = {(1, 1): "failed", (2, 0): "interrupted", (2, 1): "pending"}
    return synthetic.experiment(tmp_path_factory.mktemp("show") / "search", 3, seeds=2, rows=10, states=states).path


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_command_shows_a_session(made: Path) -> None:
    write_tags(made / "trial-000/seed-0", ["paper"])
    before = files(made)
    done = lab("show", str(made / "trial-000/seed-0"))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[:2]
    assert first == "A2C on CartPole-v1, seed 0: Session, completed" and second.endswith("seed-0  tags: paper")
    for part in ("strength ", "▁", "settings", "git 0123456789", "2026-01-01", "took 1:00", "Next:", "lab report"):
        assert part in done.stdout, part
    assert files(made) == before, "it only reads"


def test_a_trial_and_an_experiment(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show.main([str(made / "trial-001")])
    trial = capsys.readouterr().out
    assert trial.startswith("A2C on CartPole-v1: Trial, failed, 1 of 2 Sessions (1 failed)")
    assert "RuntimeError: the environment broke" in trial and "algo.gamma=" not in trial.split("settings")[0]
    show.main([str(made)])
    experiment = capsys.readouterr().out
    assert "Experiment, interrupted, 3 of 6 Sessions (1 failed, 1 interrupted, 1 pending)" in experiment
    assert "rank  Trial" in experiment and "algo.lr=" in experiment and f"lab resume {made}" in experiment


def test_what_is_missing_or_damaged_is_no_obstacle(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LabError, match="is not a run directory"):
        show.main([str(tmp_path)])
    session = made / "trial-000/seed-1"
    (session / "provenance.json").write_text("{")
    (session / "metrics.csv").unlink()
    show.main([str(session)])
    printed = capsys.readouterr().out
    assert "Session, " in printed and "provenance.json cannot be read" in printed


def test_a_spec_of_another_shape_is_said_to_be_damaged(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = shutil.copytree(made / "trial-000/seed-0", tmp_path / "session")
    spec = yaml.safe_load((session / "spec.yaml").read_text())
    for parent in ("foo", {"file": 5}):
        write_sealed_yaml(session / "spec.yaml", yaml.safe_dump({**spec, "init_from": parent}))
        show.main([str(session)])
        printed = capsys.readouterr().out
        assert "spec.yaml is damaged: init_from" in printed and "seeds" not in printed


def test_a_curve_is_drawn_between_its_ends() -> None:
    line = show.draw_curve(np.arange(1, 9) * 1000.0, np.arange(8) * 10.0)
    assert line == "▁▂▃▄▅▆▇█  0 to 70.0, frames 1,000 to 8,000"
    assert show.draw_curve(np.array([1.0]), np.array([1.0])) == ""
    assert set(show.draw_curve(np.arange(3.0), np.ones(3))[:3]) == {"▁"}
