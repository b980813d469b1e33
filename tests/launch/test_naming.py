"""What Sessions of several seeds are called together."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from lab.launch.naming import name_directory, name_seeds, run_directory, select_for_all


@pytest.mark.parametrize(
    ("seeds", "name"),
    [([4], "4"), ([0, 1, 2], "0-2"), ([0, 2, 5], "0,2,5"), (range(0, 200, 2), "0,2,4,6,8,10,12,and-93-more")],
)
def test_seeds_have_a_short_name(seeds: list[int], name: str) -> None:
    assert name_seeds(seeds) == name


def test_a_directory_is_named_by_all_seeds() -> None:
    config = OmegaConf.create({"seed": 0, "name": "x_${seed}", "hydra": {"sweep": {"dir": "out/${name}/a"}}})
    OmegaConf.set_readonly(config, True)
    name_directory(config, "hydra.sweep.dir", [3, 4])
    assert config.hydra.sweep.dir == "out/x_3-4/a"
    assert config.seed == 0


def test_a_stack_writes_into_one_directory_and_a_single_session_where_hydra_says(tmp_path: object) -> None:
    hydra = OmegaConf.create({"run": {"dir": f"{tmp_path}/${{name}}"}, "runtime": {"output_dir": "given"}})
    config = OmegaConf.create({"seed": [0, 1], "name": "x_${seed}"})
    assert str(run_directory(config, hydra)) == f"{tmp_path}/x_0-1"
    config.seed = 0
    assert str(run_directory(config, hydra)) == "given"


def test_what_needs_a_number_is_left_as_it_is() -> None:
    OmegaConf.register_resolver("half", lambda value: value / 2, replace=True)
    config = OmegaConf.create({"seed": 0, "name": "${half:${seed}}"})
    assert select_for_all(config, "name", [1, 2]) is None
