from __future__ import annotations

from pathlib import Path

from lab.run.provenance import collect, config_dirs


def test_provenance_of_code_packages_machine_and_command(tmp_path: Path) -> None:
    found = collect(["python", "-m", "lab", "a b"], "cpu", 1, [0, 1], tmp_path / "run")
    assert found.facts["command"] == "python -m lab 'a b'"
    assert found.facts["packages"]["torch"]
    assert found.facts["cpu"]["cores"] >= 1
    assert found.facts["stack"] == [0, 1]
    assert {key: found.facts[key] for key in found.code.to_dict()} == found.code.to_dict()
    assert {"lab", "tests"} <= set(found.facts["code"]), "these tests are imported, and nobody's package"
    assert "tests" in found.facts["git"]["modules"]


def test_folders_of_config_groups_on_a_command_line(tmp_path: Path) -> None:
    here = str(tmp_path)
    for words in (["--config-dir", here], [f"--config-dir={here}"], ["-cd", here]):
        assert config_dirs(["lab", *words, "algo=a2c"]) == [tmp_path]
    assert config_dirs(["lab", "--config-dir"]) == []
