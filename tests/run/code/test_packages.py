from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from lab.run.code.packages import user_packages
from tests.run.code.helpers import write


def test_the_users_own_modules_by_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"one/owned/__init__.py": "", "one/owned/deep/__init__.py": "", "two/single_owned.py": ""})
    write(tmp_path, {"one/owned/deep/env.py": "", "site-packages/installed_owned.py": "", "lazy_owned.py": "1 / 0"})
    for folder in ("site-packages", "two", "one"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    names = ("owned.deep.env", "single_owned", "installed_owned")
    for name in names:
        importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("lazy_owned", tmp_path / "lazy_owned.py")
    assert spec and spec.loader
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_owned", lazy)
    spec.loader.exec_module(lazy)
    try:
        packages = {one.name: one for one in user_packages() if "owned" in one.name}
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("owned", *names)]:
            del sys.modules[name]
    assert list(packages) == ["owned", "single_owned", "lazy_owned"], "in the order of sys.path"
    assert (packages["owned"].path, packages["owned"].root) == (tmp_path / "one" / "owned", tmp_path / "one")
    assert len(packages["owned"].files) == 3
    assert (packages["single_owned"].path, packages["single_owned"].root) == (
        tmp_path / "two" / "single_owned.py",
        tmp_path / "two",
    )


def test_nothing_of_python_lab_or_installed_packages_is_the_users() -> None:
    names = {one.name for one in user_packages()}
    assert "tests" in names
    assert names.isdisjoint({"lab", "torch", "numpy", "gymnasium", "json", "pytest", "_pytest", "hydra", "__main__"})
