"""Action masks of environments, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete

from lab.env.action_mask import WithActionMask
from lab.env.vector import Environments, cached_dry_run, detect_restore_method, probe
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.training.lockstep import check_spaces
from tests.envs import Rules
from tests.helpers import go_on, lab, specs

RULES = ("env=gymnasium", "env.id=tests.envs:Rules-v0", "name=rules", "env.action_mask=true")


def test_the_mask_of_an_info_is_a_part_of_the_observation() -> None:
    spec = specs("algo=ppo", "env=gymnasium", "env.id=Taxi-v4", "env.action_mask=true", "env.num_envs=2")[0].env
    spaces = probe(spec)
    assert spaces.has_mask
    assert spaces.observation.shape == (6 + 500,)
    envs = Environments(spec, 2, np.random.default_rng(0))
    rows = [envs.reset(), envs.step(np.array([0, 0])).observation]
    taxis = [env.unwrapped for env in envs._base.envs]
    for row, taxi in zip(rows[-1], taxis, strict=True):
        assert row[:6].tolist() == taxi.action_mask(taxi.s).tolist()
        assert row[6:].argmax() == taxi.s
    assert not np.array_equal(rows[0][:, 6:], rows[1][:, 6:])
    envs.close()


def test_a_mask_that_is_not_used_is_noted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.errors._warned", set())
    for use in ("env.action_mask=false", "env.wrappers=[OrderEnforcing]", "env.action_mask=true"):
        probe(specs("env=gymnasium", "env.id=Taxi-v4", use)[0].env)
    probe(specs("env=cartpole")[0].env)
    note = "Note: The info of env.id=Taxi-v4 has an action_mask, which is not used: with env.action_mask=true, only"
    assert capsys.readouterr().err.splitlines() == [f"{note} valid actions are chosen."]


@pytest.mark.parametrize(("choices", "size"), [(False, 5), (True, 8)])
def test_all_actions_are_valid_where_an_episode_is_over(choices: bool, size: int) -> None:
    env = WithActionMask(Rules(choices), "rules")
    assert isinstance(env.action_space, MultiDiscrete if choices else Discrete)
    observation, _ = env.reset(seed=0)
    terminated = False
    while not terminated:
        mask = observation["action_mask"]
        parts = np.split(mask, [5]) if choices else [mask]
        chosen = [int(part.nonzero()[0][0]) for part in parts]
        observation, _, terminated, _, info = env.step(chosen if choices else chosen[0] + 2)
        assert env.observation_space.contains(observation)
        assert info == {}
    assert observation["action_mask"].tolist() == [1] * size


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_mask_may_be_of_lists(kind: type) -> None:
    class Listed(Rules):
        def info(self, over: bool = False) -> dict:
            super().info(over)
            parts = [mask.tolist() for mask in self.masks]
            return {"action_mask": kind(parts if len(parts) > 1 else parts[0])}

    for choices in (False, True):
        env = Listed(choices)
        observation, _ = WithActionMask(env, "rules").reset(seed=0)
        assert observation["action_mask"].tolist() == np.concatenate(env.masks).tolist()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    {
        "absent": "the info that reset returned has no 'action_mask', and env.action_mask=true needs one: 5 numbers",
        "short": r"has 'action_mask' an array of shape \(4,\), and env.action_mask=true needs one: 5 numbers",
        "text": r"has 'action_mask' 'all' \(str\), and env.action_mask=true needs one",
        "number": r"has 'action_mask' an array of shape \(5,\), .* 1 for each action that is valid and 0",
        "none": r"the action mask that reset returned leaves no action: \[0, 0, 0, 0, 0\]",
    }.items(),
)
def test_a_mistake_in_a_mask_is_a_sentence(fault: str, sentence: str) -> None:
    with pytest.raises(LabError, match=f"env.id=tests.envs:Rules-v0: .*{sentence}"):
        probe(specs(*RULES, f"+env.kwargs.fault={fault}")[0].env)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("env=pendulum",), r"env.action_mask=true is not possible with env.id=Pendulum-v1, whose actions are Box"),
        (("env=gymnasium", "env.id=tests.envs:Buttons-v0"), "whose actions are MultiBinary"),
        (("env=cartpole",), "the info that reset returned has no 'action_mask'"),
        (("env=cartpole", "env.vectorization_mode=native"), "native is not possible with env.action_mask"),
        (
            ("env=cartpole", "env.backend=envpool"),
            "env.action_mask=true is not allowed: env.action_mask must be false with env.backend=envpool",
        ),
        (("algo=td3", *RULES), "env.action_mask must be false with algo=td3, which learns no action masks"),
        (("algo=dqn", *RULES, "+env.kwargs.choices=true"), "algo=dqn supports Discrete actions only"),
    ],
)
def test_where_there_can_be_no_mask(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        check_spaces(specs(*overrides, "env.action_mask=true"))


def test_a_mask_that_is_missing_is_a_sentence_of_the_command_line(tmp_path: Path) -> None:
    done = lab("algo=ppo", "env=cartpole", "env.action_mask=true", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: env.id=CartPole-v1: the info that reset returned has no 'action_mask', and env.action_mask=true needs"
        " one: 2 numbers, 1 for each action that is valid and 0 for the others.\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_mistake_that_comes_later_fails_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = specs("algo=ppo", *RULES, "frames=512", "algo.horizon=64", "algo.batch_size=128", "eval.every=0")
    step = Rules.step

    def forget(self: Rules, action: object) -> tuple:
        *result, info = step(self, action)
        return *result, info if self.np_random.random() < 0.98 else {}

    probe(made[0].env)
    monkeypatch.setattr(Rules, "step", forget)
    directory = RunDir(tmp_path)
    assert go_on(made, [directory]) == ["failed"]
    assert "the info that step returned has no 'action_mask'" in directory.read_status()["error"]
    assert "Traceback" not in directory.read_status()["error"]


def test_workers_send_the_mask() -> None:
    spec = specs(*RULES, "env.vectorization_mode=async", "env.num_envs=2")[0].env
    envs = Environments(spec, 2, np.random.default_rng(0))
    assert envs.reset().shape == (2, 5 + 2)
    envs.close()


@pytest.mark.parametrize("choices", [False, True])
def test_trials_take_valid_actions(choices: bool) -> None:
    spec = specs(*RULES, f"+env.kwargs.choices={choices}".lower())[0].env
    assert detect_restore_method(spec) == "pickle"
    assert cached_dry_run(spec).repeatable
    assert cached_dry_run(spec).global_rngs == ()
