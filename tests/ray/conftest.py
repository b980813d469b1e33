"""Fixtures of the tests on a Ray of two nodes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers import ROOT, start_lab

Start = Callable[..., subprocess.Popen[str]]
NODE = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}


def patiently(make: Callable[[], Any]) -> Any:
    """Start something of Ray, which gives its processes 30 seconds: too few on a machine with other work."""
    for _ in range(4):
        try:
            return make()
        except Exception as error:
            problem = error
    raise problem


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a Ray of two nodes with two cores each, of which a test may kill the second; skip without Ray."""
    utils = pytest.importorskip("ray.cluster_utils", reason="needs Ray: pip install -e '.[ray]'")
    with pytest.MonkeyPatch.context() as patch:  # for what Ray starts
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        cluster = patiently(lambda: utils.Cluster(initialize_head=True, head_node_args=NODE))
        patiently(lambda: cluster.add_node(**NODE))
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture
def start() -> Iterator[Start]:
    """Give `start_lab`, and leave none of its processes behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*overrides: str) -> subprocess.Popen[str]:
        started.append(start_lab(*overrides))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
