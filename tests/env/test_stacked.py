"""Sessions' environments that are stepped together behave as if each Session's were stepped alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from lab.env.joined import JoinedCartPole
from lab.env.stacked import StackedEnvironments
from lab.env.vector import Environments
from lab.env.vector_envs import Steps
from tests.helpers import specs

SESSIONS, ENVS = 5, 3  # an odd number of environments, so that they share no multiple of a processor's vectors


def make(*overrides: str, method: str | None = "pickle") -> list[Environments]:
    spec = specs(*overrides)[0].env
    return [Environments(spec, ENVS, np.random.default_rng(seed), method) for seed in range(SESSIONS)]


def empty(envs: list[Environments]) -> Steps:
    space = envs[0]._envs.single_observation_space
    return Steps.zeros(len(envs), ENVS, space=space)


@pytest.mark.law
@pytest.mark.parametrize(
    "overrides",
    [
        ("env=cartpole", "env.max_episode_steps=30"),
        ("env=cartpole", "+env.kwargs.sutton_barto_reward=true"),
        ("env=cartpole", "env.vectorization_mode=sync"),
    ],
    ids=["native", "kwargs", "sync"],
)
def test_law_1_environments_stepped_together_and_alone(overrides: tuple[str, ...]) -> None:
    alone, together = make(*overrides), make(*overrides)
    stacked, rng, alive = (
        StackedEnvironments(dict(enumerate(together))),
        np.random.default_rng(9),
        list(range(SESSIONS)),
    )
    for s, env in enumerate(alone):
        assert np.array_equal(env.reset(), stacked.reset(s))
    ends = 0
    for t in range(400):
        actions = rng.integers(2, size=(SESSIONS, ENVS))
        if t == 100:
            alive.remove(1)
        if t == 150:
            assert np.array_equal(alone[0].renew(), stacked.renew(0))
        if t in (200, 201, 230):
            states = alone[2].state(), stacked.state(2)
            if t > 200:  # each from the other's state
                alone[2].restore(states[1])
                stacked.restore(2, states[0])
        steps = empty(together)
        assert not stacked.step(alive, actions, steps)
        for s in alive:
            for expected, values in zip(alone[s].step(actions[s]), steps, strict=True):
                assert np.array_equal(values[s], expected), (t, s)
        ends += int(steps.terminated.sum() + steps.truncated.sum())
    assert ends > 100
    assert isinstance(stacked._joined, JoinedCartPole) == ("env.vectorization_mode=sync" not in overrides)


class Faulty(JoinedCartPole):
    """Returns an invalid row for one Session, or fails."""

    fault: Any = None

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        if self.fault == "raise":
            raise ValueError("a bug")
        observation[2 * ENVS + 1] = self.fault
        return observation, *rest


def test_an_invalid_observation_fails_its_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.env.joined.JoinedCartPole", Faulty)
    envs = make("env=cartpole")
    stacked, steps, actions = (
        StackedEnvironments(dict(enumerate(envs))),
        empty(envs),
        np.ones((SESSIONS, ENVS), np.int64),
    )
    for s in range(SESSIONS):
        stacked.reset(s)
    Faulty.fault = np.nan
    failures = stacked.step([0, 2, 3], actions, steps)
    assert list(failures) == [3]
    assert failures[3] == "env.id=CartPole-v1: the observation that step returned is NaN at index 1, 0."
    assert steps.reward[0].all() and steps.reward[2].all() and not steps.reward[3].any()
    Faulty.fault = "raise"
    assert all("ValueError: a bug" in text for text in stacked.step([0, 2], actions, steps).values())


def test_a_vector_class_offers_to_step_several_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(CartPoleVectorEnv):
        join = staticmethod(JoinedCartPole)

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleVectorEnv", Own)
    envs = make("env=cartpole")
    stacked, steps = StackedEnvironments(dict(enumerate(envs))), empty(envs)
    for s in range(SESSIONS):
        stacked.reset(s)
    assert not stacked.step([0, 1], np.ones((SESSIONS, ENVS), np.int64), steps)
    assert type(envs[0]._base.unwrapped) is Own
    assert isinstance(stacked._joined, JoinedCartPole)


def test_without_a_joined_class_each_session_steps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(CartPoleVectorEnv):
        pass

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleVectorEnv", Own)
    envs = make("env=cartpole")
    stacked, steps = StackedEnvironments(dict(enumerate(envs))), empty(envs)
    for s in range(SESSIONS):
        stacked.reset(s)
    assert not stacked.step([0, 1], np.ones((SESSIONS, ENVS), np.int64), steps)
    assert stacked._joined is None and steps.reward[1].all()
