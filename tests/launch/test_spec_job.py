"""Specs as jobs that run Sessions again read them."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from lab.launch.spec_job import dump_spec


def test_what_a_job_reads_is_what_the_session_had(tmp_path: Path) -> None:
    spec = {
        "name": "1e3",
        "kwargs": {"a": "1_0.0e1", "b": "${x}", "c": "yes", "d": 1e-5, "e": None, "f": [True, "null", 0.1 + 0.2]},
        "big": float("inf"),
        "seed": [0, 1],
    }
    (tmp_path / "spec.yaml").write_text(dump_spec(spec))
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "spec.yaml"), resolve=True) == spec
