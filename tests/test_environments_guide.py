"""The examples of docs/how-to/environments.md on wrappers and metrics, run as a user would run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from lab.env.vector import probe
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir
from lab.run.files import read_json
from tests.examples import read_page
from tests.helpers import ROOT, lab, specs

GUIDE = ROOT / "docs" / "how-to" / "environments.md"
SMALL = ("frames=1000", "log.every=500", "eval.every=500", "eval.episodes=2", "log.tensorboard=false")


def write(section: str, folder: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """Write the file of a section; return its command, the errors that it shows, and how to run the command there."""
    (file, command, errors), _ = read_page(GUIDE, section)
    assert file.file and len(file.text.splitlines()) < 20
    (folder / file.file).write_text(file.text)
    return shlex.split(command.text)[3:], errors.text.splitlines(), {"cwd": folder, "env": {"PYTHONPATH": str(ROOT)}}


def refuse(*overrides: str) -> str:
    """Return the error for an environment, as the command line prints it."""
    with pytest.raises(LabError) as caught:
        probe(specs("env=cartpole", *overrides)[0].env)
    return f"Error: {caught.value}"


def test_a_wrapper_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, errors, place = write("A wrapper of your own", tmp_path)
    done = lab(*command, *SMALL, "hydra.run.dir=run", **place)
    assert done.returncode == 0, done.stderr
    assert RunDir(tmp_path / "run").read_status()["state"] == "completed"
    monkeypatch.syspath_prepend(tmp_path)
    for wrapper, error in zip(("Nois", "Noise, scal: 1"), errors, strict=True):
        assert refuse(f"env.wrappers=[{{name: my_wrappers.{wrapper}}}]") == error


def test_success_and_other_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, (error,), place = write("Success and other metrics", tmp_path)
    done = lab(*command, *SMALL, "hydra.sweep.dir=sweep", "parallel=1", **place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"lab enjoy .* code=here$", done.stdout, re.MULTILINE), "as the next step"
    sweep = SweepDir(tmp_path / "sweep")
    assert read_json(sweep.sweep)["objective"]["metrics"] == ["is_success"]
    for trial in sweep.trials():
        results = read_json(trial.session(0).results)
        assert 0 <= results["is_success"] <= 1 and results["eval_is_success"] in (0, 0.5, 1)
    monkeypatch.syspath_prepend(tmp_path)
    assert refuse("env.wrappers=[my_success.Success]", "env.metrics=[success]") == error


@pytest.mark.slow
def test_wrappers_in_the_command_line(tmp_path: Path) -> None:
    (command,), _ = read_page(GUIDE, "Wrappers")
    overrides = [*shlex.split(command.text)[3:], *SMALL, "~tuned", "algo.learning_starts=100", "compile=false"]
    done = lab(*overrides, "hydra.run.dir=run", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
