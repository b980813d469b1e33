"""Environments are restored within an episode, and continue equally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from lab.env.make import make_single
from lab.env.restore import Restorable, detect_single_method, detect_vector_method
from lab.env.spec import EnvSpec
from lab.env.validation import Validated
from lab.env.vector import Environments, detect_restore_method, probe
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.session import train as train_stack
from tests.helpers import QUIET, specs

PENDULUM = ("env=pendulum", "env.max_episode_steps=20")
CARTPOLE = ("env=cartpole", "env.vectorization_mode=sync")
LANDER = ("env=gymnasium", "env.id=LunarLander-v3", "env.max_episode_steps=30")
WALKER = ("env=gymnasium", "env.id=BipedalWalker-v3", "env.max_episode_steps=30")
FORGETFUL = ("env=gymnasium", "env.id=tests.envs:Forgetful-v0")
STEPS = 70


def env_spec(*overrides: str) -> EnvSpec:
    return specs(*overrides)[0].env


def method_of_class(name: str) -> str:
    return detect_restore_method(env_spec("env=gymnasium", f"env.id=tests.envs:{name}-v0"))


def actions_of(space: gym.Space[Any], count: int) -> list[Any]:
    space.seed(3)
    return [space.sample() for _ in range(count)]


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("method", ["pickle", "replay"])
@pytest.mark.parametrize("overrides", [PENDULUM, CARTPOLE], ids=["pendulum", "cartpole"])
def test_an_environment_is_restored_at_any_step(overrides: tuple[str, ...], method: str) -> None:
    check_every_step(env_spec(*overrides), method)


@pytest.mark.parametrize(
    "overrides",
    [LANDER, FORGETFUL],
    ids=["lander", "forgetful"],
)
def test_an_environment_with_an_incomplete_pickle_is_replayed(overrides: tuple[str, ...]) -> None:
    spec = env_spec(*overrides)
    assert detect_restore_method(spec) == "replay"
    check_every_step(spec, "replay", every=7)


def test_an_environment_that_remembers_earlier_episodes_is_reset() -> None:
    assert detect_restore_method(env_spec(*WALKER)) == "reset"


def check_every_step(spec: EnvSpec, method: str, every: int = 1) -> None:
    """Compare environments restored at some steps, and at each end of an episode, with one that continued."""
    original = Restorable(make_single(spec), method)
    twin = Restorable(make_single(spec), method)
    original.reset(seed=5)
    trace, moments, ended = [], [(0, original.snapshot)], False
    actions = actions_of(original.action_space, STEPS)
    for index, action in enumerate(actions):
        step = (original.reset()[0], 0.0, False, False) if ended else original.step(action)[:4]
        ended = step[2] or step[3]
        trace.append(step)
        if ended or index % every == 0:
            moments.append((index + 1, original.snapshot))
    assert sum(step[2] or step[3] for step in trace) >= 2
    for start, snapshot in moments:
        twin.snapshot = snapshot
        ended = False  # a new vector environment does not know that an episode ended
        for action, expected in list(zip(actions, trace, strict=True))[start : start + 40]:
            step = (twin.reset()[0], 0.0, False, False) if ended else twin.step(action)[:4]
            ended = step[2] or step[3]
            assert same(step, expected), start
    original.close()
    twin.close()


@pytest.mark.parametrize(
    ("overrides", "method"),
    [
        (PENDULUM, "pickle"),
        (CARTPOLE, "pickle"),
        (("env=cartpole",), "pickle"),
        (LANDER, "replay"),
        ((*PENDULUM, "env.restore=replay"), "replay"),
        ((*PENDULUM, "env.vectorization_mode=async"), "pickle"),
        ((*LANDER, "env.vectorization_mode=async"), "replay"),
    ],
    ids=["pendulum", "cartpole", "native", "lander", "replayed", "async", "async lander"],
)
def test_vector_environments_are_restored(overrides: tuple[str, ...], method: str) -> None:
    spec = env_spec(*overrides)
    assert detect_restore_method(spec) == method
    original = Environments(spec, 3, np.random.default_rng(1), method)
    original.reset()
    rng = np.random.default_rng(2)
    space = original._envs.single_action_space
    size = (STEPS, 3) if isinstance(space, gym.spaces.Discrete) else (STEPS, 3, *space.shape)
    actions = rng.integers(space.n, size=size) if isinstance(space, gym.spaces.Discrete) else rng.normal(size=size)
    moments: dict[str, tuple[int, dict[str, Any]]] = {"at the start": (0, original.state())}
    trace = []
    for index, action in enumerate(actions):
        trace.append(original.step(action))
        if (trace[-1][2] | trace[-1][3]).any():
            moments.setdefault("at an end", (index + 1, original.state()))
        elif "at an end" in moments:
            moments.setdefault("after the reset", (index + 1, original.state()))
        elif index == 6:
            moments["in the midst"] = (index + 1, original.state())
    original.close()
    assert len(moments) == 4
    for moment, (start, state) in moments.items():
        twin = Environments(spec, 3, np.random.default_rng(9), method)
        twin.reset()
        twin.restore(state)
        for action, expected in list(zip(actions, trace, strict=True))[start : start + 30]:
            assert same(twin.step(action), expected), moment
        twin.close()


@pytest.mark.parametrize("overrides", [PENDULUM, ("env=cartpole",)], ids=["sync", "native"])
def test_environments_reset_at_a_checkpoint_are_restored_from_the_reset(overrides: tuple[str, ...]) -> None:
    spec = env_spec(*overrides, "env.restore=reset")
    rng, other = np.random.default_rng(1), np.random.default_rng(9)
    original, twin = (Environments(spec, 2, stream, detect_restore_method(spec)) for stream in (rng, other))
    original.reset()
    original.reset()
    state, after = original.state(), rng.bit_generator.state
    action = np.zeros((2, 1)) if original._envs.single_action_space.shape else np.ones(2, np.int64)
    trace = [original.step(action) for _ in range(30)]
    other.bit_generator.state = after
    twin.restore(state)
    assert other.bit_generator.state == after
    assert all(same(twin.step(action), expected) for expected in trace)
    assert same(original.reset(), twin.reset())


def test_the_restore_method_of_each_kind_of_environment() -> None:
    assert method_of_class("Target") == "pickle"
    assert method_of_class("Unpicklable") == "replay"
    assert method_of_class("Forgetful") == "replay"
    assert method_of_class("HalfForgetful") == "replay"
    assert method_of_class("Unrepeatable") == "reset"
    assert method_of_class("RaisesInReset") == "pickle"


@pytest.mark.parametrize(("overrides", "steps", "resets"), [(CARTPOLE, 125, 16), (LANDER, 250, 26), (WALKER, 200, 20)])
def test_a_method_is_found_in_few_steps(
    monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], steps: int, resets: int
) -> None:
    calls: Counter[str] = Counter()
    for name in ("step", "reset"):
        original = getattr(Validated, name)

        def counted(self: Any, *arguments: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            calls[name] += 1
            return original(self, *arguments, **options)

        monkeypatch.setattr(Validated, name, counted)
    detect_restore_method.__wrapped__(env_spec(*overrides))  # type: ignore[attr-defined]
    assert 0 < calls["step"] <= steps and 0 < calls["reset"] <= resets, calls


def test_what_is_tried_of_a_slow_environment_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("frames=8", "eval.every=0", "algo.horizon=1")
    for name, seconds, slow in (("Sleepy", 0.1, True), ("Level", 60.0, False)):
        monkeypatch.setattr("lab.common.terminal.ANNOUNCED_AFTER", seconds)
        made = specs(*QUIET, "env=gymnasium", f"env.id=tests.envs:{name}-v0", *short)
        train_stack(made, [RunDir(tmp_path / name)], probe(made[0].env))
        text = f"Trying out tests.envs:{name}-v0: how a checkpoint restores it (env.restore)"
        assert capsys.readouterr().out.startswith(text) == slow


def test_an_environment_that_cannot_be_made_has_no_restore_method() -> None:
    def broken() -> Any:
        raise RuntimeError("no")

    makers: tuple[Callable[[Any], str], ...] = (detect_single_method, detect_vector_method)
    assert [method(broken) for method in makers] == ["reset", "reset"]


def test_native_vector_environments_cannot_be_replayed() -> None:
    with pytest.raises(LabError, match=r"restore=replay is not possible.*Try env.vectorization_mode=sync"):
        detect_restore_method(env_spec("env=cartpole", "env.restore=replay"))
    assert (
        detect_restore_method(env_spec("env=cartpole", "env.restore=replay", "env.vectorization_mode=sync")) == "replay"
    )
    assert detect_restore_method(env_spec("env=cartpole", "env.restore=reset")) == "reset"
