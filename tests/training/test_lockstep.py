"""Which Sessions are trained in lockstep."""

from __future__ import annotations

import pytest

from lab.env.vector import probe
from lab.errors import LabError
from lab.training.agent import Agent
from lab.training.lockstep import check_spaces, group_in_lockstep, shared_settings
from tests.helpers import specs

OWN = ("algo=a2c", "env=gymnasium", "env.id=tests.envs:Level-v0", "~tuned", "seed=[3,4,5]")


@pytest.mark.parametrize(
    ("overrides", "groups"),
    [
        ([], [[0, 1, 2]]),
        (["algo.lr=${seed}", "name=x_${seed}", "+env.kwargs.level=${seed}"], [[0, 1, 2]]),
        (["algo.horizon=${seed}"], [[0], [1], [2]]),
        (["env.num_envs=${seed}"], [[0], [1], [2]]),
        (["+env.kwargs.size=${seed}"], [[0], [1], [2]]),
        (["net.hidden=[${seed}]"], [[0], [1], [2]]),
        (["+net.odd=1", "~net.odd", "log.every=${seed}"], [[0], [1], [2]]),
    ],
)
def test_groups(overrides: list[str], groups: list[list[int]]) -> None:
    made = specs(*OWN, *overrides)
    assert [members for members, _ in group_in_lockstep(made, probe(made[0].env))] == groups


def test_compiled_sessions_are_in_groups_of_their_own() -> None:
    made = specs(*OWN, "compile=false")
    made[1].compile = True
    assert [members for members, _ in group_in_lockstep(made, probe(made[0].env))] == [[0, 2], [1]]


def test_each_group_has_its_own_spaces() -> None:
    made = specs(*OWN, "+env.kwargs.size=${seed}")
    groups = group_in_lockstep(made, probe(made[0].env))
    assert [spaces.observation.shape for _, spaces in groups] == [(3,), (4,), (5,)]
    assert [spaces.observation.shape for spaces in check_spaces(made)] == [(3,), (4,), (5,)]


def test_sessions_that_differ_are_rejected_as_one_stack() -> None:
    made = specs(*OWN, "algo.horizon=${seed}")
    assert shared_settings(made[0])["algo.horizon"] == "3"
    with pytest.raises(LabError, match=r"algo\.horizon differs between Sessions of one stack: 3 and 4"):
        Agent(made, probe(made[0].env), "cpu")  # type: ignore[arg-type]
