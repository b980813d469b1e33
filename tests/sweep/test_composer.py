"""What a sweep takes from Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext

from lab.errors import LabError
from lab.launch.launcher import reason
from lab.sweep.composer import Composer
from lab.trial import Job
from tests.helpers import CONF, specs


def context(launcher: Any = None) -> Composer:
    loader = GlobalHydra.instance().config_loader()
    config = compose("config", ["algo=ppo", "env=pendulum"], return_hydra_config=True)
    return Composer(config, HydraContext(config_loader=loader, callbacks=None), launcher, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        ["algo.lr=0.5", "frames=1e5"],
        ["mode=dev", "algo.lr=0.5"],
        ["algo=a2c", "env=cartpole", "net.hidden=[8,8]", "~tuned"],
        ["algo.lr=0.25", "algo=a2c", "name='a, b'"],
        ["+env.kwargs.g=9.0", "env.num_envs=4"],
        ["algo.value_clip=0.3", "algo.gamma=0.5"],
        ["algo=reinforce", "algo.baseline=false"],
        ["algo.lr=0.1", "++algo.lr=0.2"],
        ["+env.kwargs.g=9.0", "env.kwargs.g=8.0", "++env.kwargs.h={a:1}", "+env.kwargs.i.j=[1]"],
        ["+env.kwargs={g:1}", "net.hidden=[4]", "algo.sil={updates:2}"],
    ],
)
def test_a_spec_is_as_if_composed_anew(words: list[str]) -> None:
    base = ["algo=ppo", "env=pendulum"]
    chosen = {word.partition("=")[0] for word in words}
    every = [*(word for word in base if word.partition("=")[0] not in chosen), *words]
    expected, plain = specs(*every)[0].to_dict(), specs(*base)[0].to_dict()
    with initialize_config_dir(str(CONF)):
        found = context()
        for _ in range(2):  # the second time from what was composed before, which the first must not have changed
            assert found.specs(every, [0])[0].to_dict() == expected
        assert found.specs(base, [0])[0].to_dict() == plain


def test_what_jobs_return_becomes_a_reason() -> None:
    results = [
        JobReturn(status=JobStatus.COMPLETED),
        JobReturn(status=JobStatus.FAILED),
        JobReturn(status=JobStatus.FAILED),
    ]
    results[1].return_value, results[2].return_value = LabError("A sentence."), ValueError("broken")
    assert [reason(result) for result in results] == [None, "A sentence.", "ValueError: broken"]


def test_a_launcher_that_raises_gives_every_job_its_reason(tmp_path: Path) -> None:
    class Lost:
        numbers: list[int] = []

        def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
            self.numbers.append(initial_job_idx)
            raise RuntimeError("a task was lost")

    with initialize_config_dir(str(CONF)):
        found = context(Lost())
        jobs = [Job(0, ["a=1"], {}), Job(1, ["a=2"], {})]
        assert [future.result() for future in found.launch(jobs)] == ["RuntimeError: a task was lost"] * 2
        for future in found.launch(jobs):
            future.result()
    assert sorted(Lost.numbers) == [1, 2, 3, 4], "one launch for each job, so that none is lost with another"
    assert found.jobs.room == 8
