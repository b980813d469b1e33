"""A clone and an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common import conf


def test_a_clone_and_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "PACKAGE", tmp_path / "lab")
    assert conf.config_path() == str(tmp_path / "conf")
    assert conf.install_command("atari") == "in the clone of Lab, pip install -e '.[atari]'"
    (tmp_path / "lab" / "conf").mkdir(parents=True)
    assert conf.config_path() == str(tmp_path / "lab" / "conf")
    assert conf.install_command("atari") == "pip install 'lab-rl[atari]'"
