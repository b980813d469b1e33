"""Wrappers in the config: by name or path, checked before the first frame, and part of a checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import DtypeObservation

from lab.command.enjoy import main as enjoy
from lab.env.baselines import TimeFeatureWrapper
from lab.env.make import make_single
from lab.env.vector import Environments, detect_restore_method, probe
from lab.errors import LabError
from lab.spec import load
from lab.training.stack import Stack
from tests.helpers import lab, result, specs, train_specs
from tests.test_resume import check, killed, signalled

CARTPOLE, PENDULUM = "env=cartpole", "env=pendulum"
PICTURE = ("env=gymnasium", "env.id=tests.envs:Picture-v0")
HERE = "tests.env.test_wrappers"
SLOW = pytest.mark.slow


class CountEpisodes(gym.Wrapper[Any, Any, Any, Any]):
    """Adds the number of episodes to rewards, and ends every third one after 7 steps."""

    def __init__(self, env: gym.Env[Any, Any], factor: float = 1.0) -> None:
        super().__init__(env)
        self.factor, self.episodes, self.steps = factor, 0, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.episodes, self.steps = self.episodes + 1, 0
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        cut = self.episodes % 3 == 0 and self.steps == 7
        return observation, float(reward) + self.factor * self.episodes, terminated, truncated or cut, info


class Quiet(gym.Wrapper[Any, Any, Any, Any]):
    """Counts episodes, which changes nothing before the hundredth."""

    episodes = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.episodes += 1
        return self.env.reset(**options)


class Unpicklable(CountEpisodes):
    """Holds a generator, of which there is no pickle."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.numbers: Iterator[int] = (number for number in itertools.count())


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        ((PENDULUM, "env.wrappers=[{name:RescaleAction,min_action:-1,max_action:[1.0]},ClipAction]"), (3,)),
        ((CARTPOLE, "env.wrappers=[TimeAwareObservation]"), (5,)),
        ((CARTPOLE, "env.wrappers=[{name:FrameStackObservation,stack_size:4}]"), (16,)),
        ((CARTPOLE, "env.wrappers=[{name:TransformReward,func:numpy.sign},FlattenObservation]"), (4,)),
        ((CARTPOLE, "env.wrappers=[{name:ReshapeObservation,shape:[2,2]},OrderEnforcing]"), (4,)),
        ((CARTPOLE, "env.wrappers=[MaxAndSkipEnv,TimeFeatureWrapper]"), (5,)),
        ((*PICTURE, "env.wrappers=[{name:ResizeObservation,shape:[8,8]},{name:VecFrameStack,n_stack:3}]"), (8, 8, 3)),
        ((CARTPOLE, "env.wrappers=[stable_baselines3.common.atari_wrappers.ClipRewardEnv]"), (4,)),
        ((CARTPOLE, f"env.wrappers=[{{name:{HERE}.CountEpisodes,factor:2}}]"), (4,)),
    ],
)
def test_wrappers_are_applied_in_order(overrides: tuple[str, ...], shape: tuple[int, ...]) -> None:
    spec = specs(*overrides)[0].env
    assert probe(spec).observation.shape == shape
    assert detect_restore_method(spec) == "pickle"


@pytest.mark.parametrize(
    ("wrappers", "sentence"),
    [
        ("[ClipActions]", r"env.wrappers\[0\]=ClipActions does not exist.* Did you mean 'ClipAction'"),
        (f"[{HERE}.CountEpisode]", "has no Wrapper of this name. Did you mean 'CountEpisodes'"),
        ("[nowhere.Mine]", r"env.wrappers\[0\]=nowhere.Mine cannot be imported: No module named 'nowhere'"),
        ("[OrderEnforcing,ClipAction]", r"env.wrappers\[1\]=ClipAction cannot be applied to .*Discrete\(2\).*Box"),
        ("[{name:TimeLimit,max_steps:3}]", r"\[0\].max_steps is not an argument of TimeLimit. Did you mean 'max_epi"),
        ("[TimeLimit]", "TimeLimit needs the argument max_episode_steps"),
        ("[{name:TimeLimit,max_episode_steps:long}]", r"\[0\].max_episode_steps must be a whole number"),
        ("[{name:TransformReward,func:numpy.sgn}]", r"\[0\].func=numpy.sgn cannot be imported"),
        ("[{TimeLimit:{max_episode_steps:3}}]", r"env.wrappers\[0\] must be a name, as ClipAction, or"),
        ("ClipAction", "env.wrappers must be a list"),
        ("[NormalizeObservation]", "set env.normalize_observations=true"),
        ("[VecNormalize]", "env.normalize_rewards=true"),
        ("[NoopResetEnv]", "use AtariWrapper with noop_max"),
        ("[JaxToNumpy]", "needs a package that is not installed: .*array_api_compat"),
    ],
)
def test_mistakes_are_sentences(wrappers: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        probe(specs(CARTPOLE, f"env.wrappers={wrappers}")[0].env)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("env.backend=envpool",), "env.wrappers must be empty with env.backend=envpool"),
        (("env.vectorization_mode=native",), "env.vectorization_mode=native is not possible with env.wrappers"),
    ],
)
def test_what_steps_all_environments_at_once_takes_no_wrapper(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs(CARTPOLE, "env.wrappers=[OrderEnforcing]", *overrides)


def test_a_mistake_stops_the_command_line_before_the_first_frame(tmp_path: Path) -> None:
    done = lab(CARTPOLE, "env.wrappers=[{name:TimeLimit,max_step:3}]", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "env.wrappers[0].max_step is not an argument of TimeLimit. Did you mean 'max_episode_steps'?" in done.stderr
    assert not (tmp_path / "run").exists()


def test_wrappers_of_the_command_line_are_those_of_the_spec_evaluation_and_enjoy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    wrappers = [{"name": "VecFrameStack", "n_stack": 2}, {"name": "TimeLimit", "max_episode_steps": 9}]
    small = ("algo=a2c", "frames=400", "log.every=200", "eval.every=200", "eval.episodes=2", "log.tensorboard=false")
    typed = "env.wrappers=[{name:VecFrameStack,n_stack:2},{name:TimeLimit,max_episode_steps:9}]"
    done = lab(CARTPOLE, typed, *small, f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    assert load(run / "spec.yaml").env.wrappers == wrappers
    lengths = [line.split(",")[2] for line in (run / "episodes.csv").read_text().splitlines()[1:]]
    assert set(lengths) <= {"8", "9"} and len(lengths) > 30
    assert (run / "metrics.csv").read_text().splitlines()[-1].endswith(",9.0,9.0")
    enjoy([str(run), "episodes=2"])
    assert "return 9.00 ± 0.00" in capsys.readouterr().out


def test_frames_are_stacked_along_the_channels_after_zeros() -> None:
    env = make_single(specs(CARTPOLE, "env.wrappers=[{name:VecFrameStack,n_stack:3},TimeFeatureWrapper]")[0].env)
    first, _ = env.reset(seed=0)
    assert np.array_equal(first[:8], np.zeros(8)) and first[-1] == 1.0
    second = env.step(0)[0]
    assert np.array_equal(second[4:8], first[8:12]) and second[-1] == np.float32(1 - 1 / 500)
    assert not np.array_equal(first[8:12], np.zeros(4)), "an observation that was given does not change"
    channels = make_single(specs(*PICTURE, "env.wrappers=[{name:VecFrameStack,n_stack:3}]")[0].env)
    image, _ = channels.reset(seed=0)
    assert image.shape == (16, 16, 3) and not image[..., :2].any() and image[..., 2].any()


def test_the_fraction_that_is_left_is_no_integer() -> None:
    env = TimeFeatureWrapper(DtypeObservation(gym.make("Pendulum-v1"), np.int64))
    assert env.reset(seed=0)[0][-1] == 1.0
    observation = env.step(np.zeros(1, np.float32))[0]
    assert observation[-1] == np.float32(1 - 1 / 200) and env.observation_space.contains(observation)


def test_a_limit_of_steps_is_cut_below_the_wrappers() -> None:
    spec = specs(CARTPOLE, "env.max_episode_steps=12", "env.wrappers=[{name:MaxAndSkipObservation,skip:2}]")[0].env
    envs = Environments(spec, 1, np.random.default_rng(0))
    assert envs.time_limit == 12
    envs.close()


@pytest.mark.parametrize(
    ("wrapper", "restore", "method"),
    [
        ("CountEpisodes", "auto", "pickle"),
        ("Quiet", "auto", "pickle"),
        ("Unpicklable", "auto", "reset"),
        ("Quiet", "replay", "env.restore=replay is not possible with env.wrappers="),
        ("Unpicklable", "pickle", "env.restore=pickle is not possible with env.wrappers="),
    ],
)
def test_what_wrappers_keep_decides_how_they_are_restored(wrapper: str, restore: str, method: str) -> None:
    spec = specs(PENDULUM, "env.max_episode_steps=20", f"env.wrappers=[{HERE}.{wrapper}]", f"env.restore={restore}")
    if restore == "auto":
        assert detect_restore_method(spec[0].env) == method
    else:
        with pytest.raises(LabError, match=method):
            detect_restore_method(spec[0].env)


SHORT = (PENDULUM, "env.max_episode_steps=20", "eval.max_steps=50", "frames=1500")
STATEFUL = f"env.wrappers=[{HERE}.CountEpisodes,{{name:VecFrameStack,n_stack:3}},{{name:ClipReward,min_reward:-5}}]"
REPLAYED = "env.wrappers=[{name:TimeLimit,max_episode_steps:7},{name:VecFrameStack,n_stack:3}]"


@pytest.mark.law
@pytest.mark.parametrize(
    "chosen",
    [
        (STATEFUL, "seed=[3,4]"),
        (REPLAYED, "env.restore=replay"),
        pytest.param((f"env.wrappers=[{HERE}.Unpicklable]",), marks=SLOW),
        pytest.param((REPLAYED, "env.restore=replay", "env.vectorization_mode=async", "env.num_envs=2"), marks=SLOW),
        pytest.param((STATEFUL, "env.vectorization_mode=async", "env.num_envs=2"), marks=SLOW),
    ],
    ids=["pickle", "replay", "reset", "async-replay", "async-pickle"],
)
def test_law_1_with_wrappers_killed_and_resumed(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    moments = ((3, signalled), (5, killed), (2, signalled))
    interruptions = [(Stack, "collect_and_learn", moment, act) for moment, act in moments]
    check(tmp_path, (*SHORT, *chosen), *interruptions)


@pytest.mark.law
def test_law_1_sessions_with_other_wrappers_share_a_stack(tmp_path: Path) -> None:
    small = ("log.every=500", "eval.every=500", "algo.horizon=16", "~tuned", "log.tensorboard=false")
    chosen = [f"env.wrappers=[{{name:{HERE}.CountEpisodes,factor:{factor}}}]" for factor in (1, 2)]
    made = [spec for wrappers in chosen for spec in specs(*SHORT, *small, wrappers)]
    together = train_specs(tmp_path / "together", made)
    for spec, directory in zip(made, together, strict=True):
        (alone,) = train_specs(tmp_path / str(spec.env.wrappers[0]["factor"]), [spec])
        assert result(alone) == result(directory)
    assert result(together[0]) != result(together[1])
