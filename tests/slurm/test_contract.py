"""What Hydra asks of every launcher, and our sweeps, of the one for SLURM."""

from __future__ import annotations

import pytest
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

from tests.launch.contract import LauncherContract
from tests.launch.registered import make_known
from tests.slurm.helpers import NAME

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def known_to_hydra(cluster: None) -> None:
    """Make our plugins known to the applications of the suite."""
    make_known()


FIT = [f"hydra.launcher.name={NAME}", "hydra.launcher.cpus_per_task=1", "hydra.launcher.poll=0.5"]


class TestSlurmUnderOurSweeps(LauncherContract):
    name = "slurm"
    overrides = (*FIT, "hydra.launcher.array_parallelism=2")


@pytest.mark.parametrize(("launcher_name", "overrides"), [("slurm", FIT), ("slurm", [*FIT, "hydra/sweeper=lab"])])
class TestSlurmLauncher(LauncherTestSuite):
    """Our launcher under Hydra's own sweeper and under ours."""
