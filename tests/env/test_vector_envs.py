"""Environments in workers: the error says how a worker ended, and nothing waits for it."""

from __future__ import annotations

import numpy as np
import pytest

from lab.env.vector import Environments
from lab.errors import LabError, describe_exit
from tests.helpers import specs
from tests.rogue_process import STEP, WAYS

ENDS = ("env=gymnasium", "env.id=tests.rogue_process:Ends-v0", "env.vectorization_mode=async")
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("os._exit(5)", "Worker 0 of env.id=tests.rogue_process:Ends-v0 ended with exit code 5."),
        ("SIGKILL", "Worker 0 of .* was killed by SIGKILL, as when memory runs out."),
        ("sys.exit(3)", r"env.id=.* called sys.exit\(3\)."),
        pytest.param("os._exit(0)", "ended with exit code 0", marks=SLOW),
        pytest.param("SIGSEGV", "was killed by SIGSEGV", marks=SLOW),
        pytest.param("abort", "was killed by SIGABRT", marks=SLOW),
        pytest.param("KeyboardInterrupt", "raised KeyboardInterrupt", marks=SLOW),
        pytest.param("execv", "ended with exit code 0", marks=SLOW),
    ],
)
@pytest.mark.parametrize("where", ["step", "reset", pytest.param("constructor", marks=SLOW)])
def test_the_error_says_how_a_worker_ended(
    way: str, sentence: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    trainer, act = os.getpid(), WAYS[way]
    monkeypatch.setitem(WAYS, way, lambda: act() if os.getpid() != trainer else None)
    spec = specs(*ENDS, f"+env.kwargs.way='{way}'", f"+env.kwargs.where={where}")[0].env
    envs = None
    with pytest.raises(LabError, match=sentence):
        envs = Environments(spec, 2, np.random.default_rng(0))
        envs.reset()
        for _ in range(2 * STEP):
            envs.step(np.zeros(2, np.int64))
    if envs:
        workers = envs._base.processes
        envs.close()
        assert not any(worker.is_alive() for worker in workers)


def test_exits_are_described() -> None:
    assert describe_exit(3) == "ended with exit code 3"
    assert describe_exit(-9) == "was killed by SIGKILL, as when memory runs out"
    assert describe_exit(-40) == "was killed by signal 40"
