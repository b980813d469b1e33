"""What Hydra asks of every launcher, and our sweeps, of the one for Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

from lab.launch.ray import connect
from tests.launch.contract import LauncherContract
from tests.launch.registered import make_known

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True, scope="module")
def connection(cluster: Any) -> Iterator[None]:
    """Connect this process to Ray, as its first launcher would."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        connect(cluster.address)
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def known_to_hydra() -> None:
    """Make our plugins known to the applications of the suite."""
    make_known()


class TestRayUnderOurSweeps(LauncherContract):
    name = "ray"
    overrides = ("hydra.launcher.num_cpus=1", "hydra.launcher.slots=2")


FIT = ["hydra.launcher.num_cpus=1"]


@pytest.mark.parametrize(("launcher_name", "overrides"), [("ray", FIT), ("ray", [*FIT, "hydra/sweeper=lab"])])
class TestRayLauncher(LauncherTestSuite):
    """Our launcher under Hydra's own sweeper and under ours."""
