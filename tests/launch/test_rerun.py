"""Specs as jobs that run Sessions again read them."""

from __future__ import annotations

from pathlib import Path

import yaml
from omegaconf import OmegaConf

from lab.common.interpolation import literal
from lab.launch.rerun import Quoting


def test_what_a_job_reads_is_what_the_session_had(tmp_path: Path) -> None:
    spec = {
        "name": "1e3",
        "kwargs": {"a": "1_0.0e1", "b": "${x}", "c": "yes", "d": 1e-5, "e": None, "f": [True, "null", 0.1 + 0.2]},
        "big": float("inf"),
        "seed": [0, 1],
    }
    (tmp_path / "spec.yaml").write_text(yaml.dump(literal(spec), Dumper=Quoting))
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "spec.yaml"), resolve=True) == spec
