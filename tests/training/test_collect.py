"""A horizon of steps: how it is stored, and the episodes that ended in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.env.vector import probe
from lab.env.vector_envs import Steps
from lab.run.directory import RunDir
from lab.training.metrics import Episode
from lab.training.stack import Stack
from tests.helpers import specs


def make(folder: Path, *overrides: str) -> Stack:
    made = specs("~tuned", "env.num_envs=3", "seed=[0,1]", *overrides)
    return Stack(made, [RunDir(folder / str(s)) for s in range(len(made))], probe(made[0].env))


@pytest.mark.parametrize("normalize", ["false", "true"])
def test_a_rollout_has_storage_of_its_own_with_the_session_axis_first(tmp_path: Path, normalize: str) -> None:
    stack = make(tmp_path, "algo=a2c", "env=pendulum", f"env.normalize_observations={normalize}")
    first = stack.collector.collect()
    steps = [first.observation, first.action, first.reward, first.terminated, first.truncated, first.valid]
    steps += [first.raw.observation, first.raw.reward] if first.raw else []
    assert all(one.transpose(0, 1).is_contiguous() for one in steps)
    assert all(one.shape[:3] == (len(first.action) + extra, 2, 3) for one, extra in zip(steps, (1, 0), strict=False))
    copies = [one.clone() for one in steps]
    later = stack.collector.collect()
    assert torch.equal(later.observation[0], first.observation[-1]) == (normalize == "false")
    stack.collector.renew_environments(0)
    stack.collector.collect()
    assert all(torch.equal(one, copy) for one, copy in zip(steps, copies, strict=True))


def test_episodes_are_summed_step_by_step(tmp_path: Path) -> None:
    stack = make(tmp_path, "algo=reinforce", "env=acrobot", "env.max_episode_steps=7", "env.kwargs={}")
    collector, horizon = stack.collector, stack.agent.algorithm.horizon
    rng = np.random.default_rng(0)
    total, length, before = np.zeros((2, 3)), np.zeros((2, 3), int), np.zeros((2, 3), bool)
    frame, expected = 0, [[], []]
    for _ in range(4):
        reward, done = rng.normal(size=(2, horizon, 3)), rng.random((2, horizon, 3)) < 0.2
        for t in range(horizon):  # no reset ends an episode
            done[:, t] &= ~(done[:, t - 1] if t else before)
        valid = ~np.concatenate([before[:, None], done[:, :-1]], 1)
        before = done[:, -1]
        for t in range(horizon):
            frame += 3
            total += reward[:, t]
            length += valid[:, t]
            for s, e in np.argwhere(done[:, t]):
                expected[s].append(Episode(frame, float(total[s, e]), int(length[s, e])))
                total[s, e], length[s, e] = 0.0, 0
        steps = Steps(reward, reward, done, np.zeros_like(done), np.zeros((*done.shape, 0)))
        collector._count_episodes(steps, valid)
        assert collector.episodes == expected
        expected = [[], []]
    assert collector.frame == frame
