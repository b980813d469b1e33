"""What Hydra asks of every launcher, and our sweeps, of the one for Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

from tests.launch.contract import LauncherContract
from tests.launch.registered import make_known

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True, scope="module")
def known_to_hydra(cluster: Any) -> Iterator[None]:
    """Make our plugins known to the applications of the suite, and connect this process to Ray."""
    import ray

    from lab.launch.ray import connect

    make_known()
    connect(cluster.address)
    yield
    ray.shutdown()


class TestRayUnderOurSweeps(LauncherContract):
    name = "ray"
    overrides = ("hydra.launcher.num_cpus=1", "hydra.launcher.slots=2")


FIT = ["hydra.launcher.num_cpus=1"]


@pytest.mark.parametrize(("launcher_name", "overrides"), [("ray", FIT), ("ray", [*FIT, "hydra/sweeper=lab"])])
class TestRayLauncher(LauncherTestSuite):
    """Our launcher under Hydra's own sweeper and under ours."""
