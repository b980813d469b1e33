"""Mistakes in wrappers of one's own: each is a sentence that names the wrapper, printed before the first frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from lab.env.vector import probe
from lab.errors import LabError
from tests.helpers import run_each, specs

HERE = "tests.env.test_layer"
FILE = """
import gymnasium as gym; import numpy as np

class Init(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        self.scale = {}["scale"]

class NoSuper(gym.Wrapper):
    def __init__(self, env):
        self.scale = 1

class Reset(gym.Wrapper):
    def reset(self, **options):
        return [][0]

class Step(gym.Wrapper):
    def step(self, action):
        return 1 / 0

class Exit(gym.Wrapper):
    def step(self, action):
        raise SystemExit(3)

class Four(gym.Wrapper):
    def step(self, action):
        return self.env.step(action)[:4]

class Numbers(gym.Wrapper):
    def step(self, action):
        observation, _, *rest = self.env.step(action)
        return observation, {"speed": np.float32(1.5), "on": np.True_}, *rest

class Hides(gym.Wrapper):
    def step(self, action):
        observation, reward, _, truncated, info = self.env.step(action)
        return observation, reward, False, truncated, info

class Plain:
    pass

def double(env):
    return env
"""
SENTENCES = {
    "Init": "=mine.Init cannot be applied to env.id=CartPole-v1 (observations Box(",
    "NoSuper": "=mine.NoSuper does not call super().__init__(env) in its __init__.",
    "Reset": "=mine.Reset (env.id=CartPole-v1) raised IndexError in reset: list index out of range (mine.py, line 15).",
    "Step": "=mine.Step (env.id=CartPole-v1) raised ZeroDivisionError in step: division by zero (mine.py, line 19).",
    "Exit": "=mine.Exit (env.id=CartPole-v1) called sys.exit(3).",
    "Four": "=mine.Four (env.id=CartPole-v1): step returned 4 values",
    "Numbers": "=mine.Numbers (env.id=CartPole-v1): the reward that step returned is {'speed': 1.5, 'on': True} (dict)",
    "Hides": "=mine.Hides (env.id=CartPole-v1) took a step after the environment inside it had ended an episode.",
    "Plain": "=mine.Plain is not allowed: it is a class that does not extend gymnasium's Wrapper.",
    "double": "=mine.double is not allowed: it is a function, not a class of gymnasium's Wrapper.",
}


def test_a_mistake_names_the_wrapper_that_made_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    commands = [[f"env.wrappers=[ClipRewardEnv,mine.{name},OrderEnforcing]"] for name in SENTENCES]
    others = {
        "env.wrappers=[mine:Step]": "env.wrappers[0] must be a name or a path with dots, as mine.Step.",
        "env.wrappers=[mime.Step]": "No module named 'mime'.",
    }
    done = run_each(tmp_path, *commands, *([line] for line in others))
    for (status, _, error), sentence in zip(done, [*SENTENCES.values(), *others.values()], strict=True):
        assert status == 2 and sentence in error and len(error.splitlines()) == 1, error
    assert done[0][2].endswith("KeyError: 'scale' (mine.py, line 7).\n")
    assert all("env.wrappers[1]" in error for _, _, error in done[: len(SENTENCES)])
    assert not (tmp_path / "outputs").exists()


class Ends(gym.Wrapper[Any, Any, Any, Any]):
    """Ends an episode after a step, and resets the environment inside by itself where that ended."""

    over = False

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.over = False
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.over:
            self.env.reset()
        observation, reward, terminated, self.over, info = self.env.step(action)
        self.over = self.over or terminated
        return observation, reward, False, False, info


class SkipsOn(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats an action, also after an end."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        for _ in range(7):
            result = self.env.step(action)
        return result


def test_a_wrapper_may_go_on_after_an_end_that_it_resets() -> None:
    probe(specs("env=cartpole", f"env.wrappers=[{HERE}.Ends]")[0].env)


def test_a_wrapper_must_not_step_on_after_an_end() -> None:
    with pytest.raises(LabError, match=r"^env.wrappers\[1\]=.*SkipsOn .* took a step after"):
        probe(specs("env=cartpole", f"env.wrappers=[OrderEnforcing,{HERE}.SkipsOn,ClipRewardEnv]")[0].env)


def test_an_argument_that_may_be_none_is_left_out() -> None:
    wrapper = "{name:TransformObservation,func:numpy.negative}"
    assert probe(specs("env=cartpole", f"env.wrappers=[{wrapper}]")[0].env).observation.shape == (4,)
