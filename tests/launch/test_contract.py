"""What our sweeps ask of every launcher, and what Hydra asks of launchers and sweepers, by its own suites."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from tests.helpers import ROOT
from tests.launch.contract import LauncherContract
from tests.launch.registered import make_known


@pytest.fixture(autouse=True)
def known_to_hydra() -> None:
    """Make our plugins known to the applications of the suites."""
    make_known()


class TestLocalUnderOurSweeps(LauncherContract):
    name = "local"
    overrides = ("hydra.launcher.slots=2",)


class TestBasicUnderOurSweeps(LauncherContract):
    name = "basic"
    can_kill = False


@pytest.mark.slow
class TestSubmititLocalUnderOurSweeps(LauncherContract):
    name = "submitit_local"
    can_kill = False


@pytest.mark.parametrize(("launcher_name", "overrides"), [("local", ["hydra.launcher.slots=1"])])
class TestLauncher(LauncherTestSuite):
    """Our launchers under Hydra's own sweeper."""


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [
        ("local", ["hydra/sweeper=lab"]),
        ("basic", ["hydra/sweeper=lab"]),
        pytest.param("submitit_local", ["hydra/sweeper=lab"], marks=pytest.mark.slow),
    ],
)
class TestLabSweeper(LauncherTestSuite):
    """Our sweeper over our launcher and over others: applications other than this one are swept as plain grids."""


@pytest.mark.slow
@pytest.mark.parametrize("task_launcher_cfg", [{}])
@pytest.mark.parametrize("extra_flags", [["-m", "hydra/launcher=local", "hydra/sweeper=lab"]])
class TestApplications(IntegrationTestSuite):
    """Our launcher and sweeper in applications that are processes of their own."""

    def generate_custom_cmd(self) -> Callable[..., list[str]]:
        return lambda command, *_: [command[0], "-m", "tests.launch.registered", *command[1:]]


@pytest.fixture(autouse=True)
def found_by_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the applications, which run elsewhere, import this project."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
