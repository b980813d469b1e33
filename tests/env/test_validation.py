"""Values that break Gymnasium's interface are rejected, equivalent ones accepted."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from lab.env.make import make_single
from lab.env.spec import EnvSpec
from lab.env.validation import Validated, add_validation, check_step, to_number
from lab.env.vector import Environments, probe
from lab.errors import LabError
from lab.run.directory import RunDir
from tests.helpers import go_on, lab, specs

WRONG = ("env=gymnasium", "env.id=tests.rogue:Wrong-v0", "name=wrong")
HUGE = 10**400
ID = re.escape("env.id=tests.rogue:Wrong-v0")
FIVE = "it must return five: an observation, a reward, terminated, truncated and a dict"
# By the observation space, the invalid part, its value in tests.rogue.VALUES, and the call: 0 is reset, 1 is step.
REJECTED: dict[tuple[str, str, str, int], str] = {
    ("box", "observation", "none", 0): "the observation that reset returned is None",
    ("box", "observation", "none", 1): "the observation that step returned is None",
    ("box", "observation", "text", 0): r"is 'up' \(str\); its space holds numbers",
    ("box", "observation", "scalar", 0): r"is a single number \(0.5\); its space has the shape \(4,\)",
    ("box", "observation", "one number", 0): r"has the shape \(1,\); its space has the shape \(4,\)",
    ("box", "observation", "one number", 1): r"has the shape \(1,\); its space has the shape \(4,\)",
    ("box", "observation", "a column", 0): r"has the shape \(4, 1\); its space has the shape \(4,\)",
    ("box", "observation", "nan", 0): "the observation that reset returned is NaN at index 1",
    ("box", "observation", "infinite", 1): "the observation that step returned is infinite at index 3",
    ("box", "observation", "huge", 0): "too large for float32",
    ("box", "observation", "objects", 0): "of object; its space holds numbers",
    ("box", "observation", "texts", 0): "of <U1; its space holds numbers",
    ("box", "observation", "complex", 0): "of complex128; its space holds numbers",
    ("box", "observation", "ragged", 0): "is 2 values; its space holds numbers",
    ("box", "observation", "empty", 0): r"is {} \(dict\); its space holds numbers",
    ("image", "observation", "float image", 0): "holds float64, which would be cut to its space's uint8",
    ("image", "observation", "large image", 0): "goes from 256 to 256, more than its space's uint8 can hold",
    ("image", "observation", "gray image", 0): r"has the shape \(4, 4\); its space has the shape \(4, 4, 3\)",
    ("whole", "observation", "halves", 0): "holds float64, which would be cut to its space's int64",
    ("discrete", "observation", "5", 0): r"is 5; its space Discrete\(5\) goes from 0 to 4",
    ("discrete", "observation", "1.0", 1): r"is 1.0; its space is Discrete\(5\)",
    ("discrete", "observation", "three", 0): r"is an array of shape \(3,\); its space is Discrete\(5\)",
    ("discrete from 2", "observation", "0", 0): r"is 0; its space Discrete\(3, start=2\) goes from 2 to 4",
    ("multi", "observation", "choices", 0): "which is not in its space MultiDiscrete",
    ("binary", "observation", "bits", 0): "which is not in its space MultiBinary",
    ("dict", "observation", "no door", 0): "has the keys place; its space has place, door",
    ("dict", "observation", "and a key", 0): "has the keys place, door, key; its space has place, door",
    ("dict", "observation", "wrong door", 0): r"the observation\['door'\] that reset returned is 2",
    ("dict", "observation", "nan place", 1): r"the observation\['place'\] that step returned is NaN at index 0",
    ("dict", "observation", "scalar", 0): "its space is a dict of place, door",
    ("tuple", "observation", "single", 0): "its space is a tuple of 2",
    ("tuple", "observation", "nan in a tuple", 0): r"the observation\[1\] that reset returned is NaN at index 1",
    ("box", "alone", "none", 0): r"reset returned an array of shape \(4,\); it must return an observation and a dict",
    ("tuple", "alone", "none", 0): "reset returned two values, of which the second is an array",
    ("dict", "alone", "none", 0): "it must return an observation and a dict",
    ("box", "all", "none", 0): "reset returned None; it must return an observation and a dict",
    ("box", "info", "none", 0): "reset returned two values, of which the second is None",
    ("box", "all", "none", 1): f"step returned None; {FIVE}",
    ("box", "old", "none", 1): rf"step returned 4 values \(as Gym did before 0.26\); {FIVE}",
    ("box", "alone", "none", 1): "step returned an array of shape",
    ("box", "info", "text", 1): r"the fifth value that step returned is 'up' \(str\); it must be a dict",
    ("box", "reward", "none", 1): "the reward that step returned is None; it must be a number",
    ("box", "reward", "text", 1): r"the reward that step returned is 'up' \(str\); it must be a number",
    ("box", "reward", "nan number", 1): "the reward that step returned is NaN; it must be a finite number",
    ("box", "reward", "infinite number", 1): "the reward that step returned is infinite",
    ("box", "reward", "huge number", 1): r"the reward that step returned is 1e\+39, too large",
    ("box", "reward", "complex number", 1): "it must be a number",
    ("box", "reward", "two in an array", 1): r"is an array of shape \(2,\); it must be a number",
    ("box", "terminated", "none", 1): "terminated, as step returned it, is None; it must be True or False",
    ("box", "terminated", "two", 1): "terminated, as step returned it, is 2; it must be True or False",
    ("box", "terminated", "1.0", 1): "terminated, as step returned it, is 1.0",
    ("box", "terminated", "two in an array", 1): "terminated, as step returned it, is an array",
    ("box", "truncated", "empty", 1): r"truncated, as step returned it, is {} \(dict\)",
    ("box", "raises", "none", 0): "raised ValueError in reset: the battery is empty",
    ("box", "raises", "none", 1): "raised ValueError in step: the battery is empty",
}
ACCEPTED = [
    *(("box", "observation", value) for value in ("doubles", "list", "integers", "out of bounds")),
    ("image", "observation", "wide image"),
    *(("discrete", "observation", value) for value in ("1", "2", "true")),
    *(("box", "reward", value) for value in ("5", "true", "float32", "one in an array", "tensor", "numpy true")),
    *(("box", "terminated", value) for value in ("0", "1", "numpy true", "array of true")),
]  # fmt: skip


def wrong(space: str, part: str, value: str, at: int) -> EnvSpec:
    kwargs = {"space": space, "part": part, "value": value, "at": at}
    return dataclasses.replace(specs(*WRONG)[0].env, kwargs=kwargs)


@pytest.mark.parametrize(("space", "part", "value", "at"), REJECTED)
def test_invalid_values_are_rejected_before_training(space: str, part: str, value: str, at: int) -> None:
    with pytest.raises(LabError, match=f"{ID}.*{REJECTED[space, part, value, at]}"):
        probe(wrong(space, part, value, at))


@pytest.mark.parametrize(("space", "part", "value"), ACCEPTED)
def test_equivalent_values_are_accepted(space: str, part: str, value: str) -> None:
    spec = wrong(space, part, value, 1)
    probe(spec)
    envs = Environments(spec, 2, np.random.default_rng(0))
    envs.reset()
    observation, reward, terminated, *_ = envs.step(np.zeros(2, np.int64))
    assert np.isfinite(observation).all()
    assert set(reward) <= {1.0, 5.0, 0.5}
    assert terminated.tolist() == [part == "terminated" and value != "0"] * 2


@pytest.mark.parametrize("wrong", ["rewards", "one reward", "observations"])
def test_native_vector_environments_are_validated(wrong: str) -> None:
    sentences = {
        "rewards": r"the reward is an array of shape \(1,\); it must be an array of shape \(2,\)",
        "one reward": "the reward that step returned is NaN",
        "observations": r"has the shape \(2,\); its space has the shape \(2, 1\)",
    }
    spec = specs("env=gymnasium", "env.id=tests.rogue:OneDie-v0", f"+env.kwargs.wrong={wrong!r}")[0].env
    with pytest.raises(LabError, match=f"env.id=tests.rogue:OneDie-v0.*{sentences[wrong]}"):
        probe(spec)


@pytest.mark.parametrize("vectorize", ["sync", "async"])
@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        ("observation", "one number", "has the shape (1,)"),
        ("reward", "nan number", "the reward that step returned is NaN"),
        ("old", "none", "step returned 4 values"),
    ],
)
def test_a_session_fails_at_the_frame_of_an_invalid_value(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], vectorize: str, part: str, value: str, sentence: str
) -> None:
    kwargs = (f"+env.kwargs.part={part}", f"+env.kwargs.value={value}", "+env.kwargs.at=7")
    few = (
        "env.num_envs=2",
        "frames=400",
        "log.tensorboard=false",
        "eval.every=0",
        f"env.vectorization_mode={vectorize}",
    )
    directory = RunDir(tmp_path)
    assert go_on(specs(*WRONG, *kwargs, *few), [directory]) == ["failed"]
    status = directory.read_status()
    assert status["error"].startswith("env.id=tests.rogue:Wrong-v0: ")
    assert sentence in status["error"]
    assert "Traceback" not in status["error"] + directory.log.read_text() + capfd.readouterr().err
    assert status["frame"] == 14, "the seventh step of two environments"
    assert directory.episodes.read_text().count("\n") == 1


def test_an_error_in_a_worker_keeps_its_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ("env.num_envs=2", "frames=400", "log.tensorboard=false", "eval.every=0", "env.vectorization_mode=async")
    directory = RunDir(tmp_path)
    assert go_on(specs(*WRONG, "+env.kwargs.part=raises", "+env.kwargs.at=7", *few), [directory]) == ["failed"]
    error = directory.read_status()["error"]
    assert "in give" in error, "where it was raised"
    assert error.strip().endswith("ValueError: the battery is empty")
    assert capfd.readouterr().err == ""


def test_an_invalid_environment_ends_the_command_before_anything_is_written(tmp_path: Path) -> None:
    done = lab(*WRONG, "+env.kwargs.part=alone", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: env.id=tests.rogue:Wrong-v0: reset returned an array of shape (4,)")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_validation_is_inside_the_wrappers_of_gymnasium() -> None:
    env = make_single(specs("env=cartpole")[0].env)
    layers = [type(env).__name__]
    while isinstance(env, gym.Wrapper):
        env = env.env
        layers.append(type(env).__name__)
    assert layers == ["TimeLimit", "OrderEnforcing", "Validated", "CartPoleEnv"]


def test_valid_values_are_returned_unchanged() -> None:
    class Right(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
        action_space = gym.spaces.Discrete(2)
        returned = np.zeros(4, np.float32), 0.5, False, True, {"a": 1}

        def step(self, action: Any) -> Any:
            return self.returned

    env = add_validation(Right(), "right")
    assert isinstance(env, Validated)
    observation, *rest = env.step(0)
    assert observation is Right.returned[0]
    assert rest == [0.5, False, True, {}]


@pytest.mark.parametrize("chosen", ["env=cartpole", "env=acrobot", "env=pendulum", "env=mountaincar"])
def test_valid_values_pass_the_fast_test(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specs(chosen)[0]
    envs = Environments(spec.env, 2, np.random.default_rng(0))
    envs.reset()

    def fail(*arguments: Any) -> None:
        raise AssertionError("not on the fast path")

    actions = np.zeros((2, 1), np.float32) if chosen == "env=pendulum" else np.zeros(2, np.int64)
    for name in ("check_step", "check_vector_step"):
        monkeypatch.setattr(f"lab.env.validation.{name}", fail)
    for _ in range(5):
        envs.step(actions)
    envs.close()


@pytest.mark.parametrize(("value", "number"), [(HUGE, math.inf), (-HUGE, -math.inf), (Fraction(HUGE), math.inf)])
def test_a_number_that_no_float_can_hold_is_infinite(value: Any, number: float) -> None:
    assert to_number(value) == number
    with pytest.raises(LabError, match="the reward that step returned is infinite; it must be a finite number"):
        check_step("rogue", gym.spaces.Discrete(2), (0, value, False, False, {}))


def test_a_fraction_is_a_number() -> None:
    assert np.isfinite(to_number(Fraction(1, 2)))
    assert check_step("rogue", gym.spaces.Discrete(2), (0, Fraction(1, 2), False, False, {}))[1] == 0.5
