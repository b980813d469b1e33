from __future__ import annotations

from pathlib import Path

from lab.run.provenance import collect, config_dirs


def test_provenance_of_code_packages_machine_and_command(tmp_path: Path) -> None:
    provenance = collect(["python", "-m", "lab", "a b"], "cpu", 1, [0, 1], tmp_path / "run")
    assert provenance.facts["command"] == "python -m lab 'a b'"
    assert provenance.facts["packages"]["torch"]
    assert provenance.facts["cpu"]["cores"] >= 1
    assert provenance.facts["stack"] == [0, 1]
    assert {key: provenance.facts[key] for key in provenance.code.to_dict()} == provenance.code.to_dict()
    assert {"lab", "tests"} <= set(provenance.facts["code"]), "these tests are imported, and nobody's package"
    assert "tests" in provenance.facts["git"]["modules"]


def test_folders_of_config_groups_on_a_command_line(tmp_path: Path) -> None:
    here = str(tmp_path)
    for options in (["--config-dir", here], [f"--config-dir={here}"], ["-cd", here]):
        assert config_dirs(["lab", *options, "algo=a2c"]) == [tmp_path]
    assert config_dirs(["lab", "--config-dir"]) == []
