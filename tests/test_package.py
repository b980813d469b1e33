"""What is published: the wheel works in an empty environment and an empty folder, and its papers are in order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

import lab
from tests.helpers import ROOT

SMALL = ("frames=1_000", "log.every=500", "eval.every=500", "eval.episodes=1", "log.tensorboard=false")


def build(folder: Path) -> list[Path]:
    """Build the wheel and the source distribution from what git has of the tree, and return them."""
    source, made = folder / "source", folder / "dist"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("lab", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    made.mkdir()
    program = f"from setuptools import build_meta as b; b.build_sdist({str(made)!r}); b.build_wheel({str(made)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    return sorted(made.iterdir(), key=lambda path: path.suffix)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_works_in_an_empty_environment_and_folder(tmp_path: Path) -> None:
    sdist, wheel = build(tmp_path)
    environment, folder = tmp_path / "environment", tmp_path / "folder"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Its dependencies are those of this environment, without what is installed here as editable.
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(here)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--ignore-installed", "--quiet", str(wheel)], check=True
    )
    folder.mkdir()

    def run(*arguments: str, rc: int = 0) -> str:
        done = subprocess.run(
            [str(environment / "bin" / "lab"), *arguments],
            cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "1000"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == rc, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "completed" in run("algo=a2c", "env=cartpole", *SMALL, "hydra.run.dir=one")
    text = (folder / "one" / "provenance.json").read_text()
    assert str(ROOT) not in text and f"lab {lab.__version__} is installed from a package" in text
    assert "rank  Trial" in run("-m", "algo=a2c,ppo", "env=cartpole", "seed=0,1", *SMALL, "hydra.sweep.dir=grid")
    run("-m", "algo=a2c", "search=a2c", "search.n_trials=2", "seed=0,1", *SMALL, "hydra.sweep.dir=search")
    assert "episode   0" in run("enjoy", "one", "episodes=1")
    assert "algo=ppo" in run("compare", "grid/trial-000", "grid/trial-001")
    (folder / "search" / "report.html").unlink()
    run("report", "search")
    assert (folder / "search" / "report.html").exists()
    assert "same to the last bit" in run("rerun", "one", "out=again")
    assert "did you mean 'cartpole'" in run("env=cartpol", rc=2).lower()
    listed = subprocess.run(["tar", "tzf", str(sdist)], check=True, capture_output=True, text=True).stdout
    assert {"conf/config.yaml", "lab/analysis/templates"} <= {
        name.rstrip("/").partition("/")[2] for name in listed.splitlines()
    }


def test_a_package_has_every_folder_with_modules_or_config() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "lab").rglob("*.py")}
    folders |= {"lab" / path.parent.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    assert sorted(packages) == sorted(".".join(folder.parts) for folder in folders)


def test_the_citation_and_the_changelog_have_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lab.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert re.search(
        r"^## (Unreleased|\[?" + re.escape(lab.__version__) + ")", (ROOT / "CHANGELOG.md").read_text(), re.M
    )


def test_what_an_image_copies_is_let_through() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    let_through = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(name for line in copied for name in line.split()) == sorted(let_through)
    assert all((ROOT / name).exists() for name in let_through)


def test_workflows_are_read() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["jobs"]
