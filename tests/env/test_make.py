"""Environments of packages that may not be installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers import ROOT, lab


@pytest.mark.parametrize(
    ("package", "overrides", "sentence"),
    [
        (
            "mujoco",
            ("env=hopper",),
            "env.id=Hopper-v5 needs a package that is not installed: in the clone of Lab, pip install -e '.[mujoco]'",
        ),
    ],
)
def test_a_missing_package_is_named_with_its_pip_command(
    tmp_path: Path, package: str, overrides: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / f"{package}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = lab(*overrides, f"hydra.run.dir={tmp_path}/run", env={"PYTHONPATH": path})
    assert done.returncode == 2
    assert done.stderr == f"Error: {sentence}\n"
    assert not (tmp_path / "run").exists()
